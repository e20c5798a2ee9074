from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batches import (
    batch_of,
    event,
    joins_ksm_page,
    makes_ksm_page,
    scan_starts,
    scan_stops,
)

from ksmtrace.events.batch import empty
from ksmtrace.events.registry import COW_BREAK, KSM_MERGE_ONE_PAGE, LOST
from ksmtrace.exporter.breaks import BreaksByProcess
from ksmtrace.exporter.events import EventSums
from ksmtrace.exporter.metrics import SCAN_SECONDS
from ksmtrace.processes.identity import Identity

EFAULT = -14
ROWS = [
    scan_starts(0, 1_000_000_000),
    makes_ksm_page(7),
    joins_ksm_page(7),
    joins_ksm_page(7),
    makes_ksm_page(11),
    joins_ksm_page(11, err=EFAULT),
    joins_ksm_page(7, err=EFAULT),
    event(KSM_MERGE_ONE_PAGE, pfn=1),
    event(KSM_MERGE_ONE_PAGE, pfn=1, err=EFAULT),
    event(LOST, addr=13),
    scan_stops(0, 4_000_000_000),
    event(COW_BREAK, tgid=101),
    makes_ksm_page(13),
]


def who(tgid: int, start: int = 1) -> Identity:
    return Identity(tgid, 1, start, f"p{tgid}", None, None, None)


def test_merges_that_stood_failures_and_losses_are_told_apart() -> None:
    sums = EventSums()
    sums.take(batch_of(ROWS))
    sums.take(empty())
    totals = sums.totals()
    assert (totals.merges, totals.zero_merges, totals.failed_merges) == (4, 1, 3)
    assert totals.lost == 13
    assert totals.by_kind()["ksm_merge_with_ksm_page"] == 7
    assert "lost" not in totals.by_kind()


def plain(sums: EventSums) -> dict[str, object]:
    totals = vars(sums.totals())
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in totals.items()}


@given(st.lists(st.integers(0, len(ROWS)), max_size=7))
def test_any_split_into_batches_gives_the_same_sums(cuts: list[int]) -> None:
    whole, parts = EventSums(), EventSums()
    batch = batch_of(ROWS)
    whole.take(batch)
    borders = [0, *sorted(cuts), len(ROWS)]
    for begin, end in pairwise(borders):
        if begin < end:
            parts.take(batch[begin:end])
    for sums in (whole, parts):
        sums.take(empty())
    assert plain(whole) == plain(parts)


def test_a_scan_of_three_seconds_is_in_the_bucket_up_to_five() -> None:
    sums = EventSums()
    sums.take(batch_of(ROWS))
    totals = sums.totals()
    assert totals.scans.tolist() == [int(bound == 5) for bound in SCAN_SECONDS] + [0]
    assert totals.scan_seconds == pytest.approx(3)


@pytest.mark.parametrize(
    ("rows", "timed"),
    [
        ([scan_stops(3, 10)], 0),
        ([scan_starts(2, 1), scan_stops(3, 10)], 0),
        ([scan_starts(2, 1), scan_stops(2, 10), scan_stops(2, 20)], 1),
    ],
    ids=["its start was before our time", "its start was lost", "a stop too many"],
)
def test_a_scan_not_seen_from_start_to_end_has_no_duration(
    rows: list[dict[str, int]], timed: int
) -> None:
    sums = EventSums()
    sums.take(batch_of(rows))
    assert int(sums.totals().scans.sum()) == timed


def test_a_scan_beyond_the_last_bound_counts_beyond() -> None:
    sums = EventSums()
    sums.take(batch_of([scan_starts(0, 0), scan_stops(0, 6000 * 10**9)]))
    assert sums.totals().scans[-1] == 1


def test_breaks_keep_their_place_and_the_others_only_grow() -> None:
    alive = {101: who(101), 103: who(103), 107: who(107)}
    breaks = BreaksByProcess(2, alive.get)
    sums = EventSums(breaks)
    for tgid, times in ((101, 3), (103, 5), (107, 7), (101, 2), (0, 1)):
        sums.take(batch_of([event(COW_BREAK, tgid=tgid)] * times))
    assert sums.breaks() == ([("101", "p101", 5), ("103", "p103", 5)], 8)
    del alive[101]
    assert sums.breaks() == ([("103", "p103", 5)], 8)
    sums.take(batch_of([event(COW_BREAK, tgid=107)]))
    assert sums.breaks() == ([("103", "p103", 5), ("107", "p107", 1)], 8)
    alive[103] = who(103, start=2)
    assert sums.breaks() == ([("107", "p107", 1)], 8)


def test_without_cow_nothing_is_said_of_breaks() -> None:
    sums = EventSums()
    sums.take(batch_of(ROWS))
    assert sums.breaks() is None
