from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.inspect.estimate.cost import Pace, Pages, cost, pace_of, visit_ns
from ksmtrace.kernel.costs import DEFAULT
from ksmtrace.model import KsmScanner, Memory
from ksmtrace.model.content import PAGE_SIZE


def test_two_scans_with_their_sleeps_until_all_is_merged() -> None:
    found = cost(Pages(candidates=1009, merging=0), Pace(pages_to_scan=100, sleep_millisecs=20))
    wakeups = 11 * DEFAULT.wakeup_ns / 1e9
    ns = found.visit_ns
    cpu = 1009 * (ns["first"] + ns["search"]) / 1e9 + 2 * wakeups
    assert found.cpu_seconds == pytest.approx(cpu)
    assert found.seconds == pytest.approx(2 * 11 * 0.02 + cpu)
    assert found.scan_seconds == pytest.approx(11 * 0.02 + wakeups + 1009 * ns["search"] / 1e9)


@pytest.mark.parametrize(
    ("contents", "ksm_pages"),
    [
        ([b"%d" % (n * 7919 % 10_007) for n in range(3_001)], 0),
        ([b"%d" % (n * 7919 % 1_009) for n in range(3 * 1_009)], 1_009),
        ([b"%d" % (n * 7919 % 1_511) for n in range(2 * 1_511)], 1_511),
        ([b"%d" % (n * 7919 % 13) for n in range(2_999)], 13),
    ],
)
def test_the_arithmetic_says_what_the_scanner_does(contents: list[bytes], ksm_pages: int) -> None:
    memory = Memory()
    knobs = {"smart_scan": 0, "max_page_sharing": 1000, "pages_to_scan": 100_000}
    scanner = KsmScanner(memory, knobs=knobs, count_work=True)
    mm = memory.spawn(1)
    memory.map(mm, PAGE_SIZE, len(contents))
    memory.madvise_mergeable(mm, PAGE_SIZE, (len(contents) + 1) * PAGE_SIZE)
    for number, content in enumerate(contents, 1):
        memory.write(mm, number * PAGE_SIZE, content)
    merging = len(contents) if ksm_pages else 0
    told = cost(Pages(len(contents), merging, ksm_pages=ksm_pages), Pace(100_000, 0))
    scanner.scan(2)
    assert scanner.counters["pages_shared"] == ksm_pages
    done = scanner.work.ns(DEFAULT)
    assert told.cpu_seconds * 1e9 == pytest.approx(done, rel=0.12)
    scanner.scan()
    assert told.scan_seconds is not None
    assert told.scan_seconds * 1e9 == pytest.approx(scanner.work.ns(DEFAULT) - done, rel=0.1)


def test_zero_pages_that_smart_scan_or_the_zero_page_spares_still_cost_a_little() -> None:
    pages = Pages(candidates=1009, merging=1009, leaving=1009)
    ns = visit_ns(pages)
    assert ns["merge"] < visit_ns(Pages(1009, 1009, ksm_pages=500))["merge"]
    assert 0 < ns["passed"] < ns["left_out"] < ns["merged"] < ns["first"] < ns["merge"]


def test_with_pages_to_scan_0_it_never_ends() -> None:
    found = cost(Pages(1009, 11), Pace(0, 20))
    assert (found.seconds, found.scan_seconds, found.cpu_percent) == (None, None, None)


def test_no_memory_takes_no_time() -> None:
    assert cost(Pages(0, 0), Pace(100, 20)).seconds == 0.0


def test_pages_that_become_the_zero_page_are_not_looked_at_again() -> None:
    found = cost(Pages(candidates=1009, merging=1009, leaving=1009), Pace(100, 20))
    assert found.scan_seconds == pytest.approx(1009 * DEFAULT.absent_ns / 1e9)


def test_smart_scan_spares_searches_only() -> None:
    pace, smart = Pace(100, 0), Pace(100, 0, smart_scan=True)
    assert cost(Pages(1009, 0), smart).seconds == cost(Pages(1009, 0), pace).seconds
    lazy, eager = cost(Pages(1009, 0), smart).scan_seconds, cost(Pages(1009, 0), pace).scan_seconds
    assert lazy is not None
    assert eager is not None
    assert lazy < eager / 5
    assert cost(Pages(1009, 1009), smart).scan_seconds == cost(Pages(1009, 1009), pace).scan_seconds


@given(
    st.integers(1, 10**9), st.floats(0, 1), st.floats(0, 1), st.integers(1, 10**9),
    st.integers(0, 10**6), st.booleans(),
)  # fmt: skip
def test_ksmd_never_takes_more_than_one_core(
    candidates: int, share: float, leaving: float, batch: int, sleep: int, smart: bool
) -> None:
    merging = candidates * share
    found = cost(Pages(candidates, merging, merging * leaving), Pace(batch, sleep, smart))
    assert found.seconds is not None
    assert found.seconds >= found.cpu_seconds > 0
    assert found.cpu_percent is None or 0 <= found.cpu_percent <= 100.0001


def test_the_pace_is_read_from_knobs_and_older_kernels_have_no_smart_scan() -> None:
    assert pace_of({"pages_to_scan": "1000", "sleep_millisecs": "7"}) == Pace(1000, 7)
    assert pace_of({"smart_scan": "1"}) == Pace(100, 20, smart_scan=True)
