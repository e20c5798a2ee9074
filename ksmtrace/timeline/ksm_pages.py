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
_OF_THE_PAIR = 2
"""Mappings of a new KSM page: the page it was made of, and that page's twin."""


def surely_new(unshared: Mask, own: Mask, born_ts: U64, entered_ts: U64) -> Mask:
    """For pages that ksmd had seen before: whether none was a mapping of the KSM page already.

    unshared: the KSM page was made of a frame that was nobody else's. own: of a page of the same
    address space. born_ts: when, 0 if not known. entered_ts: when that address space began.
    """
    # Only where a fork had shared the frame is there such a mapping that ksmd knew otherwise.
    # No process has a frame twice, and ksmd sees what is forked later for the first time.
    sure: Mask = unshared | own | ((born_ts != 0) & (entered_ts > born_ts))
    return sure


class KsmPages:
    """The KSM pages of a stream, numbered as they appear.

    ksmd finds a dead page late: its frame may be another KSM page by then. So of several on one
    frame the oldest is the one found dead, the newest the one that is mapped. A page that is
    mapped or found dead without having been made was there before. Columns: pfn, born_ts and born
    (order) or 0 and -1 for before, died_ts or 0, died (order) or NEVER; maker: the address space
    whose page it was made of, -1 unknown; unshared: that page's frame was known to be nobody else's
    when it was made.
    """

    def __init__(self) -> None:
        self.table = GrowingTable(
            {
                "pfn": np.uint64,
                "born_ts": np.uint64,
                "born": np.int64,
                "died_ts": np.uint64,
                "died": np.int64,
                "maker": np.int32,
                "unshared": bool,
            }
        )
        self._open = np.empty(0, np.int64)

    def assign(self, pfn: U64, what: npt.NDArray[np.uint8], ts: U64, order: Indices) -> Indices:
        """Number the KSM pages of events, in the stream's order.

        what: BIRTH, JOIN, GONE, LEFT or WRITTEN.
        """
        page = np.full(len(pfn), -1, np.int64)
        plain, creator = self._plain_joins(pfn, what)
        rest = np.flatnonzero(~plain)
        opened = self._open
        if len(rest):
            frames = distinct(pfn[rest])
            at = np.minimum(np.searchsorted(frames, self.table["pfn"][opened]), len(frames) - 1)
            concerned = np.flatnonzero(frames[at] == self.table["pfn"][opened])
            page[rest] = self._sorted(concerned, pfn[rest], what[rest], ts[rest], order[rest])
        # Those of the chunk stand before those that were open.
        page[plain] = np.concatenate((page, opened))[creator]
        return page

    def made(self, page: Indices, maker: Indices) -> None:
        """Note of whose page, by its address space, each KSM page was made."""
        self.table["maker"][page] = maker

    def mapped_first(self, page: Indices, mapcount: Indices) -> None:
        """Note the mapcount of each KSM page just after its partner was mapped; 0: unknown."""
        self.table["unshared"][page] = mapcount == _OF_THE_PAIR

    def surely_not_mapped(self, page: Indices, space: Indices, entered_ts: U64) -> Mask:
        """For pages that ksmd had seen before: whether none was a mapping of the KSM page already.

        page, space: the KSM page, and who merged a page with it. entered_ts: when each of these
        address spaces was seen to begin, 0 if it was not. What a page's mapcount becomes is no
        evidence: others fork, write and exit unseen.
        """
        table = self.table
        own: Mask = table["maker"][page] == space
        return surely_new(table["unshared"][page], own, table["born_ts"][page], entered_ts)

    def _plain_joins(self, pfn: U64, what: npt.NDArray[np.uint8]) -> tuple[Mask, Indices]:
        """JOINs of frames that are one KSM page all the time, and what makes them it.

        Those are most of a stream, and need no sorting: a table finds the one open KSM page, or the
        one birth, by a hash of the frame. Returns which events they are, and for each of them the
        row of the birth, or the number of rows plus its place among the open ones.
        """
        births = np.flatnonzero(what == BIRTH)
        frames = np.concatenate((pfn[births], self.table["pfn"][self._open]))
        creators = np.concatenate((births, len(pfn) + np.arange(len(self._open))))
        single = ~(self._ambiguous(frames) | (frames == 0))
        bits = max(10, 2 + int(single.sum()).bit_length())
        shift = np.uint64(64 - bits)
        frame_at = np.zeros(1 << bits, np.uint64)
        creator_at = np.zeros(1 << bits, np.int64)
        slot = (frames[single] * _SPREAD) >> shift
        frame_at[slot] = frames[single]
        creator_at[slot] = creators[single]
        # Whatever else is said of a frame may change what its number means.
        _forget(frame_at, pfn[(what == LEFT) | (what == WRITTEN)], shift)
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
    ) -> Indices:
        """Number KSM pages by going through each frame's events. concerned: of the open ones."""
        carried = len(concerned)
        opened = self._open[concerned]
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
        self._carry(concerned, numbers)
        return in_order[carried:]

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
                maker=-1,
                unshared=False,
            )
        return numbers

    def _carry(self, concerned: Indices, numbers: Indices) -> None:
        """Keep what is open: what was, less the `concerned`, with those of `numbers` alive."""
        alive = numbers[self.table["died"][numbers] == NEVER]
        kept = np.ones(len(self._open), bool)
        kept[concerned] = False
        self._open = np.sort(np.concatenate((self._open[kept], alive)))


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
