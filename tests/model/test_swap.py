"""Pages that go to the swap disk and come back, as the kernel's fault handler and KSM have it."""

from __future__ import annotations

import pytest

from ksmtrace.model import KsmScanner, Memory, Mm
from ksmtrace.model.memory import Frame, MemoryFault

START = 0x100000
PAGE = 4096


def _machine(kernel: str = "6.18.44", **knobs: object) -> tuple[Memory, KsmScanner]:
    memory = Memory()
    return memory, KsmScanner(
        memory, kernel=kernel, knobs={"smart_scan": 0, **knobs}, check_invariants=True
    )


def _process(memory: Memory, tgid: int, contents: list[bytes], start: int = START) -> Mm:
    mm = memory.spawn(tgid)
    memory.map(mm, start, len(contents))
    memory.madvise_mergeable(mm, start, start + len(contents) * PAGE)
    for number, content in enumerate(contents):
        memory.write(mm, start + number * PAGE, content)
    return mm


def _at(number: int) -> int:
    return START + number * PAGE


def _out(memory: Memory, mm: Mm, first: int, last: int | None = None) -> None:
    memory.swap_out(mm, _at(first), _at(first + 1 if last is None else last))


def _page(mm: Mm, number: int) -> Frame:
    return mm.pages[_at(number)]


def test_a_page_that_one_process_alone_has_comes_back_as_it_was() -> None:
    memory, _ = _machine()
    mm = _process(memory, 1, [b"a", b"b", b"a"])
    _out(memory, mm, 1)
    assert sorted(mm.pages) == [_at(0), _at(2)]
    assert memory.read(mm, _at(1)) == b"b"
    assert _page(mm, 1).exclusive
    assert _page(mm, 1).swap is None
    memory.write(mm, _at(1), b"c")
    assert memory.read(mm, _at(1)) == b"c"
    assert memory.swap.copies == 0


def test_a_part_written_to_a_swapped_page_keeps_the_rest() -> None:
    memory, _ = _machine()
    mm = _process(memory, 1, [b"abcde"])
    _out(memory, mm, 0)
    memory.write_part(mm, _at(0), 1, b"XY")
    assert memory.read(mm, _at(0)) == b"aXYde"


def test_a_swapped_ksm_page_is_gone_for_all_its_sharers_and_found_dead() -> None:
    memory, scanner = _machine()
    one = _process(memory, 1, [b"a"] * 3)
    two = _process(memory, 2, [b"a"] * 2)
    scanner.scan(2)
    _out(memory, two, 0)
    assert not one.pages
    assert not two.pages
    assert scanner.counters["pages_sharing"] == 4
    events = scanner.scan()
    assert scanner.counters["pages_sharing"] == scanner.counters["pages_shared"] == 0
    assert len(events) == 2 + 4 + 1
    assert one.ksm_rmap_items == two.ksm_rmap_items == 0


def test_of_n_former_sharers_one_gets_the_page_and_the_others_copies() -> None:
    memory, scanner = _machine()
    one = _process(memory, 1, [b"a"] * 3)
    two = _process(memory, 2, [b"a"] * 2)
    scanner.scan(2)
    _out(memory, one, 0)
    for mm, pages in ((one, 3), (two, 2)):
        for number in range(pages):
            assert memory.read(mm, _at(number)) == b"a"
    assert scanner.counters["ksm_swpin_copy"] == 4
    assert len({*one.pages.values(), *two.pages.values()}) == 5
    assert scanner.counters["cow_ksm"] == 0
    scanner.scan(2)
    assert scanner.counters["pages_sharing"] == 4


def test_a_child_shares_the_page_at_its_parent_s_address_and_copies_at_another() -> None:
    memory, scanner = _machine()
    parent = _process(memory, 1, [b"a"] * 2)
    scanner.scan(2)
    _out(memory, parent, 0)
    child = memory.fork(parent, 2)
    memory.read(parent, _at(0))
    memory.read(child, _at(0))
    assert _page(parent, 0) is _page(child, 0)
    assert not _page(parent, 0).exclusive
    memory.read(child, _at(1))
    assert scanner.counters["ksm_swpin_copy"] == 1
    memory.write(parent, _at(0), b"b")
    assert memory.read(child, _at(0)) == b"a"


def test_a_region_that_moved_still_belongs_where_it_was() -> None:
    memory, _ = _machine()
    parent = _process(memory, 1, [b"a"])
    child = memory.fork(parent, 2)
    _out(memory, parent, 0)
    memory.remap(child, _at(0), _at(1), START << 1)
    memory.read(parent, _at(0))
    memory.read(child, START << 1)
    assert memory.swap.copies == 0
    assert _page(parent, 0) is child.pages[START << 1]


def test_a_region_mapped_anew_at_the_same_address_is_another_one() -> None:
    memory, scanner = _machine()
    parent = _process(memory, 1, [b"a", b"b"])
    child = memory.fork(parent, 2)
    memory.unmap(child, _at(0), _at(1))
    memory.map(child, _at(0), 1)
    memory.madvise_mergeable(child, _at(0), _at(1))
    memory.write(child, _at(0), b"a")
    scanner.scan(3)
    _out(memory, parent, 0)
    memory.read(parent, _at(0))
    memory.read(child, _at(0))
    assert memory.swap.copies == 1


