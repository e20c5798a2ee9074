from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.events.batch import empty
from ksmtrace.events.registry import KSM_ENTER, VIA_FORK
from ksmtrace.top.attached import first_sight_known
from ksmtrace.top.state import MERGES
from ksmtrace.top.sums import TopSums
from tests.support.batches import Row, batch_of, event, joins_ksm_page, loses, makes_ksm_page, split

A, B, C = ({"mm": n << 12, "tgid": n} for n in (11, 13, 17))


def told(
    rows: list[Row], borders: list[int] | None = None, *, known: bool = True
) -> dict[str, int]:
    """What a live capture makes of these events, one a nanosecond."""
    sums = TopSums()
    sums.attachments.first_sight_known = known
    for part in split(batch_of([{**row, "ts": n} for n, row in enumerate(rows, 1)]), borders or []):
        if len(part):
            sums.take(part)
    sums.take(empty())
    totals = sums.totals()
    return {what: totals.of(what) for what in MERGES if totals.of(what)}


def pair(mapcount: int, pfn: int = 7) -> list[Row]:
    """B's page becomes a KSM page, A's is mapped onto it."""
    return [makes_ksm_page(pfn, **B), joins_ksm_page(pfn, mapcount=mapcount, **A)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([*pair(2), joins_ksm_page(7, **C)], {"merged": 3}),
        ([*pair(2), joins_ksm_page(7, first_sight=True, **C)], {"merged": 2, "inherited": 1}),
        # The frame was shared when it became a KSM page: by C, perhaps.
        ([*pair(3), joins_ksm_page(7, **C)], {"merged": 2, "attached": 1}),
        ([*pair(3), joins_ksm_page(7, **B)], {"merged": 3}),
        ([*pair(3), event(KSM_ENTER, arg=VIA_FORK, **C), joins_ksm_page(7, **C)], {"merged": 3}),
        ([event(KSM_ENTER, **C), *pair(3), joins_ksm_page(7, **C)], {"merged": 2, "attached": 1}),
        # Another KSM page may stand on the frame by now.
        ([*pair(2), loses(5), joins_ksm_page(7, **C)], {"merged": 2, "attached": 1}),
        ([*pair(2), *pair(3), joins_ksm_page(7, **C)], {"merged": 4, "attached": 1}),
        ([*pair(3), *pair(2), joins_ksm_page(7, **C)], {"merged": 5}),
        ([joins_ksm_page(7, **C)], {"attached": 1}),
    ],
)
def test_a_merge_a_page_taken_over_by_fork_and_one_that_is_either(
    rows: list[Row], expected: dict[str, int]
) -> None:
    assert told(rows) == expected
    assert told(rows, list(range(len(rows)))) == expected


def test_where_first_sight_is_not_known_only_a_new_ksm_page_is_surely_merged() -> None:
    rows = [*pair(2), joins_ksm_page(7, **C), joins_ksm_page(7, first_sight=True, **C)]
    assert told(rows, known=False) == {"merged": 2, "attached": 2}


@pytest.mark.parametrize(
    ("unknown", "kernel", "known"),
    [([], "6.18.44", True), ([], "6.10.3", False), (["first_sight"], "6.18.44", False)],
)
def test_first_sight_tells_since_6_11_if_the_source_does(
    unknown: list[str], kernel: str, known: bool
) -> None:
    assert first_sight_known(unknown, kernel) is known


@given(st.data())
def test_in_whatever_batches_it_comes_the_same_is_told(data: st.DataObject) -> None:
    rows: list[Row] = []
    for _ in range(data.draw(st.integers(1, 13))):
        pfn = data.draw(st.integers(1, 5))
        who: dict[str, Any] = data.draw(st.sampled_from([A, B, C]))
        rows += data.draw(st.sampled_from([
            pair(2, pfn), pair(3, pfn), [joins_ksm_page(pfn, **who)], [loses(1)],
            [joins_ksm_page(pfn, first_sight=True, **who)], [event(KSM_ENTER, **who)],
        ]))  # fmt: skip
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=5))
    assert told(rows, cuts) == told(rows)


def test_beyond_what_it_remembers_it_does_not_guess() -> None:
    frames = range(1, 200_003)
    rows = batch_of([*(r for f in frames for r in pair(2, f)),
                     *(joins_ksm_page(f, **C) for f in frames)])  # fmt: skip
    rows["ts"] = np.arange(1, len(rows) + 1)
    sums = TopSums()
    sums.attachments.first_sight_known = True
    for part in np.array_split(rows, 53):
        sums.take(part)
    sums.take(empty())
    totals = sums.totals()
    new = totals.of("merged") - 2 * len(frames)
    assert totals.of("attached") + new == len(frames)
    assert 50_000 < new <= 1 << 16
