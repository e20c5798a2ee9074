from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.events.registry import KSM_ENTER, KSM_EXIT
from ksmtrace.model.content import ZERO
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.memory import HUGE_PAGES, Frame, Memory, MemoryFault, Mm

PAGE = 4096
HIGH = 1 << 20


def machine(kernel: str = "6.18.44", **knobs: object) -> tuple[Memory, KsmScanner]:
    memory = Memory()
    return memory, KsmScanner(memory, kernel=kernel, knobs=knobs, check_invariants=True)


def process(memory: Memory, contents: list[bytes | None], tgid: int = 7) -> Mm:
    """A process with one mergeable region; None: a page never touched."""
    mm = memory.spawn(tgid)
    memory.map(mm, 0, len(contents))
    memory.madvise_mergeable(mm, 0, len(contents) * PAGE)
    for number, content in enumerate(contents):
        if content is not None:
            memory.write(mm, number * PAGE, content)
    return mm


def kinds(scanner: KsmScanner) -> list[int]:
    return [int(kind) for kind in scanner.take_events()["kind"]]


# Regions.


def test_a_region_is_mapped_once() -> None:
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, PAGE, 3)
    for start, pages in ((PAGE, 1), (0, 2), (3 * PAGE, 5)):
        with pytest.raises(MemoryFault, match="mapped at"):
            memory.map(mm, start, pages)
    memory.map(mm, 4 * PAGE, 1)
    memory.map(mm, 0, 1)
    assert [(vma.start, vma.end) for vma in mm.vmas] == [
        (0, PAGE), (PAGE, 4 * PAGE), (4 * PAGE, 5 * PAGE)
    ]  # fmt: skip


def test_unmapping_the_middle_leaves_both_ends() -> None:
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, 0, 5)
    memory.unmap(mm, PAGE, 3 * PAGE)
    assert [(vma.start, vma.end) for vma in mm.vmas] == [(0, PAGE), (3 * PAGE, 5 * PAGE)]
    assert mm.vma_at(PAGE) is None
    assert mm.vma_from(PAGE) is mm.vmas[1]
    memory.map(mm, PAGE, 2)


def test_advice_and_protection_split_regions() -> None:
    memory, _ = machine()
    mm = memory.spawn(7)
    memory.map(mm, 0, 3)
    memory.madvise_mergeable(mm, PAGE, 2 * PAGE)
    memory.protect(mm, 2 * PAGE, 3 * PAGE, "read")
    assert [(vma.mergeable, vma.protection) for vma in mm.vmas] == [
        (False, "write"), (True, "write"), (False, "read")
    ]  # fmt: skip


def test_what_the_processor_would_refuse_is_a_fault() -> None:
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, 0, 2)
    memory.protect(mm, 0, PAGE, "read")
    memory.protect(mm, PAGE, 2 * PAGE, "none")
    assert memory.read(mm, 0) == ZERO
    for forbidden in (lambda: memory.write(mm, 0, b"a"), lambda: memory.read(mm, PAGE)):
        with pytest.raises(MemoryFault, match="mprotect"):
            forbidden()
    with pytest.raises(MemoryFault, match="nothing is mapped"):
        memory.read(mm, 2 * PAGE)
    with pytest.raises(MemoryFault, match="no page to pin"):
        memory.pin(mm, PAGE)


# Pages, and copy on write.


def test_a_page_that_was_only_read_is_the_zero_page() -> None:
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, 0, 1)
    assert memory.read(mm, 0) == ZERO
    assert mm.pages[0] is memory.zero_frame
    memory.write(mm, 0, b"a")
    assert mm.pages[0] is not memory.zero_frame
    assert memory.zero_frame.content == ZERO


def test_writing_a_part_keeps_the_rest() -> None:
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, 0, 1)
    memory.write_part(mm, 0, 3, b"c")
    memory.write_part(mm, 0, 0, b"ab")
    assert memory.read(mm, 0) == b"ab\0c"


