"""The `core` backend: one compiled CO-RE object, loaded through libbpf.so.1.

No compiler and no kernel headers are needed on the traced host; libbpf fits the object to the
running kernel with the kernel's own BTF.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ksmtrace.capture import cow
from ksmtrace.capture.bpf_stream import BpfStream, object_stream
from ksmtrace.capture.cow import CowWatch, cow_obstacles
from ksmtrace.capture.libbpf import BpfObject, object_obstacles, required_library
from ksmtrace.errors import Obstacle
from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.kernel import host

OBJECT = Path(__file__).parent.parent / "bpf" / "ksm.bpf.o"
_NAMES = tuple(kind.name for kind in TRACEPOINTS)


class CoreSource:
    """Events from BPF programs on the ksm tracepoints, with addresses and owners.

    watch: see writes to merged pages too (`record --cow`), and say there how that went.
    """

    name: ClassVar[str] = "core"
    summary: ClassVar[str] = "BPF without a compiler: every field, least cost"
    fields_unknown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, watch: CowWatch | None = None) -> None:
        self._watch = watch

    def check(self) -> list[Obstacle]:
        """See `Source.check`."""
        obstacles = host.tracepoint_bpf_obstacles(_NAMES) + object_obstacles(OBJECT)
        return obstacles + (cow_obstacles() if self._watch is not None else [])

    @contextmanager
    def open(self, *, ring_bytes: int) -> Iterator[BpfStream]:
        """See `Source.open`."""
        library = required_library()
        watch = self._watch
        tracepoints = host.ksm_tracepoints(_NAMES)
        if watch is None:
            loaded = BpfObject(library, OBJECT, ring_bytes, tracepoints, without_maps=cow.MAPS)
        else:
            loaded = BpfObject(
                library,
                OBJECT,
                ring_bytes,
                tracepoints,
                further=(cow.PREPARE, *cow.FAULTS, cow.SYSTEM_CALLS),
                otherwise="record without --cow",
            )

        def detach() -> None:
            loaded.detach()
            if watch is not None:
                watch.count(loaded)

        try:
            if watch is not None:
                cow.attach(loaded, watch)
            with object_stream(loaded, ring_bytes, detach) as stream:
                yield stream
        finally:
            loaded.close()
