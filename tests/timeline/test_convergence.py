from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.timeline import convergence
from ksmtrace.timeline.convergence import FRACTIONS, growth

TICK = 1024
"""Moments closer than this are one."""
GROUPS = 3
MOMENT = st.integers(1, 29)
LIFE = st.tuples(st.integers(0, GROUPS - 1), st.none() | MOMENT, st.none() | MOMENT)
Life = tuple[int, int | None, int | None]
"""Of which group, begun (None: before all), ended (None: not)."""


def by_hand(lives: list[Life], group: int, final: int) -> tuple[int, dict[int, int | None]]:
    """The peak, and when each part of `final` stood; 0: before all, None: never."""
    mine = [
        (begun or 0, None if ended is None else max(ended, begun or 0))
        for number, begun, ended in lives
        if number == group
    ]
    peak, reached = 0, dict.fromkeys(FRACTIONS, None if final else 0)
    for moment in range(31):
        # Those that begin at a moment do so before others end.
        arrived = sum(b <= moment and (e is None or e >= moment) for b, e in mine)
        peak = max(peak, arrived)
        for percent in FRACTIONS:
            if final and reached[percent] is None and 100 * arrived >= final * percent:
                reached[percent] = moment
    return peak, reached


@given(st.lists(LIFE, max_size=17), st.integers(1, 1 << 40))
def test_growth_is_what_counting_gives(lives: list[Life], base: int) -> None:
    group = np.array([life[0] for life in lives], np.int64)

    def column(place: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        times = [life[place] for life in lives]
        return np.array([0 if t is None else base + t * TICK for t in times], np.uint64)

    still = [sum(g == n and e is None for g, _b, e in lives) for n in range(GROUPS)]
    found = growth(group, column(1), column(2), GROUPS, np.array(still, np.int64))
    for number in range(GROUPS):
        peak, reached = by_hand(lives, number, still[number])
        assert found.peak[number] == peak
        for percent, moment in reached.items():
            told = int(found.reached[percent][number])
            want = base + (moment or 0) * TICK
            assert told == 0 if not moment else want - TICK < told <= want


@given(st.lists(LIFE, max_size=17), st.integers(1, 5))
def test_growth_in_parts_is_growth(lives: list[Life], at_once: int) -> None:
    group = np.array([life[0] for life in lives], np.int64)
    begun, ended = (np.array([life[n] or 0 for life in lives], np.uint64) for n in (1, 2))
    final = np.bincount(group[ended == 0], minlength=GROUPS)
    whole = growth(group, begun, ended, GROUPS, final)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convergence, "_AT_ONCE", at_once)
        parts = growth(group, begun, ended, GROUPS, final)
    assert parts.peak.tolist() == whole.peak.tolist()
    for percent in FRACTIONS:
        assert parts.reached[percent].tolist() == whole.reached[percent].tolist()
