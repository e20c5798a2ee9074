"""What the events of a capture add up to, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ksmtrace.capture.sums import StreamSums
from ksmtrace.events.batch import EventBatch, counts_by_kind, lost_count, of_kind
from ksmtrace.events.registry import (
    BY_ID,
    COW_BREAK,
    KINDS,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
)
from ksmtrace.exporter.breaks import BreaksByProcess
from ksmtrace.exporter.metrics import SCAN_SECONDS
from ksmtrace.timeline.merging import Merges

Counts = npt.NDArray[np.int64]


@dataclass
class Totals:
    """Sums since the capture began. scans: ended in each bucket of SCAN_SECONDS, and beyond.

    kinds: events by the kind's id.
    """

    kinds: Counts = field(default_factory=lambda: np.zeros(len(KINDS) + 1, np.int64))
    scans: Counts = field(default_factory=lambda: np.zeros(len(SCAN_SECONDS) + 1, np.int64))
    scan_seconds: float = 0.0
    merges: int = 0
    zero_merges: int = 0
    failed_merges: int = 0
    lost: int = 0

    def by_kind(self) -> dict[str, int]:
        """Events by the kind's name; what tells of losses is none."""
        counted = ((kind, int(self.kinds[number])) for number, kind in BY_ID.items())
        return {kind.name: count for kind, count in counted if kind is not LOST}


class EventSums(StreamSums):
    """Takes a capture's batches; may be asked from other threads. breaks: None without --cow."""

    def __init__(self, breaks: BreaksByProcess | None = None) -> None:
        super().__init__()
        self._totals = Totals()
        self._breaks = breaks
        self._scan: tuple[int, int] | None = None

    def totals(self) -> Totals:
        """The sums so far, a copy."""
        with self._lock:
            now = self._totals
            return Totals(
                **{**vars(now), "kinds": now.kinds.copy(), "scans": now.scans.copy()},
            )

    def breaks(self) -> tuple[list[tuple[str, str, int]], int] | None:
        """Breaks of the listed processes (tgid, comm, how many) and of all others."""
        if self._breaks is None:
            return None
        with self._lock:
            return self._breaks.listed(), self._breaks.others

    def _count(self, batch: EventBatch) -> None:
        counts = counts_by_kind(batch)
        self._totals.kinds += counts
        if counts[LOST.id]:
            self._totals.lost += lost_count(batch)
        if counts[KSM_START_SCAN.id] or counts[KSM_STOP_SCAN.id]:
            self._time_scans(batch[of_kind(batch, KSM_START_SCAN, KSM_STOP_SCAN)])
        if self._breaks is not None and counts[COW_BREAK.id]:
            self._breaks.take(batch["tgid"][of_kind(batch, COW_BREAK)])

    def _time_scans(self, borders: EventBatch) -> None:
        for kind, ts, seq in zip(
            *(borders[c].tolist() for c in ("kind", "ts", "addr")), strict=True
        ):
            if kind == KSM_START_SCAN.id:
                self._scan = ts, seq
                continue
            # Of another number: the start, or this one's, was lost or before our time.
            if self._scan is not None and self._scan[1] == seq:
                seconds = (ts - self._scan[0]) / 1e9
                self._totals.scans[np.searchsorted(SCAN_SECONDS, seconds)] += 1
                self._totals.scan_seconds += seconds
            self._scan = None

    def _merge(self, _events: EventBatch, merges: Merges) -> None:
        totals = self._totals
        totals.failed_merges += int(merges.failed.sum())
        totals.merges += int(merges.stood.sum())
        totals.zero_merges += int((merges.zero & ~merges.failed).sum())
