"""What the events of a run add up to, counted as they come; nothing is kept."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ksmtrace.events.batch import EventBatch, concatenate, counts_by_kind, empty, lost_count
from ksmtrace.events.registry import KSM_STOP_SCAN, LOST
from ksmtrace.inspect.stat.figures import EventCounts
from ksmtrace.timeline.merging import Columns, Merges, whole_pairs


class EventTally:
    """Takes batches in the stream's order, however cut; gives the same counts.

    tgids_known: whether the source tells whose page an event is about.
    """

    def __init__(self, *, tgids_known: bool) -> None:
        self._tgids_known = tgids_known
        self._tail = empty()
        self._merges = self._zero = self._failed = self._scans = self._lost = 0
        self._by_tgid: dict[int, int] = {}

    def take(self, batch: EventBatch) -> None:
        """Take a batch; its memory may be used again after that."""
        if not len(batch):
            return
        events = concatenate([self._tail, batch]) if len(self._tail) else batch
        # A new KSM page is two events: whether the first stood, only the second tells.
        whole = whole_pairs(_columns(events), len(events))
        self._tail = events[whole:].copy()
        self._count(events[:whole])

    def counts(self, own: Collection[int] | None) -> EventCounts:
        """The counts; nothing more may be taken. own: the watched processes, None if none are."""
        self._count(self._tail)
        self._tail = empty()
        known = own is not None and self._tgids_known
        return EventCounts(
            merges=self._merges,
            zero_merges=self._zero,
            failed_merges=self._failed,
            scans=self._scans,
            lost=self._lost,
            own_merges=sum(self._by_tgid.get(t, 0) for t in own or ()) if known else None,
        )

    def _count(self, events: EventBatch) -> None:
        if not len(events):
            return
        kinds = counts_by_kind(events)
        self._scans += int(kinds[KSM_STOP_SCAN.id])
        if kinds[LOST.id]:
            self._lost += lost_count(events)
        parted = np.flatnonzero((events["kind"] == LOST.id) | (events["kind"] == KSM_STOP_SCAN.id))
        merges = Merges(_columns(events), np.arange(len(events)), parted)
        zero = merges.zero & (events["err"] >= 0)
        self._merges += int(merges.stood.sum())
        self._zero += int(zero.sum())
        self._failed += int(merges.failed.sum())
        if self._tgids_known:
            tgids, counts = np.unique(events["tgid"][merges.stood | zero], return_counts=True)
            for tgid, count in zip(tgids.tolist(), counts.tolist(), strict=True):
                self._by_tgid[tgid] = self._by_tgid.get(tgid, 0) + count


def _columns(events: EventBatch) -> Columns:
    return {name: events[name] for name in ("kind", "err", "arg", "pfn")}
