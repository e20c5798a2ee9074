from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.kernel.releases import profile
from ksmtrace.model.clock import Clock
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.memory import Memory
from ksmtrace.model.smart_scan import skips, skips_after
from ksmtrace.model.state import State
from ksmtrace.model.stream import ModelStream
from ksmtrace.model.structures import RmapItem

PAGE = 4096
# T14 of the specification, scans 1 to 20.
SKIPPED = [0, 0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 12, 13]
SCANNED = [1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7]
UNSHARED = [0, 1, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
LOOKED_AT = [1, 2, 3, 4, 6, 9, 14, 23, 32, 41]


def state_of(kernel: str = "6.18", *, smart_scan: int = 1) -> State:
    clock = Clock()
    state = State(Memory(), profile(kernel).behaviour, clock, ModelStream(clock))
    state.settings.smart_scan = smart_scan
    return state


def an_item() -> RmapItem:
    return RmapItem(1, Memory().spawn(1), 0)


def scanner_of_one_page(**knobs: object) -> KsmScanner:
    memory = Memory()
    scanner = KsmScanner(memory, kernel="6.18", knobs=knobs, check_invariants=True)
    mm = memory.spawn(7)
    memory.map(mm, 0, 1)
    memory.madvise_mergeable(mm, 0, PAGE)
    memory.write(mm, 0, b"a")
    return scanner


def test_a_lone_page_is_scanned_skipped_and_counted_as_in_the_specification_s_table() -> None:
    scanner = scanner_of_one_page()
    rows = []
    for _ in range(20):
        scanner.scan()
        now = scanner.counters
        assert now["pages_unshared"] + now["pages_volatile"] == 1
        rows.append((now["pages_skipped"], now["pages_scanned"], now["pages_unshared"]))
    assert rows == list(zip(SKIPPED, SCANNED, UNSHARED, strict=True))


def test_a_never_merging_page_is_looked_at_ever_more_rarely() -> None:
    state, item = state_of(), an_item()
    looked_at = [scan for scan in range(1, 42) if not skips(state, item)]
    assert looked_at == LOOKED_AT


def test_the_period_stays_nine_however_old_the_page() -> None:
    state, item = state_of(), an_item()
    looked_at = [scan for scan in range(1, 1009) if not skips(state, item)]
    assert looked_at[6:] == list(range(14, 1009, 9))
    assert item.age == 255


@pytest.mark.parametrize(
    ("ages", "skipped"), [(range(4), 1), (range(4, 6), 2), (range(6, 9), 4), (range(9, 256), 8)]
)
def test_how_often_a_page_is_skipped_depends_on_its_age(ages: range, skipped: int) -> None:
    assert {skips_after(age) for age in ages} == {skipped}


@given(st.integers(1, 53))
def test_every_visit_is_either_a_skip_or_none(visits: int) -> None:
    state, item = state_of(), an_item()
    skipped = sum(skips(state, item) for _ in range(visits))
    assert state.pages_skipped == skipped
    assert item.age == visits


def test_a_page_doesn_t_age_while_smart_scan_is_off() -> None:
    state, item = state_of(smart_scan=0), an_item()
    assert not any(skips(state, item) for _ in range(11))
    assert item.age == 0
    state.settings.smart_scan = 1
    assert [skips(state, item) for _ in range(5)] == [False, False, False, False, True]


def test_the_age_goes_on_where_it_stood() -> None:
    state, item = state_of(), an_item()
    for _ in range(4):
        skips(state, item)
    state.settings.smart_scan = 0
    for _ in range(7):
        skips(state, item)
    state.settings.smart_scan = 1
    assert skips(state, item)


def test_kernels_before_6_7_skip_nothing() -> None:
    state, item = state_of("6.6"), an_item()
    assert not any(skips(state, item) for _ in range(11))


def test_switching_it_off_brings_every_page_back() -> None:
    scanner = scanner_of_one_page()
    scanner.scan(17)
    scanner.set_knob("smart_scan", 0)
    before = scanner.counters["pages_scanned"]
    scanner.scan(5)
    assert scanner.counters["pages_scanned"] == before + 5


def test_a_merged_page_doesn_t_age() -> None:
    memory = Memory()
    scanner = KsmScanner(memory, kernel="6.18", check_invariants=True)
    mm = memory.spawn(7)
    memory.map(mm, 0, 3)
    memory.madvise_mergeable(mm, 0, 3 * PAGE)
    for page in range(3):
        memory.write(mm, page * PAGE, b"a")
    scanner.scan(29)
    assert scanner.counters["pages_skipped"] == 0
    memory.write(mm, PAGE, b"b")
    # Its age is 2 from before the merge: two visits more, then the first skip.
    scanner.scan(2)
    assert scanner.counters["pages_skipped"] == 0
    scanner.scan()
    assert scanner.counters["pages_skipped"] == 1


def test_a_skipped_page_leaves_its_ksm_page() -> None:
    memory = Memory()
    scanner = KsmScanner(memory, kernel="6.18", check_invariants=True)
    mm = memory.spawn(7)
    memory.map(mm, 0, 3)
    memory.madvise_mergeable(mm, 0, 3 * PAGE)
    for page, content in enumerate((b"a", b"b", b"c")):
        memory.write(mm, page * PAGE, content)
    scanner.scan(4)
    for page in range(3):
        memory.write(mm, page * PAGE, b"same")
    # Skipped in scan 5, seen in 6, skipped twice, merged in 9.
    scanner.scan(5)
    assert scanner.counters["pages_sharing"] == 2
    memory.write(mm, 0, b"other")
    skipped = scanner.counters["pages_skipped"]
    scanner.scan()
    assert scanner.counters["pages_skipped"] == skipped + 1
    assert scanner.counters["pages_sharing"] == 1
    assert scanner.counters["pages_volatile"] == 1
