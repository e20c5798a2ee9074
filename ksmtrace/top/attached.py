"""Which attachments to KSM pages are merges, and which a fork had made before ksmd came by."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import FIRST_SIGHT, MAPCOUNT_SHIFT
from ksmtrace.kernel.releases import checksum_comes_first
from ksmtrace.timeline.ksm_pages import surely_new
from ksmtrace.timeline.merging import Merges
from ksmtrace.timeline.sorting import Indices, Mask
from ksmtrace.top.lives import U64
from ksmtrace.top.state import WHATS

_MERGED, _ATTACHED, _INHERITED = map(WHATS.index, ("merged", "attached", "inherited"))
_PAGE = np.dtype([("pfn", "<u8"), ("born", "<u8"), ("maker", "<u8"), ("unshared", "?")])
"""A KSM page. born: ns. maker: mm of the page it was made of."""
_PROBES = 8
_MOST_MMS = 1 << 16
_OF_THE_PAIR = 2
_SPREAD = np.uint64(0x9E3779B97F4A7C15)

Codes = npt.NDArray[np.uint8]


def first_sight_known(unknown: Collection[str], kernel: str) -> bool:
    """Whether what is attached at first sight is known, and surely inherited.

    unknown: fields that the source can't tell.
    """
    return "first_sight" not in unknown and checksum_comes_first(kernel)


class Attachments:
    """Remembers the KSM pages that were made, up to a number of them; of others it can't tell.

    slots: that number, a power of two. first_sight_known: as the function of that name says.
    """

    def __init__(self, slots: int) -> None:
        self.first_sight_known = False
        self._pages = np.zeros(slots, _PAGE)
        self._mask = np.uint64(slots - 1)
        self._entered: dict[int, int] = {}
        self._lost = np.zeros(0, np.uint64)

    def entered(self, events: EventBatch) -> None:
        """Take events of address spaces that came onto ksmd's list."""
        if len(self._entered) + len(events) > _MOST_MMS:
            self._entered.clear()
        self._entered.update(zip(events["mm"].tolist(), events["ts"].tolist(), strict=True))

    def lost(self, ts: U64) -> None:
        """Take losses: what is remembered may not be so after them."""
        self._lost = np.sort(np.concatenate((self._lost[-_PROBES:], ts)))

    def told(self, events: EventBatch, merges: Merges) -> Codes:
        """For merge events: what each is if it stood, as places in WHATS: one of three."""
        what = np.full(len(events), _ATTACHED, np.uint8)
        what[merges.created | merges.second] = _MERGED
        if not self.first_sight_known:
            return what
        joined = merges.stood & ~merges.created & ~merges.second
        at_first_sight = joined & ((events["arg"] & FIRST_SIGHT) != 0)
        what[at_first_sight] = _INHERITED
        seen = np.flatnonzero(joined & ~at_first_sight)
        births = np.flatnonzero(merges.created)
        made = np.zeros(len(births), _PAGE)
        for name, slot in (("pfn", "pfn"), ("born", "ts"), ("maker", "mm")):
            made[name] = events[slot][births]
        seconds = np.flatnonzero(merges.second)
        mapped = (events["arg"][seconds] >> MAPCOUNT_SHIFT) == _OF_THE_PAIR
        at = _last_before(made["pfn"], births, events["pfn"][seconds], seconds)
        made["unshared"][at[at >= 0]] = mapped[at >= 0]
        if len(seen):
            page = self._found(events["pfn"][seen])
            at = _last_before(made["pfn"], births, events["pfn"][seen], seen)
            page[at >= 0] = made[at[at >= 0]]
            what[seen[self._sure(page, events[seen])]] = _MERGED
        if len(made):
            self._remember(made)
        return what

    def _sure(self, page: npt.NDArray[np.void], events: EventBatch) -> Mask:
        ts, born = events["ts"], page["born"]
        mms, which = np.unique(events["mm"], return_inverse=True)
        entered = np.array([self._entered.get(mm, 0) for mm in mms.tolist()], np.uint64)[which]
        # One that came after this, with the same mm, is another.
        entered[entered > ts] = 0
        own = page["maker"] == events["mm"]
        # Where events were lost in between, the frame may be another KSM page by now.
        whole = np.searchsorted(self._lost, born) == np.searchsorted(self._lost, ts)
        sure: Mask = surely_new(page["unshared"], own, born, entered) & (born > 0) & whole
        return sure

    def _slots(self, pfn: U64, probe: int) -> Indices:
        slots: Indices = (
            (((pfn * _SPREAD) >> np.uint64(32)) + np.uint64(probe)) & self._mask
        ).astype(np.int64)
        return slots

    def _found(self, pfn: U64) -> npt.NDArray[np.void]:
        """The newest KSM page on each frame; zeros where none is known."""
        page = np.zeros(len(pfn), _PAGE)
        rest = np.flatnonzero(pfn)
        for probe in range(_PROBES):
            slots = self._slots(pfn[rest], probe)
            there = self._pages["pfn"][slots]
            match = there == pfn[rest]
            page[rest[match]] = self._pages[slots[match]]
            # Nothing is ever taken out: behind a free place there is none.
            rest = rest[~match & (there != 0)]
            if not len(rest):
                break
        return page

    def _remember(self, made: npt.NDArray[np.void]) -> None:
        """Keep what was made, in the stream's order; what it finds no place beside is forgotten."""
        _, newest = np.unique(made["pfn"][::-1], return_index=True)
        made = made[::-1][newest]
        # First where the frame stands already: it must not stand twice.
        rest, kept = np.arange(len(made)), np.zeros(len(made), np.bool_)
        for probe in range(_PROBES):
            slots = self._slots(made["pfn"][rest], probe)
            there = self._pages["pfn"][slots]
            same = there == made["pfn"][rest]
            self._pages[slots[same]] = made[rest[same]]
            kept[rest[same]] = True
            rest = rest[~same & (there != 0)]
        made = made[~kept]
        for probe in range(_PROBES):
            slots = self._slots(made["pfn"], probe)
            free = self._pages["pfn"][slots] == 0
            self._pages[slots[free]] = made[free]
            made = made[self._pages["pfn"][slots] != made["pfn"]]
        self._pages[self._slots(made["pfn"], 0)] = made


def _last_before(frames: U64, births: Indices, pfn: U64, rows: Indices) -> Indices:
    """The place among births of the last one on each frame before a row; -1: none."""
    if not len(births):
        return np.full(len(rows), -1, np.int64)
    order = np.lexsort((births, frames))
    known, numbers = np.unique(frames, return_inverse=True)
    span = np.int64(max(int(births[-1]), int(rows[-1]) if len(rows) else 0) + 1)
    packed = numbers.astype(np.int64)[order] * span + births[order]
    number = np.minimum(np.searchsorted(known, pfn), len(known) - 1).astype(np.int64)
    at = np.searchsorted(packed, number * span + rows) - 1
    found = (at >= 0) & (known[number] == pfn)
    place = order[np.maximum(at, 0)]
    found &= frames[place] == pfn
    last: Indices = np.where(found, place, -1)
    return last
