"""How long scans take at a pace: arithmetic against hand-made scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.kernel.advisor import AdvisorKnobs, AdvisorState, decide
from ksmtrace.model.work import WARM_LEVELS
from ksmtrace.whatif.pacing import Pace, predict, scan_times
from ksmtrace.whatif.passes import Pass, Walks

TICK = 4_000_000


def scan_of(pages: int, saved: int, ns: float = 1000.0) -> Pass:
    """A scan with an even amount of work and saving; samples at its half and its end."""
    visits = np.array([pages // 2, pages])
    return Pass(visits, visits * ns, np.array([saved // 2, saved]), {})


def test_a_batch_takes_a_tick_more_than_the_sleep() -> None:
    """Measured on Linux 6.18 at 250 ticks a second: 24 ms for sleep_millisecs=20."""
    took, worked = scan_times(scan_of(100_000, 0), 100, 20, 0.0, TICK)
    assert took[-1] == pytest.approx(1001 * 24e6)
    assert worked[-1] == pytest.approx(100e6)


@pytest.mark.parametrize(("sleep_ms", "cycle_ms"), [(1, 8), (5, 12), (10, 16), (20, 24), (50, 56)])
def test_cycles_are_those_that_were_measured(sleep_ms: int, cycle_ms: int) -> None:
    took, _ = scan_times(scan_of(30_000, 0, ns=1.0), 1, sleep_ms, 0.0, TICK)
    assert took[-1] / 30_001 == pytest.approx(cycle_ms * 1e6)


def test_work_beyond_a_tick_takes_time_by_whole_ticks() -> None:
    took, _ = scan_times(scan_of(100_000, 0), 10_000, 20, 0.0, TICK)
    assert took[-1] == pytest.approx(11 * (24 + 8) * 1e6, rel=0.06)


def searched(pages: int, depth: int) -> Pass:
    """Each page is searched for in a tree so deep."""
    one = scan_of(pages, 0)
    searches = one.visits.astype(np.float64)
    return replace(one, trees=(Walks(searches, searches * depth),))


def test_a_batch_of_one_brings_a_node_of_each_level_after_sleeping() -> None:
    _, slept = scan_times(searched(1009, 7), 1, 20, 0.0, TICK, 300.0)
    # The last batch finds nothing more to do but is as long.
    assert slept[-1] == pytest.approx(1009 * 1000 + 1010 * 7 * 300)


def test_a_large_batch_brings_the_whole_top_of_a_tree_and_no_more() -> None:
    _, slept = scan_times(searched(1_000_003, 30), 10_000_000, 20, 0.0, TICK, 300.0)
    assert slept[-1] == pytest.approx(1_000_003 * 1000 + (2**WARM_LEVELS - 1) * 300)


def test_without_sleep_the_tops_of_trees_stay_cached() -> None:
    one = searched(1009, 7)
    assert scan_times(one, 10, 0, 5.0, TICK, 300.0)[1] == pytest.approx(
        scan_times(one, 10, 0, 5.0, TICK, 0.0)[1]
    )


@given(st.integers(2, 50_000), st.integers(1, 60_000), st.integers(1, 33))
def test_small_batches_are_dearer_and_no_search_brings_more_than_its_levels(
    pages: int, pages_to_scan: int, depth: int
) -> None:
    one = searched(pages, depth)
    small, large = (
        scan_times(one, number, 20, 0.0, TICK, 300.0)[1][-1]
        for number in (pages_to_scan, pages_to_scan * 2)
    )
    batches = pages // pages_to_scan + 1
    most = min(depth, WARM_LEVELS) * 300 * min(pages_to_scan, pages) * batches
    assert pages * 1000 <= small <= pages * 1000 + most + 1
    assert large <= small * 1.0001 + most / batches


def test_without_sleep_time_is_work() -> None:
    took, worked = scan_times(scan_of(5000, 0), 100, 0, 10_000.0, TICK)
    assert took == pytest.approx(worked)
    assert worked[-1] == pytest.approx(5000 * 1000 + 51 * 10_000)


@given(st.integers(2, 100_000), st.integers(1, 200_000), st.integers(0, 300), st.floats(0, 50_000))
def test_time_is_never_less_than_work_and_never_runs_back(
    pages: int, pages_to_scan: int, sleep_ms: int, wakeup_ns: float
) -> None:
    took, worked = scan_times(scan_of(pages, 0), pages_to_scan, sleep_ms, wakeup_ns, TICK)
    assert np.all(took >= worked - 1e-3)
    assert np.all(np.diff(took) >= 0)
    assert worked[-1] == pytest.approx(pages * 1000 + (pages // pages_to_scan + 1) * wakeup_ns)


@given(st.integers(100, 50_000), st.integers(1, 4000), st.integers(2, 9))
def test_more_pages_a_batch_are_sooner(pages: int, pages_to_scan: int, times: int) -> None:
    passes = [scan_of(pages, 0), scan_of(pages, 90)]
    slow, fast = (
        predict(passes, Pace(number, 20), wakeup_ns=20_000, tick_ns=TICK).at(0.9)
        for number in (pages_to_scan, pages_to_scan * times)
    )
    assert slow is not None
    assert fast is not None
    assert fast[0] <= slow[0] * 1.05 + 0.03


def test_a_share_is_reached_between_two_samples() -> None:
    told = predict([scan_of(1000, 0), scan_of(1000, 100)], Pace(10, 20), wakeup_ns=0, tick_ns=TICK)
    assert told.pages_saved == 100
    first_scan = 101 * 0.024
    at = told.at(0.25)
    assert at is not None
    assert at[0] == pytest.approx(first_scan + 25 * 0.024, abs=0.03)
    assert told.at(1.0) == (pytest.approx(2 * first_scan), pytest.approx(0.002))


def test_nothing_saved_is_reached_at_no_time() -> None:
    told = predict([scan_of(1000, 0)] * 3, Pace(), wakeup_ns=0, tick_ns=TICK)
    assert told.at(0.9) is None
    assert told.cpu_percent_until_saved is None


def test_the_advisor_decides_after_each_scan_as_the_kernel_does() -> None:
    passes = [scan_of(100_000, 0), scan_of(100_000, 50), scan_of(100_000, 50)]
    pace = Pace(advisor_mode="scan-time", advisor_target_scan_time=2)
    told = predict(passes, pace, wakeup_ns=0, tick_ns=TICK)
    pages, state, cpu = 500, AdvisorState(), 0
    for each in passes:
        took, worked = scan_times(each, pages, 20, 0.0, TICK)
        cpu += int(worked[-1])
        decision = decide(
            state, AdvisorKnobs(70, 30000, 2), pages_to_scan=pages, scan_ns=int(took[-1]),
            ksmd_cpu_ns=cpu,
        )  # fmt: skip
        state, pages = decision.state, decision.pages_to_scan
    assert told.pages_to_scan == pages
    assert pages > 500


def test_an_advisor_switched_on_late_first_sees_all_that_ksmd_ever_took() -> None:
    """Seen on Linux 6.18: from 500 to 40 pages, after 25 minutes of CPU since boot."""
    passes = [scan_of(45_131, 0), scan_of(45_131, 997)]
    pace = Pace(advisor_mode="scan-time", advisor_target_scan_time=4, advisor_max_cpu=40)
    fresh, late = (
        predict(passes, pace, wakeup_ns=0, tick_ns=TICK, ksmd_cpu_ns=cpu)
        for cpu in (0, 1_500_000_000_000)
    )
    first = 91 * 0.024
    assert fresh.seconds[-1] < 3 * first
    assert late.seconds[-1] == pytest.approx(first + (45_131 // 40 + 1) * 0.024, rel=0.02)
