"""The open stream of a BPF backend: a ring to read, and losses to fetch at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from ksmtrace.capture.libbpf import BpfObject
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
    """What the backends with BPF programs hand out: see `EventStream`.

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


@contextmanager
def object_stream(
    loaded: BpfObject,
    ring_bytes: int,
    detach: Callable[[], None],
    may_miss: Collection[str] = (),
) -> Iterator[BpfStream]:
    """The stream of a loaded object that has the maps of bpf/libbpf.h.

    may_miss: programs that the kernel leaves out where they interrupt themselves; what they missed
    is lost too.
    """
    events = loaded.map_fd("events")

    def losses() -> dict[int, int]:
        rows = loaded.read_per_cpu("cpu_states", 3)
        lost = {cpu: told for cpu, (told, *_) in enumerate(rows)}
        lost[0] += sum(map(loaded.misses, may_miss))
        return lost

    with Ring(events, ring_bytes) as ring:
        yield BpfStream(ring, events, detach=detach, losses=losses)
