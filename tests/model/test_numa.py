"""Trees for each NUMA node (merge_across_nodes=0), and KSM pages that move between nodes."""

from __future__ import annotations

import pytest

from ksmtrace.model import KnobRefused, KsmScanner, Memory, Mm
from ksmtrace.model.branches import Branch
from ksmtrace.model.memory import Frame

START = 0x100000


def _process(memory: Memory, tgid: int, contents: list[tuple[bytes, int]]) -> Mm:
    """A process with pages of (content, NUMA node)."""
    mm = memory.spawn(tgid)
    memory.map(mm, START, len(contents))
    memory.madvise_mergeable(mm, START, START + len(contents) * 4096)
    for number, (content, nid) in enumerate(contents):
        address = START + number * 4096
        memory.place(mm, address, address + 4096, nid)
        memory.write(mm, address, content)
    return mm


def _migrate(memory: Memory, mm: Mm, number: int, nid: int) -> None:
    memory.migrate(mm, START + number * 4096, START + (number + 1) * 4096, nid)


def _scanner(memory: Memory, *, across: int, kernel: str = "6.18", **knobs: object) -> KsmScanner:
    knobs = {"merge_across_nodes": across, "smart_scan": 0, **knobs}
    return KsmScanner(memory, kernel=kernel, knobs=knobs, check_invariants=True)


def _page(mm: Mm, number: int) -> Frame:
    return mm.pages[START + number * 4096]


def test_equal_pages_on_two_nodes_merge_across_them() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=1)
    _process(memory, 1, [(b"a", 0), (b"a", 1), (b"a", 0), (b"a", 1)])
    scanner.scan(2)
    assert scanner.counters["pages_shared"] == 1
    assert scanner.counters["pages_sharing"] == 3


def test_without_it_each_node_has_a_ksm_page_of_its_own() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=0)
    mm = _process(memory, 1, [(b"a", 0), (b"a", 1), (b"a", 0), (b"a", 1)])
    scanner.scan(2)
    assert scanner.counters["pages_shared"] == 2
    assert scanner.counters["pages_sharing"] == 2
    assert _page(mm, 0) is _page(mm, 2)
    assert _page(mm, 1) is _page(mm, 3)
    assert {_page(mm, 0).nid, _page(mm, 1).nid} == {0, 1}


def test_a_release_before_3_9_knows_no_nodes() -> None:
    memory = Memory()
    scanner = KsmScanner(memory, kernel="2011", check_invariants=True)
    _process(memory, 1, [(b"a", 0), (b"a", 1)])
    scanner.scan(2)
    assert scanner.counters["pages_shared"] == scanner.counters["pages_sharing"] == 1


def test_a_ksm_page_that_moved_settles_in_the_other_nodes_tree() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=0)
    mm = _process(memory, 1, [(b"a", 0), (b"a", 0)])
    scanner.scan(2)
    _migrate(memory, mm, 0, 1)
    scanner.scan()
    assert scanner.reached[Branch.NUMA_MIGRATED] == 1
    assert scanner.counters["pages_shared"] == scanner.counters["pages_sharing"] == 1
    # Newcomers on its new node find it there.
    other = _process(memory, 2, [(b"a", 1), (b"a", 0)])
    scanner.scan(2)
    assert _page(other, 0) is _page(mm, 0)
    assert _page(other, 1) is not _page(mm, 0)
    assert scanner.counters["pages_unshared"] == 1


def test_a_ksm_page_that_moved_to_an_equal_one_becomes_its_dup() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=0)
    mm = _process(memory, 1, [(b"a", 0), (b"a", 0), (b"a", 1), (b"a", 1)])
    scanner.scan(2)
    _migrate(memory, mm, 0, 1)
    scanner.scan()
    assert scanner.counters["stable_node_chains"] == 1
    assert scanner.counters["stable_node_dups"] == 2
    assert scanner.counters["pages_shared"] == scanner.counters["pages_sharing"] == 2


def test_the_last_mapping_of_a_page_that_moved_cannot_join_the_equal_one() -> None:
    # A KSM page is never mapped onto another: the try fails, and is made again in each scan.
    memory = Memory()
    scanner = _scanner(memory, across=0)
    mm = _process(memory, 1, [(b"a", 0), (b"a", 0), (b"a", 1), (b"a", 1)])
    scanner.scan(2)
    _migrate(memory, mm, 0, 1)
    memory.write(mm, START, b"other")
    events = scanner.scan()
    assert _page(mm, 1) is not _page(mm, 2)
    assert (events["err"] == -14).sum() == 1


def test_before_chains_a_page_that_moved_to_an_equal_one_makes_none() -> None:
    memory = Memory()
    scanner = KsmScanner(memory, kernel="4.11", knobs={"merge_across_nodes": 0})
    mm = _process(memory, 1, [(b"a", 0), (b"a", 0), (b"a", 1), (b"a", 1)])
    scanner.scan(2)
    _migrate(memory, mm, 0, 1)
    scanner.scan()
    assert scanner._state.stable_node_chains == 0


