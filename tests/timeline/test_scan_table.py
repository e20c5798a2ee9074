from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from support.batches import batch_of, scan_starts, scan_stops
from support.recordings import host_sample
from support.timelines import timeline_in_memory

SCANS = [
    row for n in (0, 1, 2) for row in (scan_starts(n, 10 * n + 13), scan_stops(n, 10 * n + 17))
]
"""Scans 0, 1 and 2 from 13 to 17, 23 to 27, 33 to 37."""


def sample(ts: int, full_scans: int, scanned: int, reason: str = "scan") -> dict[str, Any]:
    return host_sample(
        ts, reason, full_scans=full_scans, pages_scanned=scanned, pages_skipped=2 * scanned
    )


START = sample(11, 0, 0, "start")


def visited(*samples: dict[str, Any], rows: Sequence[Any] = SCANS) -> list[int | None]:
    timeline = timeline_in_memory([batch_of(rows)], tables={"counters": samples})
    scans = timeline.scans
    visits = [
        None if number is pd.NA else int(number) for number in scans["pages_scanned"].tolist()
    ]
    skipped = [None if number is None else 2 * number for number in visits]
    assert [None if n is pd.NA else n for n in scans["pages_skipped"].tolist()] == skipped
    return visits


def test_visits_are_the_change_between_samples_at_either_end_of_a_scan() -> None:
    samples = (START, sample(18, 1, 101), sample(28, 2, 198), sample(38, 3, 301))
    assert visited(*samples) == [101, 97, 103]


def test_of_a_scan_beside_a_missed_sample_visits_are_not_known() -> None:
    assert visited(START, sample(28, 2, 198), sample(38, 3, 301)) == [None, None, 103]
    assert visited(START, sample(18, 1, 101), sample(38, 3, 301)) == [101, None, None]


def test_a_sample_taken_after_the_next_scan_began_belongs_to_neither() -> None:
    samples = (START, sample(24, 1, 113), sample(28, 2, 198), sample(38, 3, 301))
    assert visited(*samples) == [None, None, 103]


@pytest.mark.parametrize("full_scans", [1, 3])
def test_a_sample_that_counts_another_number_of_scans_is_not_of_its_end(full_scans: int) -> None:
    samples = (START, sample(18, 1, 101), sample(28, full_scans, 198), sample(38, 3, 301))
    assert visited(*samples) == [101, None, None]


def test_further_samples_between_two_scans_change_nothing() -> None:
    steps = sample(19, 1, 101, "step"), sample(21, 1, 101, "step")
    later = sample(28, 2, 198), sample(38, 3, 301)
    assert visited(START, sample(18, 1, 101), *steps, *later) == [101, 97, 103]


def test_after_run_2_full_scans_begins_again_and_visits_are_known() -> None:
    rows = [*SCANS[:4], scan_starts(0, 33), scan_stops(0, 37)]
    known = START, sample(18, 1, 101), sample(28, 2, 198)
    again = sample(38, 1, 301)
    assert visited(*known, sample(31, 0, 198, "step"), again, rows=rows) == [101, 97, 103]
    assert visited(*known, again, rows=rows) == [101, 97, None]


def test_of_a_scan_that_was_under_way_at_the_start_visits_are_not_known() -> None:
    first = sample(15, 0, 43, "start")
    later = sample(18, 1, 101), sample(28, 2, 198), sample(38, 3, 301)
    assert visited(first, *later, rows=SCANS[1:]) == [None, 97, 103]