def test_a_forked_page_is_copied_by_the_first_writer_and_kept_by_the_last() -> None:
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, 0, 1)
    memory.write(mm, 0, b"a")
    frame = mm.pages[0]
    child = memory.fork(mm, 11)
    assert child.pages[0] is frame
    assert (frame.mapcount, frame.exclusive) == (2, False)

    memory.write(mm, 0, b"b")
    assert mm.pages[0] is not frame
    assert (frame.content, frame.mapcount) == (b"a", 1)
    memory.write(child, 0, b"c")
    assert child.pages[0] is frame
    assert (frame.content, frame.exclusive) == (b"c", True)


def test_a_pinned_page_is_copied_even_by_its_last_mapper() -> None:
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, 0, 1)
    memory.write(mm, 0, b"a")
    child = memory.fork(mm, 11)
    pinned = memory.pin(child, 0)
    memory.exit(mm)
    memory.write(child, 0, b"b")
    assert child.pages[0] is not pinned
    assert pinned.content == b"a"


def test_a_pin_keeps_a_page_alive_that_nobody_maps() -> None:
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, 0, 1)
    memory.write(mm, 0, b"a")
    frame = memory.pin(mm, 0)
    memory.discard(mm, 0, PAGE)
    assert frame.alive
    memory.unpin(frame)
    assert not frame.alive


# What is written, forked and read must be what plain memory would give, whatever ksmd does.


