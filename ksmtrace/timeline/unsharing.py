"""How many merged pages lay in a range when a process unshared it, as far as events tell.

An upper bound: a page whose copy nobody saw being made still counts as merged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.events.batch import EventBatch, concatenate, of_kind
from ksmtrace.events.registry import (
    COW_BREAK,
    KSM_ENTER,
    LEFT_MREMAP,
    LEFT_PRCTL,
    LEFT_UNMERGEABLE,
    RANGE_LEFT,
    VIA_FORK,
    WHOLE_ADDRESS_SPACE,
    ZERO_PAGE,
)
from ksmtrace.timeline.merges import ClassifiedMerges, MergeClassifier

U64 = npt.NDArray[np.uint64]

UNSHARING = (LEFT_UNMERGEABLE, LEFT_PRCTL, LEFT_MREMAP)
"""`how` of a range_left after which the pages are still there, but copied."""

_RECORD = np.dtype([("mm", "<u8"), ("addr", "<u8"), ("ts", "<u8"), ("merged", "?")])
_END = 1 << 63


def unsharing_ranges(batches: Iterable[EventBatch]) -> EventBatch:
    """The range_left events by which processes unshared pages."""
    return concatenate(
        [batch[of_kind(batch, RANGE_LEFT) & np.isin(batch["err"], UNSHARING)] for batch in batches]
    )


@dataclass(frozen=True)
class _Life:
    """An address space from its registration on. parent: the forking process, 0 for none."""

    start: int
    parent: int


class MergedPages:
    """Which pages were merged where and when; only where `ranges` (range_left events) will ask.

    page_bytes: of the recorded host.
    """

    def __init__(self, ranges: EventBatch, page_bytes: int) -> None:
        self._page_bytes = page_bytes
        self._classifier = MergeClassifier(first_sight_known=False, preexisting=None)
        spans = [self._span(one) for one in ranges]
        self._low = min(low for low, _ in spans)
        self._high = max(high for _, high in spans)
        self._parts: list[npt.NDArray[np.void]] = []
        self._records = np.empty(0, _RECORD)
        self._clears: dict[int, list[tuple[int, int, int]]] = {}
        self._lives: dict[int, list[_Life]] = {}
        self._owners: dict[int, dict[int, int]] = {}
        self._census: dict[int, U64] = {}

    def _span(self, event: np.void) -> tuple[int, int]:
        if int(event["arg"]) == WHOLE_ADDRESS_SPACE:
            return 0, _END
        start = int(event["addr"])
        return start, start + int(event["arg"]) * self._page_bytes

    def feed(self, batch: EventBatch) -> None:
        """Take a batch of the stream, from its start on."""
        self._stood(self._classifier.feed(batch))
        breaks = batch[of_kind(batch, COW_BREAK) & ((batch["arg"] & ZERO_PAGE) == 0)]
        self._record(breaks, merged=False)
        left = batch[of_kind(batch, RANGE_LEFT)]
        near = left["arg"] == WHOLE_ADDRESS_SPACE
        ends = left["addr"] + left["arg"].astype(np.uint64) * np.uint64(self._page_bytes)
        near |= (left["addr"] < self._high) & (ends > self._low)
        for event in left[near]:
            low, high = self._span(event)
            cleared = (low, high, int(event["ts"]))
            self._clears.setdefault(int(event["mm"]), []).append(cleared)
        enters = batch[of_kind(batch, KSM_ENTER)]
        for event in enters:
            parent = int(event["addr"]) if int(event["arg"]) == VIA_FORK else 0
            life = _Life(int(event["ts"]), parent)
            self._lives.setdefault(int(event["mm"]), []).append(life)
        self._own(batch[(batch["tgid"] != 0) & (batch["mm"] != 0)])

    def finish(self) -> None:
        """The stream is over: questions may be asked."""
        self._stood(self._classifier.finish())
        if self._parts:
            self._records = np.concatenate(self._parts)
            self._parts.clear()
        order = np.lexsort((self._records["ts"], self._records["addr"], self._records["mm"]))
        self._records = self._records[order]

    def were_merged(self, census: pd.DataFrame) -> None:
        """Rows of the table `census`: what was merged when the recording began."""
        for tgid, rows in census.groupby("tgid"):
            self._census[int(str(tgid))] = np.unique(rows["addr"].to_numpy(np.uint64))

    def count(self, event: np.void) -> int:
        """How many merged pages lay in the range that a range_left event names, just before it."""
        low, high = self._span(event)
        return len(self._merged(int(event["mm"]), low, high, int(event["ts"])))

    def _stood(self, merges: ClassifiedMerges) -> None:
        self._record(merges.events[merges.stood], merged=True)

    def _record(self, events: EventBatch, *, merged: bool) -> None:
        events = events[(events["addr"] >= self._low) & (events["addr"] < self._high)]
        part = np.empty(len(events), _RECORD)
        for name in ("mm", "addr", "ts"):
            part[name] = events[name]
        part["merged"] = merged
        self._parts.append(part)

    def _own(self, events: EventBatch) -> None:
        """Note whose address space is whose."""
        if not len(events):
            return
        changes = np.flatnonzero(
            (events["tgid"][1:] != events["tgid"][:-1]) | (events["mm"][1:] != events["mm"][:-1])
        )
        for event in events[np.concatenate(([0], changes + 1))]:
            mms = self._owners.setdefault(int(event["tgid"]), {})
            mms.setdefault(int(event["mm"]), int(event["ts"]))

    def _life(self, mm: int, ts: int) -> _Life:
        before = [life for life in self._lives.get(mm, ()) if life.start < ts]
        return before[-1] if before else _Life(0, 0)

    def _mm_of(self, tgid: int, ts: int) -> int | None:
        mms = self._owners.get(tgid, {})
        begun = {mm: first for mm, first in mms.items() if first <= ts}
        chosen = begun or mms
        return max(chosen, key=lambda mm: chosen[mm]) if chosen else None

    def _inherited(self, mm: int, life: _Life, low: int, high: int) -> U64:
        """What was merged when a life began: the parent's pages, or the census's."""
        if life.parent:
            parent = self._mm_of(life.parent, life.start)
            if parent is not None and parent != mm:
                return self._merged(parent, low, high, life.start)
            return self._counted(life.parent, low, high)
        if life.start:
            return np.empty(0, np.uint64)
        owners = [tgid for tgid, mms in self._owners.items() if mm in mms]
        found = [self._counted(tgid, low, high) for tgid in owners]
        return found[0] if found else np.empty(0, np.uint64)

    def _counted(self, tgid: int, low: int, high: int) -> U64:
        pages = self._census.get(tgid, np.empty(0, np.uint64))
        return pages[(pages >= low) & (pages < high)]

    def _merged(self, mm: int, low: int, high: int, ts: int) -> U64:
        """The addresses in a range that were merged just before a moment, ascending."""
        life = self._life(mm, ts)
        records = self._records
        begin, end = np.searchsorted(records["mm"], [mm, mm + 1])
        own = records[begin:end]
        begin, end = np.searchsorted(own["addr"], np.array([low, high], np.uint64))
        own = own[begin:end]
        own = own[(own["ts"] >= life.start) & (own["ts"] < ts)]
        last = own[np.append(own["addr"][1:] != own["addr"][:-1], [True])[: len(own)]]
        before = np.setdiff1d(self._inherited(mm, life, low, high), last["addr"])
        since = last[last["merged"]]
        addresses = np.concatenate((before, since["addr"]))
        moments = np.concatenate((np.full(len(before), life.start, np.uint64), since["ts"]))
        for left, right, when in self._clears.get(mm, ()):
            if life.start <= when < ts and left < high and right > low:
                stays = (addresses < left) | (addresses >= right) | (moments >= when)
                addresses, moments = addresses[stays], moments[stays]
        return np.sort(addresses)
