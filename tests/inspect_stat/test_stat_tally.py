from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.events.batch import EVENT, EventBatch
from ksmtrace.events.registry import (
    INTO_EXISTING,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_STOP_SCAN,
    LOST,
)
from ksmtrace.inspect.stat.tally import EventTally

ME, OTHER = 4001, 4003
NEW, JOIN = 0, INTO_EXISTING


def events(*rows: tuple[int, int, int, int, int]) -> EventBatch:
    """kind, pfn, tgid, err, arg of each."""
    batch = np.zeros(len(rows), EVENT)
    for number, (kind, pfn, tgid, err, arg) in enumerate(rows):
        batch[number]["ts"] = number + 1
        for slot, value in zip(
            ("kind", "pfn", "tgid", "err", "arg"), (kind, pfn, tgid, err, arg), strict=True
        ):
            batch[number][slot] = value
    return batch


def merge(pfn: int, arg: int, tgid: int = ME, err: int = 0) -> tuple[int, int, int, int, int]:
    return (KSM_MERGE_WITH_KSM_PAGE.id, pfn, tgid, err, arg)


ZERO = (KSM_MERGE_ONE_PAGE.id, 1, ME, 0, 0)
FAILED_ZERO = (KSM_MERGE_ONE_PAGE.id, 1, ME, -14, 0)
STOP = (KSM_STOP_SCAN.id, 0, 0, 0, 0)


def told(batch: EventBatch, cuts: list[int] | None = None) -> tuple[int, ...]:
    tally = EventTally(tgids_known=True)
    for part in np.split(batch, sorted(cuts or [])):
        tally.take(part.copy())
    counts = tally.counts({ME})
    return (
        counts.merges, counts.zero_merges, counts.failed_merges, counts.scans, counts.lost,
        counts.own_merges or 0,
    )  # fmt: skip


def test_a_new_ksm_page_is_two_merges_and_each_joining_page_one() -> None:
    batch = events(merge(7, NEW), merge(7, JOIN), merge(7, JOIN, OTHER))
    assert told(batch) == (3, 0, 0, 0, 0, 2)


def test_a_first_half_whose_twin_fails_is_no_merge_and_one_failure() -> None:
    assert told(events(merge(7, NEW), merge(7, JOIN, err=-14))) == (0, 0, 1, 0, 0, 0)


def test_zero_pages_failures_scans_and_losses_are_apart() -> None:
    batch = events(ZERO, ZERO, FAILED_ZERO, STOP, (LOST.id, 0, 0, 0, 0))
    batch["addr"][-1] = 13
    assert told(batch) == (0, 2, 1, 1, 13, 2)


def test_a_source_without_owners_gives_no_merges_of_processes() -> None:
    tally = EventTally(tgids_known=False)
    tally.take(events(merge(7, JOIN)))
    counts = tally.counts({ME})
    assert counts.merges == 1
    assert counts.own_merges is None


STEPS = st.sampled_from(
    [
        [merge(7, NEW), merge(7, JOIN)],
        [merge(11, NEW), merge(11, JOIN, err=-14)],
        [merge(7, JOIN, OTHER)],
        [merge(7, JOIN, err=-14)],
        [ZERO],
        [FAILED_ZERO],
        [STOP],
    ]
)


@given(st.lists(STEPS, min_size=1, max_size=30), st.data())
def test_any_batching_gives_the_same_counts(
    steps: list[list[tuple[int, int, int, int, int]]], data: st.DataObject
) -> None:
    batch = events(*(row for step in steps for row in step))
    cuts = data.draw(st.lists(st.integers(0, len(batch)), max_size=8))
    assert told(batch, cuts) == told(batch)
