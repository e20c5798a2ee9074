"""The `core` backend: one compiled CO-RE object, loaded through libbpf.so.1.

No compiler and no kernel headers are needed on the traced host; libbpf fits the object to the
running kernel with the kernel's own BTF.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ksmtrace.capture.bpf_stream import BpfStream
from ksmtrace.capture.libbpf import BpfObject, load_library, missing_library
from ksmtrace.capture.ring import Ring
from ksmtrace.errors import Obstacle, host_cannot
from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.kernel import host

OBJECT = Path(__file__).parent.parent / "bpf" / "ksm.bpf.o"
_NAMES = tuple(kind.name for kind in TRACEPOINTS)


class CoreSource:
    """Events from BPF programs on the ksm tracepoints, with addresses and owners."""

    name: ClassVar[str] = "core"
    summary: ClassVar[str] = "BPF without a compiler: every field, least cost"
    fields_unknown: ClassVar[tuple[str, ...]] = ()

    def check(self) -> list[Obstacle]:
        """See `Source.check`."""
        obstacles = host.bpf_obstacles(_NAMES)
        if load_library() is None:
            obstacles.append(missing_library())
        if not OBJECT.is_file():
            obstacles.append(Obstacle("the BPF object is not installed", "run `make bpf`"))
        return obstacles

    @contextmanager
    def open(self, *, ring_bytes: int) -> Iterator[BpfStream]:
        """See `Source.open`."""
        library = load_library()
        if library is None:
            raise host_cannot([missing_library()], "load BPF programs")
        loaded = BpfObject(library, OBJECT, ring_bytes, host.ksm_tracepoints(_NAMES))
        try:
            events = loaded.map_fd("events")
            with Ring(events, ring_bytes) as ring:
                yield BpfStream(
                    ring,
                    events,
                    detach=loaded.detach,
                    losses=lambda: {
                        cpu: lost
                        for cpu, (lost, *_) in enumerate(loaded.read_per_cpu("cpu_states", 3))
                    },
                )
        finally:
            loaded.close()
