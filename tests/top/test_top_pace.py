from __future__ import annotations

import pytest

from ksmtrace.top.pace import ScanWatch

S = 1_000_000_000


def counters(scans: int, scanned: int, skipped: int = 0) -> dict[str, float]:
    return {"full_scans": scans, "pages_scanned": scanned, "pages_skipped": skipped}


def test_a_scan_is_measured_by_the_pages_of_the_one_before() -> None:
    watch = ScanWatch()
    watch.sample(0, counters(3, 0))
    watch.told((1 * S, 4, 0), 11.0)
    watch.sample(2 * S, counters(4, 200))
    watch.sample(4 * S, counters(4, 380, 20))
    watch.told((5 * S, 5, 0), 4.0)
    watch.sample(6 * S, counters(5, 580, 20))
    scan = watch.scan(6 * S, pace=100, items=9_999, run="1")
    # From 1 s (0 visits known before: between two samples) to 5 s it visited 400.
    assert scan.expected_pages == 400
    assert (scan.seq, scan.visited_pages, scan.fraction) == (5, 100, 0.25)
    assert scan.ends_in_s == pytest.approx(3)
    assert scan.elapsed_s == pytest.approx(1)


def test_a_first_scan_is_measured_by_what_is_on_ksmds_list() -> None:
    watch = ScanWatch()
    watch.sample(0, counters(0, 0))
    watch.told((0, 0, 0), None)
    watch.sample(2 * S, counters(0, 250))
    scan = watch.scan(2 * S, pace=125, items=1_000, run="1")
    assert (scan.fraction, scan.ends_in_s) == (0.25, 6)
    assert scan.basis == "of all pages"


def test_without_events_a_scan_begins_between_the_samples_that_tell_of_it() -> None:
    watch = ScanWatch()
    watch.sample(0, counters(3, 0))
    watch.sample(2 * S, counters(4, 100))
    watch.sample(6 * S, counters(5, 500))
    watch.sample(7 * S, counters(5, 600))
    scan = watch.scan(7 * S, pace=100, items=None, run="1")
    # From 1 s (50 visits) to 4 s (300 visits).
    assert scan.last_s == pytest.approx(3)
    assert scan.expected_pages == 250
    assert scan.visited_pages == 300
    assert (scan.fraction, scan.ends_in_s) == (1, None)


def test_where_visits_are_not_counted_time_is_compared() -> None:
    watch = ScanWatch()
    for second, scans in ((0, 3), (2, 4), (6, 5), (7, 5)):
        watch.sample(second * S, {"full_scans": scans})
    scan = watch.scan(7 * S, pace=None, items=None, run="1")
    assert scan.fraction == pytest.approx(1)
    watch.sample(5 * S + S // 2, {"full_scans": 5})
    scan = watch.scan(5 * S + S // 2, pace=None, items=None, run="1")
    assert scan.fraction == pytest.approx(0.5)
    assert scan.ends_in_s == pytest.approx(1.5)
    assert scan.basis == "of the time of the scan before"


@pytest.mark.parametrize(
    ("samples", "run", "basis"),
    [
        ([(0, 3)], "1", "it began before top did"),
        ([(0, 3), (1, 3)], "0", "ksmd is stopped"),
        ([(0, 3), (1, 16)], "1", "13 scans since the last look"),
    ],
)
def test_what_cannot_be_told_says_why(samples: list[tuple[int, int]], run: str, basis: str) -> None:
    watch = ScanWatch()
    for second, scans in samples:
        watch.sample(second * S, counters(scans, second * 100))
    scan = watch.scan(samples[-1][0] * S, pace=100, items=101, run=run)
    assert (scan.fraction, scan.ends_in_s, scan.basis) == (None, None, basis)


def test_after_run_2_scans_count_from_0_again() -> None:
    watch = ScanWatch()
    watch.sample(0, counters(31, 0))
    watch.sample(1 * S, counters(0, 100))
    watch.sample(2 * S, counters(0, 200))
    scan = watch.scan(2 * S, pace=100, items=1_000, run="1")
    assert (scan.seq, scan.expected_pages, scan.visited_pages) == (0, 1_000, 150)
