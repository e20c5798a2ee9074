"""The lives of merged pages: from the event that merged a page to whatever ended it.

ksmd says when it merges a page and seldom when that ends. A life is therefore ended by the first
event after which it can't be going on: the page was written or given up, its rmap_item or its KSM
page was found dead, its address space exited, or ksmd met the page unmerged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.address_spaces import NEVER
from ksmtrace.timeline.growing import GrowingTable
from ksmtrace.timeline.sorting import Indices, Mask, SortedKeys, stable_order
from ksmtrace.timeline.tables import END

U64 = npt.NDArray[np.uint64]

MERGED, MET, REMOVED, WRITTEN, RANGE_LEFT = range(5)
"""What an event says of a page: merged; met unmerged; its rmap_item left a dead KSM page; written;
given up with its range."""
_OPEN, _GHOST = 5, 6
"""Carried from before: a life that goes on, and one that has ended while its rmap_item stayed."""

(STILL_MERGED, COW_BREAK, UNMAPPED, EXIT, UNMERGED, STALE, UNKNOWN) = range(len(END))
FOUND_DEAD = len(END)
"""Stale too, but only the KSM page was named: the rmap_item may have left it before, silently."""
PERHAPS_UNMERGED = FOUND_DEAD + 1
"""Unmerged by a prctl that unmerges nothing in a process that had not opted in by prctl."""

_ENDED_BY = np.full(7, UNKNOWN, np.uint8)
_ENDED_BY[REMOVED] = STALE
_ENDED_BY[WRITTEN] = COW_BREAK
_ENDED_BY[RANGE_LEFT] = UNMAPPED


@dataclass(frozen=True)
class PageEvents:
    """What a chunk of the stream says of pages, in its order.

    key: the page, the same number wherever it is meant. what: MERGED, MET, ... . order, ts: of the
    event. end: of RANGE_LEFT, UNMAPPED, UNMERGED or PERHAPS_UNMERGED.
    """

    key: U64
    what: npt.NDArray[np.uint8]
    order: Indices
    ts: U64
    space: Indices
    addr: U64
    end: npt.NDArray[np.uint8]


_TAKEN = ("what", "order", "ts", "space", "addr", "end")


class PageLives:
    """The lives of a stream, numbered as they begin.

    A life that only its end tells of was there before. Columns: addr, space, ksm_page (-1: a zero
    page), how and end as codes, again (its page had a life before), merged_ts (0: before), ended_ts
    (0: not ended). `noticed`: ends of
    which the kernel's counters learn later than they happen. `written`: the lives that writes
    ended, and these events' orders.
    """

    _DTYPES = {  # noqa: RUF012 a constant
        "addr": np.uint64,
        "merged_ts": np.uint64,
        "ended_ts": np.uint64,
        "space": np.int32,
        "ksm_page": np.int32,
        "how": np.uint8,
        "end": np.uint8,
        "again": bool,
    }

    def __init__(self) -> None:
        self.table = GrowingTable(self._DTYPES)
        self.noticed = GrowingTable({"life": np.int64, "ts": np.uint64})
        self.written = GrowingTable({"life": np.int64, "order": np.int64})
        self._key = np.empty(0, np.uint64)
        self._life = np.empty(0, np.int64)
        self._ghost = np.empty(0, bool)
        self._past = SortedKeys()

    @property
    def carried(self) -> int:
        """How many lives are kept in mind."""
        return len(self._key)

    def before(self, events: PageEvents, expires: Expiry, began: U64) -> Chunk:
        """Sort a chunk: which events begin lives, even such as were there before.

        began: when each address space was seen to begin; 0: it was not.
        """
        events, source = self._with_ranges(events)
        carried = len(self._key)
        by_page = stable_order(np.concatenate((self._key, events.key)))
        code = np.where(self._ghost, _GHOST, _OPEN).astype(np.uint8)
        code = np.concatenate((code, events.what))[by_page]
        key = np.concatenate((self._key, events.key))[by_page]
        follows = np.zeros(len(code), bool)
        np.equal(key[1:], key[:-1], out=follows[1:])
        unborn = self._unborn(events, by_page, code, follows, expires, began)
        begins = np.zeros(len(events.key), bool)
        begins[events.what == MERGED] = True
        begins[by_page[unborn] - carried] = True
        return Chunk(events, source, by_page, code, follows, unborn, np.flatnonzero(begins))

    def _unborn(
        self,
        events: PageEvents,
        by_page: Indices,
        code: npt.NDArray[np.uint8],
        follows: Mask,
        expires: Expiry,
        began: U64,
    ) -> Indices:
        """Sorted positions of ends that no life is known for."""
        ends = np.flatnonzero((code == REMOVED) | (code == WRITTEN))
        if not len(ends):
            return ends
        before = np.where(follows[ends], code[ends - 1], MET)
        removed = code[ends] == REMOVED
        ghost = (before == WRITTEN) | (before == RANGE_LEFT) | (before == _GHOST)
        unborn = (before == MET) | (before == REMOVED)
        after_ghost = np.flatnonzero(ghost & removed)
        if len(after_ghost):
            carried = len(self._key)
            at = by_page[ends[after_ghost] - 1]
            since = np.empty(len(at), np.uint64)
            old = at < carried
            since[old] = self.table["ended_ts"][self._life[at[old]]]
            since[~old] = events.ts[at[~old] - carried]
            now = events.ts[by_page[ends[after_ghost]] - carried]
            unborn[after_ghost] = expires.between(since, now)
        # A process that was seen to begin has no lives of before: what it writes without one is a
        # mapping that its parent left it, and that ksmd has not met.
        written = np.flatnonzero(~removed & unborn)
        spaces = events.space[by_page[ends[written]] - len(self._key)]
        unborn[written] = began[spaces] == 0
        found: Indices = ends[unborn]
        return found

    def _with_ranges(self, events: PageEvents) -> tuple[PageEvents, Indices]:
        """Ranges as events of the pages in them, and which event each one comes from.

        `key` of a range is its first page, `addr` the key after its last.
        """
        ranges = np.flatnonzero(events.what == RANGE_LEFT)
        if not len(ranges):
            return events, np.arange(len(events.key))
        pages = np.unique(np.concatenate((self._key, events.key[events.what != RANGE_LEFT])))
        low = np.searchsorted(pages, events.key[ranges])
        high = np.searchsorted(pages, events.addr[ranges])
        counts = np.maximum(high - low, 0)
        source = np.repeat(ranges, counts)
        inside = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.concatenate((np.flatnonzero(events.what != RANGE_LEFT), source))
        in_order = np.argsort(rows, kind="stable")
        key = np.concatenate(
            (events.key[events.what != RANGE_LEFT], pages[np.repeat(low, counts) + inside])
        )
        rows = rows[in_order]
        taken = [getattr(events, name)[rows] for name in _TAKEN]
        return PageEvents(key[in_order], *taken), rows

    def feed(
        self,
        chunk: Chunk,
        ksm_page: Indices,
        how: npt.NDArray[np.uint8],
        died: Indices,
        died_ts: U64,
        exited: Indices,
        exited_ts: U64,
        expires: Expiry,
    ) -> None:
        """Begin and end lives. ksm_page, how: of the chunk's beginnings; -1 for zero pages.

        died, died_ts: when each KSM page was found dead, by number. exited, exited_ts: when each
        address space exited, by number. expires: see `Expiry`.
        """
        events, code, by_page = chunk.events, chunk.code, chunk.by_page
        carried = len(self._key)
        first = len(self.table)
        key = np.concatenate((self._key, events.key))
        self._begin(chunk, ksm_page, how, self._again(chunk, key))
        # The life that each row of the chunk, carried ones first, is the beginning of.
        life_of_row = np.full(len(code), -1, np.int64)
        life_of_row[:carried] = self._life
        life_of_row[carried + chunk.begins] = np.arange(first, len(self.table))
        at = np.flatnonzero((code == _OPEN) | (code == MERGED))
        life = life_of_row[by_page[at]]
        end, ended, by_event = self._ends(chunk, at, life, died, died_ts, exited, exited_ts)
        over = end != STILL_MERGED
        self.table["end"][life[over]] = end[over]
        written = np.flatnonzero((end == COW_BREAK) & by_event)
        unborn = chunk.unborn[code[chunk.unborn] == WRITTEN]
        if len(written) or len(unborn):
            rows = by_page[unborn] - carried
            self.written.extend(
                life=np.concatenate((life[written], life_of_row[by_page[unborn]])),
                order=np.concatenate((ended[written], events.order[rows])),
            )
        # Ends whose rmap_item is still there for the kernel, and where what follows them is.
        silent = np.isin(end, (COW_BREAK, UNMAPPED, EXIT, UNMERGED, PERHAPS_UNMERGED))
        old = np.flatnonzero(code == _GHOST)
        position = np.concatenate(((at + by_event)[silent], old, unborn))
        ghost = np.concatenate(
            (life[silent], life_of_row[by_page[old]], life_of_row[by_page[unborn]])
        )
        since = np.full(len(ghost), -1)
        since[: int(silent.sum())] = ended[silent]
        stays = ~self._notice(chunk, position, ghost, since, died, died_ts)
        stays &= ~expires.by_now(self.table["ended_ts"][ghost])
        going_on = ~over
        self._remember(chunk, key, at, over)
        self._key = np.concatenate((key[by_page[at[going_on]]], key[by_page[position]][stays]))
        self._life = np.concatenate((life[going_on], ghost[stays]))
        self._ghost = np.arange(len(self._key)) >= int(going_on.sum())

    def _ends(
        self,
        chunk: Chunk,
        at: Indices,
        life: Indices,
        died: Indices,
        died_ts: U64,
        exited: Indices,
        exited_ts: U64,
    ) -> tuple[npt.NDArray[np.uint8], Indices, Mask]:
        """How and when (order) lives end, and whether an event about the page itself ends them.

        at: where they begin. The first that ends a life counts: what is next about its page, its
        KSM page's death, or its address space's exit.
        """
        events, by_page, table = chunk.events, chunk.by_page, self.table
        carried = len(self._key)
        nexts, rows = chunk.following(at)
        what = events.what[rows]
        end = np.zeros(len(life), np.uint8)
        end[nexts] = _ENDED_BY[what]
        ended = np.full(len(life), NEVER)
        ended[nexts] = events.order[rows]
        table["ended_ts"][life[nexts]] = events.ts[rows]
        if (given_up := what == RANGE_LEFT).any():
            end[nexts[given_up]] = events.end[rows[given_up]]
        by_event = np.zeros(len(life), bool)
        by_event[nexts] = True
        for when, when_ts, by, column in (
            (died, died_ts, FOUND_DEAD, "ksm_page"),
            (exited, exited_ts, EXIT, "space"),
        ):
            if not (when != NEVER).any():
                continue
            owner = table[column][life]
            moment = np.where(owner >= 0, when[owner], NEVER)
            # Carried lives began before anything that ends in this chunk.
            merged = np.full(len(life), -1)
            fresh = by_page[at] >= carried
            merged[fresh] = events.order[by_page[at[fresh]] - carried]
            sooner = np.flatnonzero((moment < ended) & (moment > merged))
            ended[sooner] = moment[sooner]
            table["ended_ts"][life[sooner]] = when_ts[owner[sooner]]
            end[sooner] = by
            by_event[sooner] = False
        return end, ended, by_event

    def _notice(
        self,
        chunk: Chunk,
        position: Indices,
        ghost: Indices,
        since: Indices,
        died: Indices,
        died_ts: U64,
    ) -> Mask:
        """Note which ends the kernel has noticed: by what follows them, or with the KSM page.

        since: orders of the ends, -1 for those before this chunk.
        """
        unknown = np.iinfo(np.uint64).max
        noticed = np.full(len(ghost), unknown)
        nexts, rows = chunk.met_by_ksmd(position)
        noticed[nexts] = chunk.events.ts[rows]
        page = self.table["ksm_page"][ghost]
        dead = np.flatnonzero(page >= 0)
        dead = dead[died[page[dead]] != NEVER]
        dead = dead[died[page[dead]] > since[dead]]
        noticed[dead] = np.minimum(noticed[dead], died_ts[page[dead]])
        known: Mask = noticed != unknown
        if known.any():
            self.noticed.extend(life=ghost[known], ts=noticed[known])
        return known

    def _again(self, chunk: Chunk, key: U64) -> Mask:
        """Which of the chunk's beginnings are of pages that had a life before."""
        carried = len(self._key)
        life = np.isin(chunk.code, (_OPEN, _GHOST, MERGED))
        life[chunk.unborn] = True
        had: Indices = np.cumsum(life, dtype=np.int64)
        had -= life
        had -= had[chunk.first_of_page()]
        again = np.zeros(len(key), bool)
        again[chunk.by_page] = had > 0
        begins = carried + chunk.begins
        fresh = np.flatnonzero(~again[begins])
        again[begins[fresh]] = self._past.contains(key[begins[fresh]])
        found: Mask = again[begins]
        return found

    def _remember(self, chunk: Chunk, key: U64, at: Indices, over: Mask) -> None:
        """Keep in mind which pages had lives; those merged again at once are carried anyway."""
        nexts, rows = chunk.following(at)
        merged_again = np.zeros(len(at), bool)
        merged_again[nexts] = chunk.events.what[rows] == MERGED
        gone = at[over & ~merged_again]
        self._past.add(key[chunk.by_page[np.concatenate((gone, chunk.unborn))]])

    def _begin(
        self, chunk: Chunk, ksm_page: Indices, how: npt.NDArray[np.uint8], again: Mask
    ) -> None:
        events, begins = chunk.events, chunk.begins
        born = events.what[begins] == MERGED
        self.table.extend(
            addr=events.addr[begins],
            merged_ts=np.where(born, events.ts[begins], 0),
            ended_ts=np.where(born, 0, events.ts[begins]),
            space=events.space[begins],
            ksm_page=ksm_page,
            how=how,
            again=again,
            end=np.where(born, STILL_MERGED, _ENDED_BY[events.what[begins]]),
        )


