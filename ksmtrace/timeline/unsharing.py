"""How many merged pages lay in a range when a process unshared it, as far as events tell.

An upper bound: a page whose copy nobody saw being made still counts as merged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.aggregator import page_keys
from ksmtrace.timeline.before import LivesByPage, spaces_of
from ksmtrace.timeline.build import Timeline
from ksmtrace.timeline.sorting import Indices, Mask

U64 = npt.NDArray[np.uint64]
_PAGE_BITS = 36
"""`page_keys` has the address space above them."""


class MergedPages:
    """Which pages were merged where and when, also those that a child inherited and ksmd never met.

    A fork leaves the child its parent's merged pages. They are no lives before ksmd comes by.
    numbers: the rows of `ranges` that will be asked for.
    """

    def __init__(self, timeline: Timeline, numbers: Indices) -> None:
        # Asked for first: it adds the lives of before.
        before = timeline.ends.before
        self._stream = stream = timeline.stream
        spaces = stream.spaces.table
        self._entered, self._parent = spaces["entered_ts"].tolist(), spaces["parent_tgid"].tolist()
        asked = np.unique(stream.ranges["first"][numbers] >> np.uint64(_PAGE_BITS)).tolist()
        concerned = {ancestor for space in asked for ancestor, _ in self._line(space, 0)}
        lives = LivesByPage(stream, np.array(sorted(concerned), np.int64))
        on_ksm_page = stream.lives.table["ksm_page"][lives.rows] >= 0
        self._keys, self._begun = lives.keys[on_ksm_page], lives.begun[on_ksm_page]
        self._over = before[lives.rows[on_ksm_page]]
        breaks = stream.breaks
        self._written = page_keys(breaks["space"].astype(np.int64), breaks["addr"])

    def count(self, number: int) -> int:
        """How many merged pages lay in a range given up, just before. number: in `ranges`."""
        ranges = self._stream.ranges
        first, behind = int(ranges["first"][number]), int(ranges["behind"][number])
        space, low = first >> _PAGE_BITS, first & ((1 << _PAGE_BITS) - 1)
        moments = self._line(space, int(ranges["ts"][number]))
        pages = np.empty(0, np.uint64)
        for ancestor, ts in reversed(moments):
            pages = self._merged(ancestor, low, low + behind - first, ts, pages)
        return len(pages)

    def _line(self, space: int, ts: int) -> list[tuple[int, int]]:
        """An address space and its ancestors, and when each one was forked; the first: at `ts`."""
        line = [(space, ts)]
        while (tgid := self._parent[space]) and (entered := self._entered[space]):
            owner = np.array([tgid], np.uint32), np.array([entered], np.uint64)
            parent = int(spaces_of(self._stream, *owner)[0])
            if parent < 0 or self._entered[parent] >= entered:
                break
            space = parent
            line.append((space, entered))
        return line

    def _merged(self, space: int, low: int, high: int, ts: int, inherited: U64) -> U64:
        """The page numbers from `low` to `high` that were merged just before a moment, ascending.

        inherited: those that were when the address space was forked.
        """
        base = np.uint64(space << _PAGE_BITS)
        begin, end = np.searchsorted(self._keys, [base + np.uint64(low), base + np.uint64(high)])
        own = self._keys[begin:end] - base
        began, over = self._begun[begin:end] < ts, self._over[begin:end]
        there = own[began & ((over == 0) | (over >= ts))]
        if not len(inherited):
            return np.unique(there)
        still = inherited[~np.isin(inherited, own[began])]
        still = still[~self._given_up(space, still, self._entered[space], ts)]
        pages: U64 = np.union1d(there, still)
        return pages

    def _given_up(self, space: int, pages: U64, since: int, until: int) -> Mask:
        """Which pages were written, or given up with a range, between two moments."""
        base = np.uint64(space << _PAGE_BITS)
        ts, ranges = self._stream.breaks["ts"], self._stream.ranges
        between = (ts >= since) & (ts < until)
        gone: Mask = np.isin(pages, self._written[between] - base)
        between = (ranges["ts"] >= since) & (ranges["ts"] < until)
        between &= ranges["first"] >> np.uint64(_PAGE_BITS) == space
        for number in np.flatnonzero(between).tolist():
            first, behind = ranges["first"][number] - base, ranges["behind"][number] - base
            gone |= (pages >= first) & (pages < behind)
        return gone
