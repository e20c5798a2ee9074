"""KSM pages: which one an event means, though the kernel only names a frame that it uses again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.address_spaces import NEVER
from ksmtrace.timeline.growing import GrowingTable
from ksmtrace.timeline.sorting import Indices, Mask, distinct, group_starts, stable_order

U64 = npt.NDArray[np.uint64]

BIRTH, JOIN, GONE, LEFT, WRITTEN = range(5)
"""What an event says of a frame's KSM page: it is made, mapped, found dead, left by an rmap_item
just before it is found dead, or its mapping was written."""
_CARRIED = 5
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: the upper bits of a product with it are a hash."""


@dataclass(frozen=True)
class Named:
    """For each event the number of its KSM page, and for JOINs what the mapcount says.

    same_mapcount: of a page that a fork shared when it became a KSM page: the mapcount stayed, so
    this mapping is an old one. odd_mapcount: it can't be told, others came or went in between.
    """

    ksm_page: Indices
    same_mapcount: Mask
    odd_mapcount: Mask


class KsmPages:
    """The KSM pages of a stream, numbered as they appear.

    ksmd finds a dead page late: its frame may be another KSM page by then. So of several on one
    frame the oldest is the one found dead, the newest the one that is mapped. A page that is
    mapped or found dead without having been made was there before. Columns: pfn, born_ts and born
    (order) or 0 and -1 for before, died_ts or 0, died (order) or NEVER.
    """

    def __init__(self) -> None:
        self.table = GrowingTable(
            {
                "pfn": np.uint64,
                "born_ts": np.uint64,
                "born": np.int64,
                "died_ts": np.uint64,
                "died": np.int64,
            }
        )
        self._open = np.empty(0, np.int64)
        # Of open KSM pages that a fork shared at birth: the mapcount last seen, else 0.
        self._shared_mapcount = np.empty(0, np.uint32)

    def assign(
        self,
        pfn: U64,
        what: npt.NDArray[np.uint8],
        ts: U64,
        order: Indices,
        mapcount: npt.NDArray[np.uint32],
        second: Mask,
    ) -> Named:
        """Number the KSM pages of events, in the stream's order.

        what: BIRTH, JOIN, GONE, LEFT or WRITTEN. mapcount: of JOINs, 0 where unknown. second: JOINs
        that are the second half of a birth.
        """
        page = np.full(len(pfn), -1, np.int64)
        same, odd = np.zeros(len(pfn), bool), np.zeros(len(pfn), bool)
        plain, creator = self._plain_joins(pfn, what, mapcount, second)
        rest = np.flatnonzero(~plain)
        opened = self._open
        if len(rest):
            frames = distinct(pfn[rest])
            at = np.minimum(np.searchsorted(frames, self.table["pfn"][opened]), len(frames) - 1)
            concerned = np.flatnonzero(frames[at] == self.table["pfn"][opened])
            page[rest], same[rest], odd[rest] = self._sorted(
                concerned,
                pfn[rest],
                what[rest],
                ts[rest],
                order[rest],
                mapcount[rest],
                second[rest],
            )
        # Those of the chunk stand before those that were open.
        page[plain] = np.concatenate((page, opened))[creator]
        return Named(page, same, odd)

    def _plain_joins(
        self,
        pfn: U64,
        what: npt.NDArray[np.uint8],
        mapcount: npt.NDArray[np.uint32],
        second: Mask,
    ) -> tuple[Mask, Indices]:
        """JOINs of frames that are one KSM page all the time, and what makes them it.

        Those are most of a stream, and need no sorting: a table finds the one open KSM page, or the
        one birth, by a hash of the frame. Returns which events they are, and for each of them the
        row of the birth, or the number of rows plus its place among the open ones.
        """
        births = np.flatnonzero(what == BIRTH)
        frames = np.concatenate((pfn[births], self.table["pfn"][self._open]))
        creators = np.concatenate((births, len(pfn) + np.arange(len(self._open))))
        shared = np.zeros(len(frames), bool)
        shared[len(births) :] = self._shared_mapcount != 0
        single = ~(self._ambiguous(frames) | shared | (frames == 0))
        bits = max(10, 2 + int(single.sum()).bit_length())
        shift = np.uint64(64 - bits)
        frame_at = np.zeros(1 << bits, np.uint64)
        creator_at = np.zeros(1 << bits, np.int64)
        slot = (frames[single] * _SPREAD) >> shift
        frame_at[slot] = frames[single]
        creator_at[slot] = creators[single]
        # Whatever else is said of a frame may change what its number means.
        odd = (what == LEFT) | (what == WRITTEN) | (second & (mapcount > 2))
        _forget(frame_at, pfn[odd], shift)
        gone = np.flatnonzero(what == GONE)
        _forget(frame_at, pfn[gone[self._ambiguous(pfn[gone])]], shift)
        gone_at = np.full(1 << bits, len(pfn))
        slot = (pfn[gone] * _SPREAD) >> shift
        here = frame_at[slot] == pfn[gone]
        gone_at[slot[here]] = gone[here]
        joins = np.flatnonzero(what == JOIN)
        frame = pfn[joins]
        slot = (frame * _SPREAD) >> shift
        born = creator_at[slot]
        born[born >= len(pfn)] = -1
        outside = (joins < born) | (joins > gone_at[slot])
        _forget(frame_at, frame[outside], shift)
        found = (frame_at[slot] == frame) & (frame != 0)
        plain = np.zeros(len(pfn), bool)
        plain[joins[found]] = True
        return plain, creator_at[slot[found]]

    @staticmethod
    def _ambiguous(frames: U64) -> Mask:
        """Frames that several open KSM pages have."""
        order = np.argsort(frames)
        twin = frames[order][1:] == frames[order][:-1]
        mask = np.zeros(len(frames), bool)
        mask[order[1:][twin]] = True
        mask[order[:-1][twin]] = True
        return mask

    def _sorted(
        self,
        concerned: Indices,
        pfn: U64,
        what: npt.NDArray[np.uint8],
        ts: U64,
        order: Indices,
        mapcount: npt.NDArray[np.uint32],
        second: Mask,
    ) -> tuple[Indices, Mask, Mask]:
        """Number KSM pages by going through each frame's events. concerned: of the open ones."""
        carried = len(concerned)
        opened, mapcounts = self._open[concerned], self._shared_mapcount[concerned]
        frames = np.concatenate((self.table["pfn"][opened], pfn))
        by_frame = stable_order(frames)
        code = np.concatenate((np.full(carried, _CARRIED, np.uint8), what))[by_frame]
        start = group_starts(frames[by_frame])
        begun, oldest_meant = self._walk(code, start)
        creator = begun.creator
        known = np.full(len(code), -1, np.int64)
        known[code == _CARRIED] = opened[by_frame[code == _CARRIED]]
        new = np.flatnonzero(creator & (code != _CARRIED))
        known[new] = self._create(by_frame[new] - carried, what, pfn, ts, order)
        numbers = known[creator]
        page = numbers[begun.latest]
        page[oldest_meant] = numbers[begun.oldest[oldest_meant]]
        gone = np.flatnonzero(code == GONE)
        rows = by_frame[gone] - carried
        self.table["died_ts"][page[gone]] = ts[rows]
        self.table["died"][page[gone]] = order[rows]
        in_order = np.empty(len(code), np.int64)
        in_order[by_frame] = page
        same, odd, last = _mapcounts(by_frame, code, page, mapcounts, mapcount, second)
        self._carry(concerned, numbers, last)
        return in_order[carried:], same, odd

    @staticmethod
    def _walk(code: npt.NDArray[np.uint8], start: Indices) -> tuple[_Begun, Mask]:
        """Which rows begin a KSM page, and which page each row means.

        Rows are grouped by frame, in order. On each frame births are counted up and deaths down; a
        row that needs a living page where none is left implies a birth just there. That is the
        running maximum of what is lacking.
        """
        birth = (code == BIRTH) | (code == _CARRIED)
        death = code == GONE
        births = _within(np.cumsum(birth), birth, start)
        deaths_before = _within(np.cumsum(death), death, start) - death
        lacking = np.where(birth, 0, 1 - (births - deaths_before))
        implied = np.zeros(len(code), np.int64)
        if (lacking > 0).any():
            # One running maximum for all groups: each starts above the one before.
            lift = start * 2
            implied = np.maximum.accumulate(np.maximum(lacking, 0) + lift) - lift
        before = np.concatenate(([0], implied[:-1]))
        before[start == np.arange(len(code))] = 0
        creator = birth | (implied > before)
        created = np.cumsum(creator)
        base = created[start] - creator[start] if len(code) else created
        oldest = base + deaths_before
        return _Begun(creator, base + births + implied - 1, oldest), death | (code == LEFT)

    def _create(
        self, rows: Indices, what: npt.NDArray[np.uint8], pfn: U64, ts: U64, order: Indices
    ) -> Indices:
        """Number new KSM pages in the stream's order; rows: where they begin."""
        first = len(self.table)
        rank = np.argsort(rows)
        numbers = np.empty(len(rows), np.int64)
        numbers[rank] = np.arange(first, first + len(rows))
        rows = rows[rank]
        if len(rows):
            made = what[rows] == BIRTH
            self.table.extend(
                pfn=pfn[rows],
                born_ts=np.where(made, ts[rows], 0),
                born=np.where(made, order[rows], -1),
                died_ts=0,
                died=NEVER,
            )
        return numbers

    def _carry(self, concerned: Indices, numbers: Indices, last: dict[int, int]) -> None:
        """Keep what is open: what was, less the `concerned`, with those of `numbers` alive."""
        alive = numbers[self.table["died"][numbers] == NEVER]
        counts = np.array([last.get(number, 0) for number in alive.tolist()] if last else 0)
        kept = np.ones(len(self._open), bool)
        kept[concerned] = False
        opened = np.concatenate((self._open[kept], alive))
        mapcounts = np.concatenate(
            (self._shared_mapcount[kept], np.broadcast_to(counts, alive.shape).astype(np.uint32))
        )
        order = np.argsort(opened)
        self._open, self._shared_mapcount = opened[order], mapcounts[order]


