"""What state each page of a mapping was in, over time: lives in, changes of cells out.

A cell is one page, or in a large mapping a power of two of them; a map's state at a moment is how
many pages of each cell are in each state. Only changes are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.sorting import run_starts, stable_order
from ksmtrace.timeline.tables import HOW

if TYPE_CHECKING:
    import pandas as pd

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

STATES = ("never", "waiting", "merged", "inherited", "zero", "doubtful", "broken", "ended")
"""In the order of their codes.

never: not merged in this recording. waiting: merged later, not yet. merged: on a KSM page.
inherited: on one that a fork already shared. zero: on the zero page. doubtful: merged, or over
already: it is known only when that was noticed. broken: written, so copied. ended: given up,
unmerged, gone with its process or its KSM page, or met again unmerged.
"""
_NEVER, _WAITING, _MERGED, _INHERITED, _ZERO, _DOUBTFUL, _BROKEN, _ENDED = range(len(STATES))
_BITS = 3
_OF_HOW = np.full(len(HOW), _MERGED, np.int64)
_OF_HOW[HOW.index("inherited")] = _INHERITED
_OF_HOW[HOW.index("zero_page")] = _ZERO


@dataclass(frozen=True)
class Lives:
    """Lives of merged pages: rows of `pages` that lie in mappings to be drawn.

    place: the number of the page, over all mappings drawn. begin, doubt, end: moments by number, as
    of `Moments.after`; from `doubt` on it may have been over; end: one behind the last: not ended.
    how, ksm_page (-1: a zero page): as in the table. broken: a write ended it.
    """

    place: Ints
    begin: Ints
    doubt: Ints
    end: Ints
    how: Ints
    ksm_page: Ints
    broken: Mask

    def __len__(self) -> int:
        return len(self.place)

    def some(self, rows: Mask | Ints) -> Lives:
        """Some of them."""
        return Lives(*(getattr(self, one.name)[rows] for one in fields(self)))


@dataclass(frozen=True)
class Moments:
    """The moments that a slider can show, evenly from start_ns to end_ns, both among them."""

    start_ns: int
    end_ns: int
    count: int

    def after(self, ts: Ints) -> Ints:
        """The first moment at or after each time: from it on what happened then is seen."""
        length = max(self.end_ns - self.start_ns, 1)
        # In whole numbers, so that no rounding puts an event before its time.
        found = -((self.start_ns - ts) * (self.count - 1) // length)
        return np.clip(found, 0, self.count)

    def at_ns(self, number: int) -> int:
        """When a moment is."""
        length = max(self.end_ns - self.start_ns, 1)
        return self.start_ns + number * length // max(self.count - 1, 1)


def lives_of(pages: pd.DataFrame, rows: Ints, place: Ints, moments: Moments) -> Lives:
    """Rows of the table `pages` as lives. place: of each of the rows."""
    chosen = pages.iloc[rows] if len(rows) < len(pages) else pages
    merged = chosen["merged_ns"].to_numpy(np.int64, na_value=moments.start_ns)
    after = chosen["ended_after_ns"].to_numpy(np.int64, na_value=0)
    before = chosen["ended_before_ns"].to_numpy(np.int64, na_value=0)
    begin = moments.after(merged)
    over = before > 0
    end = np.where(over, moments.after(before), moments.count)
    doubt = np.where(over, moments.after(np.maximum(after, merged)), moments.count)
    ends = chosen["end"].cat
    return Lives(
        place=place,
        begin=begin,
        doubt=np.clip(doubt, begin, np.maximum(end, begin)),
        end=np.maximum(end, begin),
        how=chosen["how"].cat.codes.to_numpy().astype(np.int64),
        ksm_page=chosen["ksm_page"].to_numpy(np.int64, na_value=-1),
        broken=ends.codes.to_numpy() == ends.categories.get_loc("cow_break"),
    )


@dataclass(frozen=True)
class Changes:
    """What changes in a map: at a moment, in a cell, so many pages more of a state.

    Sorted by moment, cell and state. What no state counts of a cell is `never`.
    """

    moment: Ints
    cell: Ints
    state: Ints
    pages: Ints

    def __len__(self) -> int:
        return len(self.moment)


def changes_of(lives: Lives, cell: Ints, cells: int, moments: int) -> Changes:
    """What changes where. cell: of each life. cells, moments: how many there are of them."""
    # A sort of plain numbers is vectorised, so the sign is their last bit.
    steps = np.concatenate(list(_steps(lives, cell, cells, moments)))
    steps.sort()
    steps = steps[: np.searchsorted(steps, moments * cells << _BITS + 1)]
    less = (steps & 1).astype(np.int8)
    steps >>= 1
    starts = run_starts(steps)
    if not len(starts):
        return Changes(*(np.empty(0, np.int64) for _ in range(4)))
    sums = np.diff(starts, append=len(steps))
    sums -= 2 * np.add.reduceat(less, starts, dtype=np.int64)
    kept = sums != 0
    keys, sums = steps[starts[kept]], sums[kept]
    state = keys & ((1 << _BITS) - 1)
    where = keys >> _BITS
    return Changes(where // cells, where % cells, state, sums)


def _steps(lives: Lives, cell: Ints, cells: int, moments: int) -> Iterator[Ints]:
    """What becomes more and less: numbers of moment, cell, state, and 1 for less.

    A state that lasts no moment is one more and one less at once, which sums up to nothing.
    """
    base = cell << _BITS + 1
    per_moment = cells << _BITS + 1
    first, following = _neighbours(lives, moments)
    state = _OF_HOW[lives.how] << 1
    state += base
    after = np.where(lives.broken, _BROKEN << 1, _ENDED << 1)
    after += base
    # A page that merges again is over by then, whatever was noticed when.
    doubt, end = np.minimum(lives.doubt, following), np.minimum(lives.end, following)
    yield lives.begin * per_moment + state
    yield doubt * per_moment + (state + 1)
    yield end * per_moment + after
    yield following * per_moment + (after + 1)
    rows = np.flatnonzero(doubt < end)
    doubtful = base[rows] + (_DOUBTFUL << 1)
    yield doubt[rows] * per_moment + doubtful
    yield end[rows] * per_moment + (doubtful + 1)
    waiting = base[first] + (_WAITING << 1)
    yield waiting
    yield lives.begin[first] * per_moment + (waiting + 1)


def _neighbours(lives: Lives, moments: int) -> tuple[Mask, Ints]:
    """Which lives are their page's first, and when the next of the page begins."""
    order = _by_place(lives)
    place = lives.place[order]
    same = place[1:] == place[:-1]
    first = np.ones(len(lives), bool)
    first[order[1:]] = ~same
    following = np.full(len(lives), moments, np.int64)
    following[order[:-1]] = np.where(same, lives.begin[order[1:]], moments)
    return first, following


def _by_place(lives: Lives) -> Ints:
    """The order of lives by page, and of each page in time."""
    rows = len(lives)
    in_time = np.arange(rows)
    if (lives.begin[1:] < lives.begin[:-1]).any():
        # Those of before the recording stand behind the others.
        in_time = stable_order(lives.begin.astype(np.uint64))
    bits = rows.bit_length()
    if rows and int(lives.place.max()).bit_length() + bits < 63:
        # Plain numbers sort several times faster than their places.
        packed = lives.place[in_time] << bits
        packed |= np.arange(rows)
        packed.sort()
        packed &= (1 << bits) - 1
    else:
        packed = stable_order(lives.place[in_time].astype(np.uint64))
    order: Ints = in_time[packed]
    return order