def test_a_page_put_aside_that_dies_is_forgotten_at_the_next_scan() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=0)
    one = _process(memory, 1, [(b"a", 0), (b"a", 0)])
    _process(memory, 2, [(b"z", 1)])
    scanner.scan(2)
    _migrate(memory, one, 0, 1)
    scanner.scan()
    _migrate(memory, one, 0, 0)
    memory.unmap(one, START, START + 2 * 4096)
    events = scanner.scan()
    assert scanner.counters["pages_shared"] == 0
    assert len(events) > 2


def test_the_knob_is_refused_while_pages_are_merged() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=1)
    mm = _process(memory, 1, [(b"a", 0), (b"a", 1)])
    scanner.scan(2)
    with pytest.raises(KnobRefused, match="EBUSY"):
        scanner.set_knob("merge_across_nodes", 0)
    memory.exit(mm)
    scanner.scan()
    scanner.set_knob("merge_across_nodes", 0)
    assert scanner.knobs["merge_across_nodes"] == "0"


def test_pages_come_from_their_region_s_node_and_copies_too() -> None:
    memory = Memory()
    _scanner(memory, across=1)
    mm = _process(memory, 1, [(b"a", 0), (b"a", 1)])
    memory.place(mm, START, START + 4096, 1)
    assert [_page(mm, 0).nid, _page(mm, 1).nid] == [0, 1]
    child = memory.fork(mm, 2)
    memory.write(child, START, b"b")
    assert [_page(mm, 0).nid, _page(child, 0).nid] == [0, 1]


def test_unmerging_gives_pages_of_the_region_s_node() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=1)
    mm = _process(memory, 1, [(b"a", 0), (b"a", 1), (b"a", 0)])
    scanner.scan(2)
    assert len({_page(mm, number) for number in range(3)}) == 1
    scanner.set_knob("run", 2)
    assert [_page(mm, number).nid for number in range(3)] == [0, 1, 0]


def test_a_page_that_moves_has_another_frame_number_and_the_same_content() -> None:
    memory = Memory()
    _scanner(memory, across=0)
    mm = _process(memory, 1, [(b"a", 0)])
    before = _page(mm, 0).pfn
    _migrate(memory, mm, 0, 1)
    assert _page(mm, 0).pfn != before
    assert memory.read(mm, START) == b"a"
    before = _page(mm, 0).pfn
    _migrate(memory, mm, 0, 1)
    assert _page(mm, 0).pfn == before


def test_a_page_that_is_held_stays_where_it_is() -> None:
    memory = Memory()
    _scanner(memory, across=0)
    mm = _process(memory, 1, [(b"a", 0)])
    held = memory.pin(mm, START)
    _migrate(memory, mm, 0, 1)
    assert held.nid == 0


def test_a_ksm_page_of_which_a_mapping_is_unknown_stays_where_it_is() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=0)
    parent = _process(memory, 1, [(b"a", 0), (b"a", 0)])
    scanner.scan(2)
    child = memory.fork(parent, 2)
    _migrate(memory, child, 0, 1)
    assert _page(child, 0).nid == 1
    memory.unmap(parent, START, START + 2 * 4096)
    scanner.batch(1)
    _migrate(memory, child, 0, 0)
    assert _page(child, 0).nid == 1
    scanner.scan(2)
    _migrate(memory, child, 0, 0)
    assert _page(child, 0).nid == 0


@pytest.mark.parametrize(("kernel", "nid"), [("6.0", 1), ("6.1.192", 0), ("6.4", 0), ("6.5", 1)])
def test_a_page_without_access_is_not_found_to_be_moved_in_some_releases(
    kernel: str, nid: int
) -> None:
    memory = Memory()
    KsmScanner(memory, kernel=kernel)
    mm = _process(memory, 1, [(b"a", 0)])
    memory.protect(mm, START, START + 4096, "none")
    _migrate(memory, mm, 0, 1)
    assert _page(mm, 0).nid == nid


def test_a_twin_in_the_unstable_tree_that_moved_away_is_none() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=0)
    mm = _process(memory, 1, [(b"a", 0), (b"a", 0)])
    scanner.scan()
    scanner.batch(1)
    _migrate(memory, mm, 0, 1)
    scanner.scan()
    assert scanner.reached[Branch.NUMA_TWIN_MOVED] == 1
    assert scanner.counters["pages_unshared"] == 1


def test_two_ksm_pages_that_change_nodes_take_each_other_s_places() -> None:
    memory = Memory()
    scanner = _scanner(memory, across=0)
    mm = _process(memory, 1, [(b"a", 0), (b"a", 0), (b"a", 1), (b"a", 1)])
    scanner.scan(2)
    memory.discard(mm, START, START + 4096)
    _migrate(memory, mm, 1, 1)
    _migrate(memory, mm, 2, 0)
    scanner.scan()
    assert scanner.reached[Branch.NUMA_REPLACED] == 1
    assert scanner.counters["pages_shared"] == 2
    assert scanner.counters["pages_sharing"] == 1
    assert scanner.counters["stable_node_chains"] == 0
