"""What was merged before the recording began, by the census taken at its start."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.address_spaces import NEVER
from ksmtrace.timeline.aggregator import Aggregator, page_keys
from ksmtrace.timeline.context import Census
from ksmtrace.timeline.lives import COW_BREAK, EXIT, FOUND_DEAD, STALE, STILL_MERGED, UNKNOWN
from ksmtrace.timeline.owners import spaces_at
from ksmtrace.timeline.sorting import Indices, Mask, stable_order
from ksmtrace.timeline.tables import HOW

U64 = npt.NDArray[np.uint64]
_FOREVER = np.iinfo(np.uint64).max
_BEFORE, _INHERITED = HOW.index("before"), HOW.index("inherited")


def add_lives_of_before(stream: Aggregator, census: Census) -> None:
    """Give a finished stream the lives of before.

    Those are what a census knows of and no event has begun, and what only its end tells of. Each
    ends with what is known to have ended it: its page is merged again, written or given up, its KSM
    page is found dead, its address space exits.
    """
    first = len(stream.lives.table)
    seen = _add_from(stream, census) if len(census) else np.empty(0, np.uint64)
    _end_by_own_doing(stream, first, seen)


def _add_from(stream: Aggregator, census: Census) -> U64:
    """Add the lives that only a census knows of; returns when it saw them."""
    spaces = spaces_of(stream, census.tgid, census.ts, create=True)
    keys = page_keys(spaces, census.addr)
    known = LivesByPage(stream, np.unique(spaces))
    covered, merged_next = known.around(keys, census.ts)
    # A mapping that ksmd only meets now, which a fork left there, was no merged page before.
    new = np.flatnonzero(~covered & ~known.inherited_next(keys, census.ts))
    # A page may be named twice where a census had to begin again.
    new = new[np.unique(keys[new], return_index=True)[1]]
    spaces, ts = spaces[new], census.ts[new]
    page = _ksm_pages_of(stream, census.pfn[new], ts)
    table = stream.ksm_pages.table
    died, exited = table["died_ts"][page], stream.spaces.table["exited_ts"][spaces]
    ended = merged_next[new]
    end = np.where(ended == _FOREVER, STILL_MERGED, UNKNOWN).astype(np.uint8)
    for when, by in ((died, FOUND_DEAD), (exited, EXIT)):
        sooner = (when > ts) & (when < ended)
        ended[sooner] = when[sooner]
        end[sooner] = by
    stream.lives.table.extend(
        addr=census.addr[new],
        merged_ts=0,
        ended_ts=np.where(ended == _FOREVER, 0, ended),
        space=spaces,
        ksm_page=page,
        how=_BEFORE,
        end=end,
    )
    return ts


def _end_by_own_doing(stream: Aggregator, added: int, added_seen: U64) -> None:
    """End lives of before where their process was seen to write or give up the page.

    While the stream was aggregated nobody knew of these lives: their first event was another.
    added, added_seen: from which life on a census saw them, and when.
    """
    table = stream.lives.table
    rows = np.flatnonzero(table["how"] == _BEFORE)
    if not len(rows) or not (len(stream.breaks) or len(stream.ranges)):
        return
    keys = page_keys(table["space"][rows].astype(np.int64), table["addr"][rows])
    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order]
    ended = table["ended_ts"][rows].copy()
    seen = np.zeros(len(table), np.uint64)
    seen[added:] = added_seen
    # What is only told of by its end may have begun where events were lost.
    lost = np.concatenate(([np.uint64(0)], np.sort(stream.losses["ts"])))
    known = lost[np.searchsorted(lost, np.where(ended > 0, ended, _FOREVER), "left") - 1]
    seen = np.maximum(seen[rows], np.where(rows < added, known, 0))
    ended[ended == 0] = _FOREVER
    end, noticed = table["end"][rows].copy(), np.zeros(len(rows), np.uint64)
    breaks, ranges = stream.breaks, stream.ranges
    written = page_keys(breaks["space"].astype(np.int64), breaks["addr"])
    for first, behind, ts, by in (
        (written, written + np.uint64(1), breaks["ts"], np.full(len(written), COW_BREAK)),
        (ranges["first"], ranges["behind"], ranges["ts"], ranges["end"]),
    ):
        low, high = np.searchsorted(keys, first), np.searchsorted(keys, behind)
        for event in np.flatnonzero(high > low).tolist():
            here = slice(low[event], high[event])
            sooner = (ts[event] < ended[here]) & (ts[event] > seen[here])
            noticed[here] = np.where(sooner & (noticed[here] == 0), ended[here], noticed[here])
            ended[here] = np.where(sooner, ts[event], ended[here])
            end[here] = np.where(sooner, by[event], end[here])
    # What ended it until now was ksmd meeting it: not so a write, or an exit.
    by_ksmd = np.isin(table["end"][rows], (STALE, FOUND_DEAD, UNKNOWN))
    changed = noticed > 0
    table["ended_ts"][rows[changed]] = ended[changed]
    table["end"][rows[changed]] = end[changed]
    told = changed & (noticed != _FOREVER) & by_ksmd
    stream.lives.noticed.extend(life=rows[told], ts=noticed[told])


class LivesByPage:
    """The lives of some address spaces, to be found by page and moment."""

    def __init__(self, stream: Aggregator, spaces: Indices) -> None:
        table = stream.lives.table
        chosen = np.zeros(len(stream.spaces.table), bool)
        chosen[spaces] = True
        self.rows = np.flatnonzero(chosen[table["space"]])
        keys = page_keys(table["space"][self.rows].astype(np.int64), table["addr"][self.rows])
        self.begun = table["merged_ts"][self.rows]
        # By page, and by beginning in each page.
        in_time = np.argsort(self.begun, kind="stable")
        order = in_time[stable_order(keys[in_time])]
        self.rows, self.begun = self.rows[order], self.begun[order]
        self.keys = keys[order]
        self.how = table["how"][self.rows]
        self.ended = table["ended_ts"][self.rows]
        self.ended[self.ended == 0] = _FOREVER

    def latest(self, keys: U64, ts: U64) -> tuple[Mask, Indices]:
        """The last life of each page that began by a moment: whether there is one, and where."""
        low = np.searchsorted(self.keys, keys, "left")
        high = np.searchsorted(self.keys, keys, "right")
        first = low.copy()
        while (open_ := low < high).any():
            middle = (low + high) // 2
            begun = self.begun[np.minimum(middle, max(0, len(self.begun) - 1))] <= ts
            low = np.where(open_ & begun, middle + 1, low)
            high = np.where(open_ & ~begun, middle, high)
        return low > first, low - 1

    def inherited_next(self, keys: U64, ts: U64) -> Mask:
        """Whether the next life of a page is one that a fork had shared already."""
        _, at = self.latest(keys, ts)
        behind = at + 1
        mask = behind < len(self.keys)
        mask[mask] = self.keys[behind[mask]] == keys[mask]
        mask[mask] = self.how[behind[mask]] == _INHERITED
        return mask

    def around(self, keys: U64, ts: U64) -> tuple[Mask, U64]:
        """Whether a life goes on at a moment, and when the page is next merged or told of."""
        found, at = self.latest(keys, ts)
        covered = np.zeros(len(keys), bool)
        covered[found] = self.ended[at[found]] > ts[found]
        behind = at + 1
        inside = behind < len(self.keys)
        inside[inside] = self.keys[behind[inside]] == keys[inside]
        merged_next = np.full(len(keys), _FOREVER)
        merged_next[inside] = self.begun[behind[inside]]
        return covered, merged_next


def spaces_of(
    stream: Aggregator, tgid: npt.NDArray[np.uint32], ts: U64, *, create: bool = False
) -> Indices:
    """The address space that each process had at a moment, -1 for none; or a new one for it."""
    table = stream.spaces.table
    spaces = spaces_at(table, tgid, ts)
    missing = np.flatnonzero(spaces < 0) if create else np.empty(0, np.int64)
    fresh, which = np.unique(tgid[missing], return_inverse=True)
    if len(fresh):
        spaces[missing] = len(table) + which
        table.extend(
            mm=0,
            tgid=fresh,
            parent_tgid=0,
            entered_ts=0,
            exited_ts=0,
            exited=NEVER,
        )
    return spaces


def _ksm_pages_of(stream: Aggregator, pfn: U64, ts: U64) -> Indices:
    """The KSM page that lay in each frame at a moment; where none is known, a new one of before."""
    table = stream.ksm_pages.table
    frames, which = np.unique(pfn, return_inverse=True)
    rows = np.flatnonzero(np.isin(table["pfn"], frames))
    when = ts[np.unique(which, return_index=True)[1]] if len(frames) else ts
    frame = np.searchsorted(frames, table["pfn"][rows])
    there = (table["born_ts"][rows] <= when[frame]) & (
        (table["died_ts"][rows] == 0) | (table["died_ts"][rows] > when[frame])
    )
    page = np.full(len(frames), -1, np.int64)
    page[frame[there]] = rows[there]
    missing = np.flatnonzero(page < 0)
    if len(missing):
        page[missing] = np.arange(len(table), len(table) + len(missing))
        table.extend(
            pfn=frames[missing],
            born_ts=0,
            born=-1,
            died_ts=0,
            died=NEVER,
            maker=-1,
            unshared=False,
        )
    return page[which]
