"""What is added up from a stream as it comes: a base for whoever keeps sums and not events."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import numpy as np

from ksmtrace.events.batch import EventBatch, concatenate, empty, of_kind
from ksmtrace.events.registry import (
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_STOP_SCAN,
    LOST,
)
from ksmtrace.timeline.merging import Columns, Merges, whole_pairs


class StreamSums(ABC):
    """Takes a stream's batches, in any split; may be asked from other threads, under `_lock`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = empty()

    def take(self, batch: EventBatch) -> None:
        """Add a batch; an empty one says that for now there is no more."""
        quiet = not len(batch)
        if quiet and not len(self._held):
            return
        with self._lock:
            self._count(batch)
            events = concatenate([self._held, batch])
            # The halves of a new KSM page come at once: what is quiet now is complete.
            taken = len(events) if quiet else whole_pairs(_columns(events), len(events))
            rows = np.flatnonzero(
                of_kind(events[:taken], KSM_MERGE_WITH_KSM_PAGE, KSM_MERGE_ONE_PAGE)
            )
            if len(rows):
                parted = np.flatnonzero(of_kind(events[:taken], LOST, KSM_STOP_SCAN))
                about = events[rows]
                self._merge(about, Merges(_columns(about), rows, parted))
            self._held = events[taken:].copy()

    @abstractmethod
    def _count(self, batch: EventBatch) -> None:
        """Add events of every kind, as they come."""

    @abstractmethod
    def _merge(self, events: EventBatch, merges: Merges) -> None:
        """Add merge events, once it is known what became of each."""


def _columns(events: EventBatch) -> Columns:
    return {name: events[name] for name in ("kind", "err", "arg", "pfn")}
