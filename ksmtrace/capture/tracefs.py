"""The `tracefs` backend: no BPF, only the kernel's own trace files.

A tracing instance of our own keeps us out of everybody else's way. It is locked while in use; one
that is not locked is a killed run's and is removed at the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ksmtrace.capture.trace_pages import (
    NOT_IN_RECORDS,
    ParsedPages,
    TraceFormat,
    parse_format,
    parse_pages,
)
from ksmtrace.errors import Exit, KsmtraceError, Obstacle, host_cannot
from ksmtrace.events.batch import EventBatch, concatenate, empty, of_kind
from ksmtrace.events.registry import KSM_ENTER, LOST, TRACEPOINTS
from ksmtrace.kernel import host
from ksmtrace.processes.registered import registered_tgids

_PREFIX = "ksmtrace-"
_NAMES = tuple(kind.name for kind in TRACEPOINTS)
_MOST_PAGES = 1024
_LEAST_KIB = 1024
_END_OF_TIME = (1 << 64) - 1


class TracefsSource:
    """Events without addresses, and with owners only where a ksm_enter proves them."""

    name: ClassVar[str] = "tracefs"
    summary: ClassVar[str] = "no BPF: no addresses, few owners"
    fields_unknown: ClassVar[tuple[str, ...]] = NOT_IN_RECORDS

    def check(self) -> list[Obstacle]:
        """See `Source.check`."""
        obstacles = host.ksm_obstacles()
        mounted = host.tracefs()
        if mounted is None:
            return [*obstacles, host.tracefs_obstacle()]
        if not os.access(mounted / "instances", os.W_OK):
            obstacles.append(Obstacle("tracefs can't be written", "run with sudo"))
        elif not obstacles and not host.ksm_tracepoints(_NAMES):
            obstacles.append(host.tracepoint_obstacle())
        return obstacles

    @contextmanager
    def open(self, *, ring_bytes: int) -> Iterator[TracefsStream]:
        """See `Source.open`."""
        mounted = host.tracefs()
        if mounted is None:
            raise host_cannot([host.tracefs_obstacle()], "trace KSM with the tracefs backend")
        remove_stale_instances(mounted)
        with _instance(mounted) as folder:
            try:
                (folder / "trace_clock").write_text("mono")
                # ksmd is on one CPU at a time: each needs room for a burst.
                kib = max(ring_bytes // 1024 // host.CPUS, _LEAST_KIB)
                (folder / "buffer_size_kb").write_text(str(kib))
                stream = TracefsStream(folder)
            except OSError as error:
                raise KsmtraceError(
                    f"tracefs refused: {error.strerror} ({error.filename})",
                    "ask for a smaller buffer with --ring, in MiB, or use another backend",
                    Exit.HOST_CANNOT,
                ) from None
            try:
                yield stream
            finally:
                stream.close()


@contextmanager
def _instance(mounted: Path) -> Iterator[Path]:
    folder = mounted / "instances" / f"{_PREFIX}{os.getpid()}"
    try:
        folder.mkdir()
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise KsmtraceError(
            f"no tracing instance could be made: {error.strerror} ({folder})",
            "run as root on the host, or use another backend",
            Exit.HOST_CANNOT,
        ) from None
    try:
        yield folder
    finally:
        os.close(lock)
        folder.rmdir()


def remove_stale_instances(mounted: Path | None = None) -> list[str]:
    """Remove instances that killed runs left behind; returns their names."""
    mounted = mounted or host.tracefs()
    if mounted is None:
        return []
    removed = []
    for folder in mounted.glob(f"instances/{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(lock)
            folder.rmdir()
            removed.append(folder.name)
    return removed


class TracefsStream:
    """An instance's buffers, one a CPU, merged by time."""

    exhausted = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stopped = False
        self._formats: dict[int, TraceFormat] = {}
        for kind in TRACEPOINTS:
            place = folder / "events" / "ksm" / kind.name
            if place.is_dir():
                known = parse_format(kind, (place / "format").read_text())
                self._formats[known.number] = known
        self._page_bytes = _subbuffer_bytes(folder)
        self._files = {
            int(place.name.removeprefix("cpu")): os.open(
                place / "trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            )
            for place in sorted(folder.glob("per_cpu/cpu*"))
        }
        self._held = ParsedPages(empty(), np.empty(0, np.int32))
        (folder / "events" / "ksm" / "enable").write_text("1")
        # Only now: who registers while we look is then in doubt, not wrongly believed to be new.
        self._owners = _Owners(frozenset(registered_tgids()))

    def fileno(self) -> int | None:
        """See `EventStream.fileno`: tracefs is polled."""
        return None

    def read(self) -> EventBatch:
        """See `EventStream.read`. Events of the last moment wait for other CPUs' to be compared."""
        return self._read(_END_OF_TIME if self._stopped else time.monotonic_ns())

    def stop(self) -> None:
        """See `EventStream.stop`."""
        (self._folder / "events" / "ksm" / "enable").write_text("0")
        self._stopped = True

    def _read(self, cutoff: int) -> EventBatch:
        parts = [self._held]
        for cpu, file in self._files.items():
            pages = self._read_pages(file)
            parts.append(parse_pages(pages, cpu, self._formats))
            if len(pages) == _MOST_PAGES and len(parts[-1].events):
                # There is more on this CPU: nothing later may overtake it.
                cutoff = min(cutoff, int(parts[-1].events["ts"][-1]))
        events = concatenate([part.events for part in parts])
        pids = np.concatenate([part.pids for part in parts])
        order = np.argsort(events["ts"], kind="stable")
        events, pids = events[order], pids[order]
        ready = int(np.searchsorted(events["ts"], cutoff, "right"))
        self._held = ParsedPages(events[ready:], pids[ready:])
        self._owners.fill(events[:ready], pids[:ready])
        return events[:ready]

    def _read_pages(self, file: int) -> npt.NDArray[np.uint8]:
        pages: list[bytes] = []
        while len(pages) < _MOST_PAGES:
            try:
                page = os.read(file, self._page_bytes)
            except BlockingIOError:
                break
            if not page:
                break
            pages.append(page.ljust(self._page_bytes, b"\0"))
        return np.frombuffer(b"".join(pages), np.uint8).reshape(-1, self._page_bytes)

    def close(self) -> None:
        """Stop tracing and close the buffers, so that the instance can go."""
        with contextlib.suppress(OSError):
            (self._folder / "events" / "ksm" / "enable").write_text("0")
        for file in self._files.values():
            os.close(file)
        self._files.clear()


def _subbuffer_bytes(folder: Path) -> int:
    """Bytes of one buffer page; more than a page can be configured since 6.8."""
    text = host.read_text(folder / "buffer_subbuf_size_kb")
    return int(text) * 1024 if text else host.PAGE_BYTES


class _Owners:
    """Which process an mm belongs to, as far as a ksm_enter proves it.

    The record's own task is the one that enters: by madvise or prctl its own mm, by fork its
    child's, by exec its next. So an enter proves an owner only if that process was not registered
    before.
    """

    def __init__(self, registered: frozenset[int]) -> None:
        self._taken = set(registered)
        self._of_mm: dict[int, int] = {}

    def fill(self, events: EventBatch, pids: npt.NDArray[np.int32]) -> None:
        """Write owners into a batch."""
        # An address of a dead mm is used again: each enter counts from its place on. After a loss
        # an enter may have been missed, so nothing that was known before holds.
        labelled = 0
        for row in np.flatnonzero(of_kind(events, KSM_ENTER, LOST)).tolist():
            self._label(events[labelled:row])
            labelled = row
            if events["kind"][row] == LOST.id:
                self._of_mm.clear()
            else:
                self._enter(int(events["mm"][row]), int(pids[row]))
        self._label(events[labelled:])

    def _label(self, events: EventBatch) -> None:
        if not self._of_mm or not len(events):
            return
        known = np.array(sorted(self._of_mm), np.uint64)
        tgids = np.array([self._of_mm[mm] for mm in known.tolist()], np.uint32)
        where = np.minimum(np.searchsorted(known, events["mm"]), len(known) - 1)
        events["tgid"] = np.where(known[where] == events["mm"], tgids[where], 0)

    def _enter(self, mm: int, pid: int) -> None:
        tgid = _tgid_of(pid)
        if tgid is not None and self._of_mm.get(mm) == tgid:
            return
        self._of_mm.pop(mm, None)
        if tgid is not None and tgid not in self._taken:
            self._of_mm[mm] = tgid
            self._taken.add(tgid)


def _tgid_of(pid: int) -> int | None:
    text = host.read_text(Path(f"/proc/{pid}/status")) or ""
    line = next((line for line in text.splitlines() if line.startswith("Tgid:")), None)
    return int(line.split()[1]) if line else None