def test_a_page_in_the_swap_cache_that_became_a_ksm_page_is_mapped_as_such() -> None:
    memory, scanner = _machine()
    other = _process(memory, 1, [b"x"])
    mm = _process(memory, 2, [b"a"] * 3)
    scanner.scan(2)
    _out(memory, mm, 0)
    memory.write(other, _at(0), b"a")
    memory.read(mm, _at(1))
    scanner.scan(2)
    ksm_page = _page(mm, 1)
    assert ksm_page.ksm
    assert _page(other, 0) is ksm_page
    memory.read(mm, _at(0))
    assert _page(mm, 0) is ksm_page
    assert scanner.counters["ksm_swpin_copy"] == 0
    # Somebody waits for it still: it lives without a mapping.
    memory.discard(mm, _at(0), _at(2))
    memory.discard(other, _at(0), _at(1))
    assert len(scanner.scan()) == 2
    assert ksm_page.alive
    memory.discard(mm, _at(2), _at(3))
    assert not ksm_page.alive


def test_after_run_2_what_waits_in_the_swap_cache_is_copied() -> None:
    memory, scanner = _machine()
    other = _process(memory, 1, [b"x"])
    mm = _process(memory, 2, [b"a"] * 2)
    scanner.scan(2)
    _out(memory, mm, 0)
    memory.write(other, _at(0), b"a")
    memory.read(mm, _at(1))
    scanner.scan(2)
    scanner.set_knob("run", 2)
    memory.read(mm, _at(0))
    assert scanner.counters["ksm_swpin_copy"] == 1
    assert not _page(mm, 0).ksm


def test_another_swap_out_drops_what_nobody_maps_from_the_swap_cache() -> None:
    memory, scanner = _machine()
    parent = _process(memory, 1, [b"a", b"b"])
    child = memory.fork(parent, 2)
    _out(memory, parent, 0)
    memory.read(parent, _at(0))
    cached = _page(parent, 0)
    memory.discard(parent, _at(0), _at(1))
    assert cached.alive
    _out(memory, parent, 1)
    assert not cached.alive
    assert memory.read(child, _at(0)) == b"a"
    assert scanner.counters["ksm_swpin_copy"] == 0


def test_an_unstable_page_that_is_swapped_out_blocks_the_way() -> None:
    memory, scanner = _machine()
    mm = _process(memory, 1, [b"b", b"a", b"c"])
    scanner.scan()
    scanner.batch(1)
    _out(memory, mm, 0)
    scanner.scan()
    assert scanner.counters["pages_unshared"] == 1


@pytest.mark.parametrize("kernel", ["5.4", "5.9", "6.0"])
def test_copies_are_made_in_every_release_and_counted_since_5_19(kernel: str) -> None:
    memory = Memory()
    scanner = KsmScanner(memory, kernel=kernel, check_invariants=True)
    mm = _process(memory, 1, [b"a"] * 2)
    scanner.scan(2)
    _out(memory, mm, 0)
    memory.read(mm, _at(0))
    memory.read(mm, _at(1))
    assert memory.swap.copies == 1
    assert scanner.counters.get("ksm_swpin_copy") == (1 if kernel == "6.0" else None)


def test_what_can_t_leave_memory_is_refused_with_the_reason() -> None:
    memory, _ = _machine()
    mm = _process(memory, 1, [b"a"] * 2)
    held = memory.pin(mm, _at(0))
    with pytest.raises(MemoryFault, match="held"):
        _out(memory, mm, 0)
    memory.unpin(held)
    huge = memory.spawn(3)
    memory.map(huge, 1 << 30, 512)
    memory.map_huge(huge, 1 << 30, b"h")
    with pytest.raises(MemoryFault, match="huge"):
        memory.swap_out(huge, 1 << 30, (1 << 30) + PAGE)


def test_a_ksm_page_mapped_where_ksmd_was_not_yet_stays() -> None:
    memory, scanner = _machine()
    mm = _process(memory, 1, [b"a"] * 2)
    scanner.scan(2)
    child = memory.fork(mm, 2)
    # Found through the parent's rmap_items while those are there.
    memory.unmap(mm, _at(0), _at(2))
    scanner.batch(1)
    assert len(child.pages) == 2
    with pytest.raises(MemoryFault, match="ksmd wasn't yet"):
        _out(memory, child, 0, 2)
    scanner.scan(2)
    _out(memory, child, 0, 2)
    assert not child.pages


def test_who_ends_waits_no_longer() -> None:
    memory, scanner = _machine()
    one = _process(memory, 1, [b"a"])
    two = _process(memory, 2, [b"a"])
    scanner.scan(2)
    _out(memory, one, 0)
    memory.exit(two)
    memory.write(one, _at(0), b"b")
    assert _page(one, 0).swap is None
    assert memory.swap.copies == 0


def test_a_copy_comes_from_the_region_s_own_node() -> None:
    memory, scanner = _machine()
    one = _process(memory, 1, [b"a"])
    two = _process(memory, 2, [b"a"])
    scanner.scan(2)
    memory.place(two, _at(0), _at(1), 1)
    _out(memory, one, 0)
    memory.read(one, _at(0))
    memory.read(two, _at(0))
    assert (_page(one, 0).nid, _page(two, 0).nid) == (0, 1)
