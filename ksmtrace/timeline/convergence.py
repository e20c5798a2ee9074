"""How sharing grew in each process or region: the peak, and when most of it stood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

FRACTIONS = (50, 90, 99)
"""Percent of the final sharing."""
_TIME_BITS = 42
_TICK_BITS = np.uint64(10)
"""Moments are told apart by 1,024 ns, over 52 days."""


@dataclass(frozen=True)
class Growth:
    """Of each group: the most lives at once, and at which moment (ns) each of FRACTIONS stood.

    Moments are 0 where nothing is shared in the end.
    """

    peak: Numbers
    reached: dict[int, U64]


def growth(group: Numbers, begun: U64, ended: U64, groups: int, final: Numbers) -> Growth:
    """How the number of lives grew in each group.

    group: of each life, below `groups`. begun, ended: ns, 0 for before all and for not ended.
    final: of each group, the sharing at its end. Definition: docs/analysis.md#convergence.
    """
    # What was merged before all can have ended before anything began.
    moments = np.concatenate((begun[begun > 0], ended[ended > 0]))
    # So that no moment is tick 0, which stands for before all.
    first = int(moments.min()) if len(moments) else 0
    base = np.uint64(max(0, first - (1 << int(_TICK_BITS))))
    over = np.flatnonzero(ended)
    at_begin = np.where(begun > 0, begun - base, 0)
    # A begin sorts before an end of the same moment.
    steps = np.concatenate(
        (
            _packed(group, at_begin, np.uint64(0)),
            _packed(group[over], np.maximum(ended[over] - base, at_begin[over]), np.uint64(1)),
        )
    )
    steps.sort()
    change = 1 - 2 * (steps & np.uint64(1)).astype(np.int64)
    count = np.cumsum(change)
    ids = np.arange(groups + 1, dtype=np.uint64) << np.uint64(_TIME_BITS + 1)
    starts = np.searchsorted(steps, ids)
    lengths = np.diff(starts)
    before = np.concatenate(([0], count))[starts[:-1]]
    # One running maximum for all groups, each lifted above the ones before.
    lift = np.arange(groups, dtype=np.int64) * (len(steps) + 1)
    highest = np.maximum.accumulate(count + np.repeat(lift - before, lengths))
    last = np.minimum(starts[1:], max(1, len(steps))) - 1
    peak = np.zeros(groups, np.int64)
    some = np.flatnonzero(lengths)
    peak[some] = highest[last[some]] - lift[some]
    reached = {}
    for percent in FRACTIONS:
        target = -(-final * percent // 100)
        at = np.searchsorted(highest, target + lift)
        moment = np.zeros(groups, np.uint64)
        there = np.flatnonzero((final > 0) & (at < starts[1:]))
        ticks = (steps[at[there]] >> np.uint64(1)) & np.uint64((1 << _TIME_BITS) - 1)
        moment[there] = np.where(ticks > 0, (ticks << _TICK_BITS) + base, 0)
        reached[percent] = moment
    return Growth(peak, reached)


def _packed(group: Numbers, moment: U64, ends: np.uint64) -> U64:
    packed: U64 = group.astype(np.uint64) << np.uint64(_TIME_BITS)
    packed |= moment >> _TICK_BITS
    packed <<= np.uint64(1)
    packed |= ends
    return packed
