"""The fast engine's events: those of the model, and batches that compiled code made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.model.clock import Clock
from ksmtrace.model.stream import ModelStream

Consumer = Callable[[EventBatch], None]


class FastStream(ModelStream):
    """Collects batches until they are taken, or hands each to `consumer` at once.

    counts: events so far by the id of their kind, as `events.batch.counts_by_kind` has them. keep:
    whether there are events at all; without, they are only counted.
    """

    def __init__(self, clock: Clock, kinds: int, consumer: Consumer | None, *, keep: bool) -> None:
        super().__init__(clock)
        self.keep = keep
        self.counts = np.zeros(kinds, np.int64)
        self._consumer = consumer
        self._batches: list[EventBatch] = []

    def add(self, batch: EventBatch) -> None:
        """Events that come next; the array stays the caller's."""
        self._flush()
        if len(batch):
            self._deliver(batch.copy())

    def take(self) -> EventBatch:
        """The events since the last call, unless they went to a consumer or were only counted."""
        self._flush()
        batches, self._batches = self._batches, []
        return concatenate(batches)

    def _flush(self) -> None:
        batch = super().take()
        if len(batch):
            self.counts += np.bincount(batch["kind"], minlength=len(self.counts))
            self._deliver(batch)

    def _deliver(self, batch: EventBatch) -> None:
        if self._consumer is not None:
            self._consumer(batch)
        elif self.keep:
            self._batches.append(batch)