@dataclass(frozen=True)
class Chunk:
    """A chunk sorted by page. by_page: rows, carried ones first, sorted. code: theirs, sorted.

    source: which of the events that were given each of `events` comes from.
    follows: sorted rows with the page of the row before. unborn: sorted positions of ends that tell
    of a life. begins: the chunk's events, in order, that begin a life.
    """

    events: PageEvents
    source: Indices
    by_page: Indices
    code: npt.NDArray[np.uint8]
    follows: Mask
    unborn: Indices
    begins: Indices

    def without(self, begins: Mask) -> Chunk:
        """The chunk where some of its beginnings are none after all."""
        rows = self.by_page[self.unborn] - (len(self.code) - len(self.events.key))
        kept = ~np.isin(rows, self.begins[begins])
        return replace(self, unborn=self.unborn[kept], begins=self.begins[~begins])

    def first_of_page(self) -> Indices:
        """For each sorted row the first with its page."""
        starts = np.flatnonzero(~self.follows)
        return np.repeat(starts, np.diff(np.append(starts, len(self.follows))))

    def following(self, positions: Indices) -> tuple[Indices, Indices]:
        """What is next about the same page: indices into `positions`, and the events' rows."""
        behind = positions + 1
        has = np.flatnonzero(np.append(self.follows, False)[behind])
        carried = len(self.code) - len(self.events.key)
        return has, self.by_page[behind[has]] - carried

    def met_by_ksmd(self, positions: Indices) -> tuple[Indices, Indices]:
        """As `following`, but the next that ksmd says: a process's own doings tell it nothing."""
        has, rows = self.following(positions)
        own = np.isin(self.events.what[rows], (WRITTEN, RANGE_LEFT))
        while own.any():
            positions = positions + 1
            carried = len(self.code) - len(self.events.key)
            at = positions[has[own]] + 1
            more = np.append(self.follows, False)[at]
            further = np.flatnonzero(own)
            gone = further[~more]
            rows[further[more]] = self.by_page[at[more]] - carried
            keep = np.ones(len(has), bool)
            keep[gone] = False
            has, rows = has[keep], rows[keep]
            own = np.isin(self.events.what[rows], (WRITTEN, RANGE_LEFT)) & own[keep]
        return has, rows


class Expiry:
    """When ksmd must have noticed an end: by the end of the first full scan begun after it.

    starts, stops: of completed full scans, in nanoseconds, ascending.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def completed(self, start: int, stop: int) -> None:
        """A full scan ended."""
        self._starts.append(start)
        self._stops.append(stop)

    def between(self, since: U64, now: U64) -> Mask:
        """Whether a full scan began after `since` and ended before `now`."""
        passed: Mask = self.noticed_by(since) <= now
        return passed

    def by_now(self, since: U64) -> Mask:
        """Whether a full scan that began after `since` has ended."""
        passed: Mask = self.noticed_by(since) != np.iinfo(np.uint64).max
        return passed

    def noticed_by(self, since: U64) -> U64:
        """The end of the first full scan begun after `since`; the largest number if none was."""
        starts = np.array(self._starts, np.uint64)
        stops = np.append(np.array(self._stops, np.uint64), np.iinfo(np.uint64).max)
        by: U64 = stops[np.searchsorted(starts, since, "right")]
        return by