def _mapcounts(
    by_frame: Indices,
    code: npt.NDArray[np.uint8],
    page: Indices,
    carried_mapcount: npt.NDArray[np.uint32],
    mapcount: npt.NDArray[np.uint32],
    second: Mask,
) -> tuple[Mask, Mask, dict[int, int]]:
    """Settle the mappings of pages that a fork shared when they became KSM pages.

    Such a page's other mappings are attached later without being new: its mapcount stays. Returns
    which did, which can't be told, and the last mapcounts, by number of KSM page.
    """
    same, odd = np.zeros(len(mapcount), bool), np.zeros(len(mapcount), bool)
    if not (carried_mapcount.any() or (second & (mapcount > 2)).any()):
        return same, odd, {}
    carried = len(carried_mapcount)
    rows = np.flatnonzero((code == _CARRIED) | (code == JOIN))
    number, event = page[rows], by_frame[rows] - carried
    # Two KSM pages on one frame: each one's rows together.
    apart = stable_order(number.astype(np.uint64))
    number, event = number[apart], event[apart]
    was_open = event < 0
    count = np.zeros(len(event), np.int64)
    count[was_open] = carried_mapcount[event[was_open] + carried]
    count[~was_open] = mapcount[event[~was_open]]
    shared_birth = np.zeros(len(event), bool)
    shared_birth[~was_open] = second[event[~was_open]] & (count[~was_open] > 2)
    begins = (was_open & (count > 0)) | shared_birth
    begun = _within(np.cumsum(begins), begins, group_starts(number.astype(np.uint64))) > 0
    later = begun & ~begins
    before = np.concatenate(([0], count[:-1]))
    same[event[later]] = count[later] == before[later]
    odd[event[later]] = ~np.isin(count[later] - before[later], (0, 1))
    last = np.flatnonzero(np.append(number[1:] != number[:-1], np.ones(min(1, len(number)), bool)))
    last = last[begun[last]]
    return same, odd, dict(zip(number[last].tolist(), count[last].tolist(), strict=True))


def _forget(frame_at: U64, frames: U64, shift: np.uint64) -> None:
    """Take frames out of a table of `_plain_joins`."""
    slot = (frames * _SPREAD) >> shift
    frame_at[slot[frame_at[slot] == frames]] = 0


@dataclass(frozen=True)
class _Begun:
    """creator: rows that begin a KSM page. latest, oldest: indices into these, for each row."""

    creator: Mask
    latest: Indices
    oldest: Indices


def _within(running: Indices, own: Mask, start: Indices) -> Indices:
    """A running count over all rows as one within each group, the row itself included."""
    counts: Indices = running - (running[start] - own[start])
    return counts
