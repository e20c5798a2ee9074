"""The open stream of a BPF backend: a ring to read, and losses to fetch at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from ksmtrace.capture.ring import Ring
from ksmtrace.events.batch import EVENT, EventBatch
from ksmtrace.events.registry import LOST


def lost_events(losses: Mapping[int, int]) -> EventBatch:
    """`lost` records for losses that no later event could report. losses: count by CPU."""
    told = [(cpu, count) for cpu, count in sorted(losses.items()) if count]
    batch = np.zeros(len(told), EVENT)
    batch["ts"] = time.monotonic_ns()
    batch["kind"] = LOST.id
    for row, (cpu, count) in enumerate(told):
        batch[row]["cpu"] = cpu
        batch[row]["addr"] = count
    return batch


class BpfStream:
    """What `core` and `bcc` hand out: see `EventStream`.

    fd: the ring's descriptor, for polling. detach: stops the programs. losses: events lost on
    each CPU that the programs could not report in the stream yet.
    """

    exhausted = False

    def __init__(
        self,
        ring: Ring,
        fd: int,
        *,
        detach: Callable[[], None],
        losses: Callable[[], Mapping[int, int]],
    ) -> None:
        self._ring = ring
        self._fd = fd
        self._detach = detach
        self._losses: Callable[[], Mapping[int, int]] | None = losses
        self._stopped = False

    def read(self) -> EventBatch:
        """See `EventStream.read`."""
        batch = self._ring.read()
        if self._stopped and not len(batch) and self._losses is not None:
            batch = lost_events(self._losses())
            self._losses = None
        return batch

    def fileno(self) -> int | None:
        """See `EventStream.fileno`."""
        return self._fd

    def stop(self) -> None:
        """See `EventStream.stop`."""
        self._detach()
        self._stopped = True