class Mirror:
    """A machine with ksmd, and beside it what each process has last written to its five pages."""

    def __init__(self, kernel: str) -> None:
        self.memory, self.scanner = machine(kernel)
        self.mms = [process(self.memory, [b"a"] * 5)]
        self.written = [dict.fromkeys(range(5), b"a")]
        self.pins: list[Frame] = []

    def do_write(self, who: int, page: int, content: bytes) -> None:
        self.memory.write(self.mms[who], page * PAGE, content)
        self.written[who][page] = content

    def do_write_part(self, who: int, page: int, _content: bytes) -> None:
        self.memory.write_part(self.mms[who], page * PAGE, 0, b"z")
        self.written[who][page] = b"z" + self.written[who][page][1:]

    def do_read(self, who: int, page: int, _content: bytes) -> None:
        assert self.memory.read(self.mms[who], page * PAGE) == self.written[who][page]

    def do_discard(self, who: int, page: int, _content: bytes) -> None:
        self.memory.discard(self.mms[who], page * PAGE, (page + 1) * PAGE)
        self.written[who][page] = ZERO

    def do_fork(self, who: int, _page: int, _content: bytes) -> None:
        if len(self.mms) < 5:
            self.mms.append(self.memory.fork(self.mms[who], 100 + len(self.mms)))
            self.written.append(dict(self.written[who]))

    def do_exit(self, who: int, _page: int, _content: bytes) -> None:
        if len(self.mms) > 1:
            self.memory.exit(self.mms.pop(who))
            del self.written[who]

    def do_opt_in(self, who: int, page: int, _content: bytes) -> None:
        self.memory.madvise_mergeable(self.mms[who], page * PAGE, 5 * PAGE)

    def do_opt_out(self, who: int, page: int, _content: bytes) -> None:
        self.memory.madvise_unmergeable(self.mms[who], page * PAGE, 5 * PAGE)

    def do_pin(self, who: int, page: int, _content: bytes) -> None:
        if self.mms[who].pages.get(page * PAGE) not in (None, self.memory.zero_frame):
            self.pins.append(self.memory.pin(self.mms[who], page * PAGE))

    def do_unpin(self, _who: int, _page: int, _content: bytes) -> None:
        if self.pins:
            self.memory.unpin(self.pins.pop())

    def do_scan(self, _who: int, page: int, _content: bytes) -> None:
        self.scanner.scan(1 + page // 3)

    def do_batch(self, _who: int, page: int, _content: bytes) -> None:
        self.scanner.batch(page)

    def do_run_2(self, _who: int, _page: int, _content: bytes) -> None:
        self.scanner.set_knob("run", 2)

    def assert_nothing_noticed(self) -> None:
        for mm, written in zip(self.mms, self.written, strict=True):
            for page, content in written.items():
                frame = mm.pages.get(page * PAGE)
                assert (ZERO if frame is None else frame.content) == content


WHAT = ["write", "write", "write_part", "read", "discard", "fork", "exit", "opt_in", "opt_out",
        "pin", "unpin", "scan", "scan", "scan", "batch", "run_2"]  # fmt: skip
ACTIONS = st.tuples(
    st.sampled_from(WHAT),
    st.integers(0, 12),
    st.integers(0, 4),
    st.sampled_from([b"a", b"b", ZERO]),
)


@given(
    st.sampled_from(["2011", "5.4", "6.1.192", "6.8", "6.12", "6.18.44"]),
    st.lists(ACTIONS, min_size=5, max_size=61),
)
def test_no_process_ever_notices_ksmd(
    kernel: str, actions: list[tuple[str, int, int, bytes]]
) -> None:
    mirror = Mirror(kernel)
    for what, who, page, content in actions:
        getattr(mirror, f"do_{what}")(who % len(mirror.mms), page, content)
        mirror.assert_nothing_noticed()
        assert_counted(mirror.memory)


def assert_counted(memory: Memory) -> None:
    """Every frame knows how often it is mapped, and no page is exclusive to two."""
    mapped = Counter(frame for mm in memory.mms for frame in mm.pages.values())
    for frame, times in mapped.items():
        if frame is not memory.zero_frame:
            assert frame.mapcount == times
            assert times == 1 or not frame.exclusive


# KSM pages.


def merged_pair(kernel: str = "6.18.44") -> tuple[Memory, KsmScanner, Mm]:
    memory, scanner = machine(kernel)
    mm = process(memory, [b"a", b"a"])
    scanner.scan(2)
    assert mm.pages[0] is mm.pages[PAGE]
    assert mm.pages[0].ksm
    return memory, scanner, mm


def test_a_write_to_a_ksm_page_always_copies() -> None:
    memory, _, mm = merged_pair()
    shared = mm.pages[0]
    for number, address in enumerate((0, PAGE), start=1):
        memory.write(mm, address, b"a")
        assert mm.pages[address] is not shared
        assert memory.cow_ksm == number
    assert not shared.alive


def test_linux_5_4_reuses_a_ksm_page_that_nobody_else_maps() -> None:
    memory, scanner, mm = merged_pair("5.4")
    shared = mm.pages[0]
    memory.write(mm, 0, b"b")
    assert memory.cow_ksm == 1
    memory.write(mm, PAGE, b"c")
    assert mm.pages[PAGE] is shared
    assert memory.cow_ksm == 1
    assert not shared.ksm
    scanner.scan()
    assert scanner.counters["pages_shared"] == 0


@pytest.mark.parametrize(("kernel", "clean"), [("6.1", False), ("6.2", True), ("6.18.44", True)])
def test_unsharing_leaves_a_clean_page_since_6_2(kernel: str, clean: bool) -> None:
    memory, _, mm = merged_pair(kernel)
    memory.madvise_unmergeable(mm, 0, 2 * PAGE)
    assert mm.clean == ({0, PAGE} if clean else set())
    memory.write(mm, 0, b"a")
    assert mm.clean == ({PAGE} if clean else set())


def test_unmerging_copies_every_page_and_tells_nobody() -> None:
    memory, scanner, mm = merged_pair()
    before = {name: n for name, n in scanner.counters.items() if name != "cow_ksm"}
    scanner.take_events()
    memory.madvise_unmergeable(mm, 0, 2 * PAGE)
    assert memory.cow_ksm == 2
    assert len({id(frame) for frame in mm.pages.values()}) == 2
    assert {n: v for n, v in scanner.counters.items() if n != "cow_ksm"} == before
    assert not len(scanner.take_events())


def test_a_moved_region_is_unshared_and_stays_mergeable() -> None:
    memory, scanner, mm = merged_pair()
    memory.remap(mm, 0, 2 * PAGE, HIGH)
    assert memory.cow_ksm == 2
    assert sorted(mm.pages) == [HIGH, HIGH + PAGE]
    assert [(vma.start, vma.mergeable) for vma in mm.vmas] == [(HIGH, True)]
    assert mm.clean == {HIGH, HIGH + PAGE}
    scanner.scan(2)
    assert scanner.counters["pages_sharing"] == 1


def test_nothing_is_moved_onto_what_is_mapped() -> None:
    memory, _, mm = merged_pair()
    memory.map(mm, HIGH, 1)
    with pytest.raises(MemoryFault, match="something mapped"):
        memory.remap(mm, 0, 2 * PAGE, HIGH - PAGE)


# Pins, clean pages and fork: when a page's references are counted (T34, T49).


def remade_pair(
    kernel: str, *, fork: bool, pin: bool, rewrite: bool = False
) -> tuple[KsmScanner, Mm]:
    """A merged pair, unmerged and made mergeable again; then perhaps forked, written, pinned."""
    memory, scanner, mm = merged_pair(kernel)
    memory.madvise_unmergeable(mm, 0, 2 * PAGE)
    memory.madvise_mergeable(mm, 0, 2 * PAGE)
    if fork:
        memory.fork(mm, 11)
    if rewrite:
        memory.write(mm, 0, b"a")
    if pin:
        memory.pin(mm, 0)
    scanner.scan(2)
    return scanner, mm


@pytest.mark.parametrize(
    ("kernel", "fork", "rewrite", "merges"),
    [
        ("6.18.44", True, False, True),
        ("6.18.44", False, False, False),
        ("6.18.44", True, True, False),
        ("6.1.192", True, False, False),
    ],
)
def test_a_pin_is_ignored_only_for_a_clean_page_shared_by_fork(
    kernel: str, fork: bool, rewrite: bool, merges: bool
) -> None:
    _, mm = remade_pair(kernel, fork=fork, pin=True, rewrite=rewrite)
    assert mm.pages[0].ksm is merges


@pytest.mark.parametrize("kernel", ["6.1.192", "6.18.44"])
def test_without_the_pin_they_merge_in_every_kernel(kernel: str) -> None:
    _, mm = remade_pair(kernel, fork=True, pin=False, rewrite=True)
    assert mm.pages[0] is mm.pages[PAGE]


# Fork, exec and exit, as KSM is told of them.


@pytest.mark.parametrize(
    ("kernel", "items", "merging"),
    [("6.1.192", 2, 2), ("6.11", 2, 2), ("6.12", 2, 2), ("6.12.117", 0, 0), ("6.18", 0, 0)],
)
def test_a_child_s_counters_begin_with_its_parent_s_or_at_zero(
    kernel: str, items: int, merging: int
) -> None:
    memory, _, mm = merged_pair(kernel)
    child = memory.fork(mm, 11)
    assert (child.ksm_rmap_items, child.ksm_merging_pages) == (items, merging)


def test_only_a_registered_process_s_child_is_registered() -> None:
    memory, scanner = machine()
    plain = memory.spawn(7)
    memory.map(plain, 0, 1)
    memory.fork(plain, 11)
    assert kinds(scanner) == []
    memory.madvise_mergeable(plain, 0, PAGE)
    memory.madvise_mergeable(plain, 0, PAGE)
    child = memory.fork(plain, 13)
    assert kinds(scanner) == [KSM_ENTER.id] * 2
    memory.exit(child)
    assert kinds(scanner) == [KSM_EXIT.id]


def test_memory_that_ksm_may_not_have_is_silently_ignored() -> None:
    memory, scanner = machine()
    mm = memory.spawn(7)
    memory.map(mm, 0, 1, compatible=False)
    memory.madvise_mergeable(mm, 0, PAGE)
    assert kinds(scanner) == []
    assert not mm.vmas[0].mergeable
    memory.prctl_merge(mm, on=True)
    assert kinds(scanner) == [KSM_ENTER.id]
    assert not mm.vmas[0].mergeable


def test_an_exited_process_has_no_memory() -> None:
    memory, _, mm = merged_pair()
    frame = mm.pages[0]
    memory.exit(mm)
    assert mm not in memory.mms
    assert not mm.pages
    assert not mm.vmas
    assert not frame.alive


@pytest.mark.parametrize(
    ("kernel", "inherits", "enters"),
    [("6.4", False, False), ("6.7", True, False), ("6.9", True, False), ("6.10", True, True)],
)
def test_what_exec_makes_of_a_process_that_opted_in_wholly(
    kernel: str, inherits: bool, enters: bool
) -> None:
    memory, scanner = machine(kernel)
    mm = memory.spawn(7)
    memory.prctl_merge(mm, on=True)
    scanner.take_events()
    fresh = memory.exec(mm)
    assert fresh.merge_any is inherits
    assert fresh.mergeable is enters
    assert kinds(scanner) == [KSM_ENTER.id] * enters + [KSM_EXIT.id]
    memory.map(fresh, 0, 1)
    assert fresh.vmas[0].mergeable is inherits


def test_a_kernel_before_6_4_has_no_such_prctl() -> None:
    memory, _ = machine("6.3")
    with pytest.raises(MemoryFault, match=r"6\.4"):
        memory.prctl_merge(memory.spawn(7), on=True)


def test_opting_out_wholly_unmerges_what_madvise_opted_in_too() -> None:
    memory, _, mm = merged_pair()
    memory.prctl_merge(mm, on=False)
    assert memory.cow_ksm == 0, "it had not opted in wholly, so nothing happens"
    memory.prctl_merge(mm, on=True)
    memory.map(mm, HIGH, 1)
    assert all(vma.mergeable for vma in mm.vmas)
    memory.prctl_merge(mm, on=False)
    assert memory.cow_ksm == 2
    assert not any(vma.mergeable for vma in mm.vmas)


# Zero pages.


def zero_merged(kernel: str = "6.18.44") -> tuple[Memory, KsmScanner, Mm]:
    memory, scanner = machine(kernel, use_zero_pages=1)
    mm = process(memory, [ZERO] * 5)
    scanner.scan(2)
    assert all(frame is memory.zero_frame for frame in mm.pages.values())
    return memory, scanner, mm


def test_placed_zero_pages_are_counted_until_their_mapping_changes() -> None:
    memory, scanner, mm = zero_merged()
    steps = [5]
    memory.write(mm, 0, b"a")
    steps.append(mm.ksm_zero_pages)
    memory.discard(mm, PAGE, 2 * PAGE)
    steps.append(mm.ksm_zero_pages)
    memory.unmap(mm, 2 * PAGE, 3 * PAGE)
    steps.append(mm.ksm_zero_pages)
    memory.madvise_unmergeable(mm, 3 * PAGE, 4 * PAGE)
    steps.append(mm.ksm_zero_pages)
    assert mm.pages[3 * PAGE] is not memory.zero_frame
    assert scanner.counters["ksm_zero_pages"] == 1
    memory.exit(mm)
    steps.append(mm.ksm_zero_pages)
    assert steps == [5, 4, 3, 2, 1, 0]
    assert scanner.counters["ksm_zero_pages"] == 0
    assert memory.cow_ksm == 0, "zero pages are no KSM pages"


def test_before_6_6_placed_zero_pages_are_forgotten() -> None:
    memory, scanner, mm = zero_merged("6.5")
    assert "ksm_zero_pages" not in scanner.counters
    memory.madvise_unmergeable(mm, 0, 5 * PAGE)
    assert mm.pages[0] is memory.zero_frame


@pytest.mark.parametrize(("kernel", "shared", "left"), [("6.12", 5, 0), ("6.12.117", 10, 5)])
def test_a_fork_adds_its_placed_zero_pages_only_with_the_fix(
    kernel: str, shared: int, left: int
) -> None:
    memory, scanner, mm = zero_merged(kernel)
    child = memory.fork(mm, 11)
    assert (child.ksm_zero_pages, scanner.counters["ksm_zero_pages"]) == (5, shared)
    memory.exit(child)
    assert scanner.counters["ksm_zero_pages"] == left
    memory.write(mm, 0, b"a")
    assert scanner.counters["ksm_zero_pages"] == left - 1


def test_placed_zero_pages_move_with_their_region_as_pages_of_their_own() -> None:
    memory, scanner, mm = zero_merged()
    memory.remap(mm, 0, 5 * PAGE, HIGH)
    assert scanner.counters["ksm_zero_pages"] == 0
    assert not mm.ksm_zero
    assert all(frame is not memory.zero_frame for frame in mm.pages.values())


# Huge pages.


def huge(kernel: str, content: bytes) -> tuple[Memory, KsmScanner, Mm]:
    memory, scanner = machine(kernel)
    mm = memory.spawn(7)
    memory.map(mm, 0, HUGE_PAGES)
    memory.madvise_mergeable(mm, 0, HUGE_PAGES * PAGE)
    memory.map_huge(mm, 0, content)
    return memory, scanner, mm


def test_a_huge_page_lies_where_the_processor_wants_it_in_untouched_memory() -> None:
    memory, _, mm = huge("6.18.44", b"a")
    with pytest.raises(MemoryFault, match="can't begin"):
        memory.map_huge(mm, PAGE, b"a")
    with pytest.raises(MemoryFault, match="untouched"):
        memory.map_huge(mm, 0, b"a")
    with pytest.raises(MemoryFault, match="untouched"):
        memory.map_huge(mm, HUGE_PAGES * PAGE, b"a")


@pytest.mark.parametrize(("kernel", "left"), [("6.11", HUGE_PAGES), ("6.12", 0)])
def test_since_6_12_a_split_maps_zero_filled_pages_to_the_zero_page(kernel: str, left: int) -> None:
    memory, scanner, mm = huge(kernel, ZERO)
    frames = list(mm.pages.values())
    [whole] = {frame.huge for frame in frames}
    assert whole is not None
    memory.split(whole)
    assert {frame.huge for frame in frames} == {None}
    assert sum(page is not memory.zero_frame for page in mm.pages.values()) == left
    assert scanner.counters["ksm_zero_pages"] == 0


def test_a_split_keeps_what_is_not_zero() -> None:
    memory, _, mm = huge("6.18.44", ZERO)
    memory.write(mm, 3 * PAGE, b"a")
    frame = mm.pages[0]
    assert frame.huge is not None
    memory.split(frame.huge)
    assert [a for a, page in mm.pages.items() if page is not memory.zero_frame] == [3 * PAGE]
    assert memory.read(mm, 3 * PAGE) == b"a"


def test_a_pinned_part_keeps_a_huge_page_whole() -> None:
    memory, scanner, mm = huge("6.18.44", b"a")
    pin = memory.pin(mm, 511 * PAGE)
    scanner.scan(2)
    assert scanner.counters["pages_shared"] == 0
    assert all(frame.huge for frame in mm.pages.values())
    memory.unpin(pin)
    scanner.scan(1)
    assert not any(frame.huge for frame in mm.pages.values())
    assert scanner.counters["pages_sharing"] > 500


# Looking addresses up.


@given(st.sets(st.integers(0, 61)), st.integers(0, 67), st.integers(0, 67))
def test_addresses_are_found_whichever_way_is_quicker(pages: set[int], low: int, high: int) -> None:
    memory = Memory()
    mm = memory.spawn(7)
    memory.map(mm, 0, 67)
    order = sorted(pages)
    random.Random(0).shuffle(order)
    for page in order:
        memory.write(mm, page * PAGE, b"a")
    above = [page * PAGE for page in sorted(pages) if page >= low]
    assert mm.page_from(low * PAGE) == (above[0] if above else None)
    inside = [page * PAGE for page in sorted(pages) if low <= page < high]
    assert mm.mapped_in(low * PAGE, high * PAGE) == inside
