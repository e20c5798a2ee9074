"""How sharing grew in each process or region: the peak, and when most of it stood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.sorting import rows_of

U64 = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]

FRACTIONS = (50, 90, 99)
"""Percent of the final sharing."""
_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Growth:
    """Of each group: the most lives at once, and at which moment (ns) each of FRACTIONS stood.

    Moments are 0 where nothing is shared in the end, or where it stood before all.
    """

    peak: Numbers
    reached: dict[int, U64]

    def placed(self, at: Numbers, groups: int) -> Growth:
        """The same of more groups; at: where each of these is among them. The others have none."""
        peak = np.zeros(groups, np.int64)
        peak[at] = self.peak
        reached = {}
        for percent, moments in self.reached.items():
            reached[percent] = np.zeros(groups, np.uint64)
            reached[percent][at] = moments
        return Growth(peak, reached)


def growth(group: Numbers, begun: U64, ended: U64, groups: int, final: Numbers) -> Growth:
    """How the number of lives grew in each group.

    group: of each life, below `groups`. begun, ended: ns, 0 for before all and for not ended.
    final: of each group, the sharing at its end. Definition: docs/analysis.md#convergence.
    """
    parts = -(-len(group) // _AT_ONCE)
    if parts <= 1:
        return _growth(group, begun, ended, groups, final)
    # Sorting takes a few times the memory of what is sorted: some groups at a time.
    return _in_parts(group, begun, ended, groups, final, parts)


def _growth(group: Numbers, begun: U64, ended: U64, groups: int, final: Numbers) -> Growth:
    clock = _Clock(begun, ended, groups)
    begins = clock.packed(group, begun)
    begins.sort()
    over = rows_of(ended != 0)
    late = ended[over]
    if (late < begun[over]).any():
        late = np.maximum(late, begun[over])
    ends = clock.packed(group[over], late)
    ends.sort()
    starts = np.searchsorted(begins, clock.borders)
    lengths = np.diff(starts)
    # The count just after each beginning: begun so far in its group, less what has ended before.
    count = np.arange(1, len(begins) + 1)
    if len(ends):
        at = np.searchsorted(begins, ends, "right")
        gone = np.bincount(at, minlength=len(begins) + 1)[: len(begins)]
        count -= np.cumsum(gone, out=gone)
    ended_before = np.searchsorted(ends, clock.borders[:-1])
    # One running maximum for all groups, each lifted above the ones before.
    lift = np.arange(groups, dtype=np.int64) * (len(begins) + 1)
    count += np.repeat(lift - starts[:-1] + ended_before, lengths)
    highest = np.maximum.accumulate(count, out=count)
    peak = np.zeros(groups, np.int64)
    some = np.flatnonzero(lengths)
    peak[some] = highest[starts[1:][some] - 1] - lift[some]
    reached = {}
    for percent in FRACTIONS:
        target = -(-final * percent // 100)
        at = np.searchsorted(highest, target + lift)
        there = np.flatnonzero((final > 0) & (at < starts[1:]))
        moment = np.zeros(groups, np.uint64)
        moment[there] = clock.moments(begins[at[there]])
        reached[percent] = moment
    return Growth(peak, reached)


def _in_parts(
    group: Numbers, begun: U64, ended: U64, groups: int, final: Numbers, parts: int
) -> Growth:
    """`growth` of every so many-th group at a time."""
    peak = np.zeros(groups, np.int64)
    reached = {percent: np.zeros(groups, np.uint64) for percent in FRACTIONS}
    for part in range(min(parts, groups)):
        here = np.arange(part, groups, parts)
        rows = np.flatnonzero(group % parts == part)
        # A part of one group can't be taken apart: it is sorted whole.
        mine, moments, ends = group[rows] // parts, begun[rows], ended[rows]
        found = _growth(mine, moments, ends, len(here), final[here])
        peak[here] = found.peak
        for percent, moment in found.reached.items():
            reached[percent][here] = moment
    return Growth(peak, reached)


class _Clock:
    """Packs a group and a moment into one number that sorts by both.

    Moments keep as many of their upper bits as fit beside the group: usually all, down to the
    nanosecond. borders: where each group's numbers begin, and where the last one's end.
    """

    def __init__(self, begun: U64, ended: U64, groups: int) -> None:
        # Tick 0 stands for before all, so what is known begins at 1.
        none = np.iinfo(np.uint64).max
        earliest = [int(moments.min(initial=none, where=moments > 0)) for moments in (begun, ended)]
        first = 0 if min(earliest) == none else min(earliest)
        last = max((int(moments.max()) for moments in (begun, ended) if len(moments)), default=0)
        self._bits = np.uint64(64 - max(1, groups.bit_length()))
        span = max(0, last - first)
        self._shift = np.uint64(max(0, span.bit_length() + 1 - int(self._bits)))
        self._first = np.uint64(first)
        self.borders = np.arange(groups, dtype=np.uint64) << self._bits
        self.borders = np.append(self.borders, np.uint64(groups) << self._bits)

    def packed(self, group: Numbers, moment: U64) -> U64:
        """The numbers of some groups' moments, 0 for before all."""
        ticks = moment - self._first
        ticks >>= self._shift
        ticks += np.uint64(1)
        if not moment.all():
            ticks[moment == 0] = 0
        above = group.astype(np.uint64)
        above <<= self._bits
        ticks |= above
        return ticks

    def moments(self, packed: U64) -> U64:
        """The moments back, 0 for before all."""
        ticks = packed & ((np.uint64(1) << self._bits) - np.uint64(1))
        known = (np.maximum(ticks, np.uint64(1)) - np.uint64(1) << self._shift) + self._first
        moments: U64 = np.where(ticks > 0, known, np.uint64(0))
        return moments
