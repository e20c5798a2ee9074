"""Keeping what was sampled as a recording of one moment: keyed digests and their order.

`ksmtrace simulate` runs the reference scanner on it. Contents themselves are not kept: see
`recording.contents`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import numpy as np
import xxhash

from ksmtrace import __version__
from ksmtrace.inspect.estimate.part import is_same_process
from ksmtrace.inspect.estimate.sample import MemorySample, SampledRegion
from ksmtrace.kernel import host
from ksmtrace.kernel.btf import rmap_item_bytes
from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.kernel.sysfs import HostSampler
from ksmtrace.processes.contents import Page
from ksmtrace.processes.memory import ProcessMemory
from ksmtrace.recording.contents import ContentBook
from ksmtrace.recording.pseudonyms import Pseudonyms
from ksmtrace.recording.target import Target
from ksmtrace.recording.writer import RecordingWriter

BACKEND = "estimate"
_OWN_FRAME = 1 << 40
"""Frames from here on are made up: the host has none there."""
_MOVING_FRAME = 1 << 52
_PAGES_OF_PROCESS = 1 << 40
"""Pages that change are in frames of their own."""


def save_snapshot(
    sample: MemorySample, target: Target, progress: Callable[[str], None] = lambda _words: None
) -> None:
    """Write the sampled pages. sample: with numbers.

    Pages that changed between the two samples are looked at twice more, as far apart: those that
    changed again have two rows, which is how a recording tells that a page goes on changing. What
    is merged now is kept as pages of their own, as if nothing had been merged yet. Pages that fork
    shares stay shared, where frames are known. Raises KsmtraceError where it can't be written: half
    a snapshot is none, so it is removed.
    """
    begun = time.monotonic()
    sampler = HostSampler()
    namer = Pseudonyms()
    writer = RecordingWriter(target, _facts(sampler), namer, partial=False)
    try:
        _write_host(sample, writer, sampler)
        with writer.disk_errors(), closing(ContentBook(namer, writer.folder)) as book:
            kept = _write_contents(sample, writer, book, progress)
            progress("sorting contents")
            for rows in book.ranks():
                writer.table("ranks", rows)
        notes = _notes(sample, kept)
        writer.finish(
            "snapshot",
            {
                "duration_s": round(time.monotonic() - begun, 6),
                "clock_end": _clock(),
                "command_status": None,
                "rmap_item_bytes": rmap_item_bytes(),
                "notes": notes,
                "censuses": [],
            },
        )
    except BaseException as error:
        writer.abandon(f"error: {type(error).__name__}")
        raise
    finally:
        sampler.close()


def _write_contents(
    sample: MemorySample,
    writer: RecordingWriter,
    book: ContentBook,
    progress: Callable[[str], None],
) -> int:
    """Rows of all pages. Returns how many pages have one."""
    kept = 0
    looked = time.monotonic()
    for position, process in enumerate(sample.processes):
        progress(f"keeping digests of {process.identity.tgid} {process.identity.comm}")
        pages: Iterator[Page] = chain(_moving_of(sample, position), _pages_of(sample, position))
        for row in book.rows(time.monotonic_ns(), 0, "before", process.identity.tgid, pages):
            writer.table("contents", [row])
            kept += 1
    if any(len(numbers) for region in sample.regions for numbers in region.moving):
        progress("waiting, to see what goes on changing")
        time.sleep(max(0.0, looked + sample.interval - time.monotonic()))
    for position, process in enumerate(sample.processes):
        again, tgid = _moving_of(sample, position), process.identity.tgid
        for row in book.rows(time.monotonic_ns(), 1, "after", tgid, again, whole=False):
            writer.table("contents", [row])
    return kept


def _notes(sample: MemorySample, kept: int) -> list[str]:
    moving = sum(len(numbers) for region in sample.regions for numbers in region.moving)
    left_out = len(sample.digests) + moving - kept
    notes = []
    if left_out > 0:
        notes.append(f"{left_out:,} sampled pages changed or went away before they were kept")
    if sample.fraction < 1:
        notes.append(f"a sample of {sample.fraction:.2%} of all contents")
    return notes


def _write_host(sample: MemorySample, writer: RecordingWriter, sampler: HostSampler) -> None:
    ts = time.monotonic_ns()
    knobs = {f"knob_{name}": value for name, value in sampler.knobs().items()}
    writer.table("counters", [{"ts": ts, "reason": "start", **sampler.counters(), **knobs}])
    for process in sample.processes:
        row = asdict(process.identity) | {"ts": ts, "what": "present", "cmdline": None}
        writer.table("identities", [row])
    for number, region in enumerate(sample.regions):
        if sample.bounds[number] < sample.bounds[number + 1]:
            tgid = sample.processes[region.process].identity.tgid
            row = {"ts": ts, "tgid": tgid, "start": region.start, "end": region.end}
            row |= {"name": region.name, "mergeable": region.mergeable}
            writer.table("regions", [row])


def _pages_of(sample: MemorySample, position: int) -> Iterator[Page]:
    """A process's sampled pages, as long as they hold what was digested."""
    assert sample.numbers is not None
    for number, region, memory in _readable(sample, position):
        begin, end = (int(n) for n in sample.bounds[number : number + 2])
        yield from _pages(sample, memory, begin, end, merged=region.ksm > 0)


def _moving_of(sample: MemorySample, position: int) -> Iterator[Page]:
    """A process's pages that changed between the samples, as they are now."""
    for _, region, memory in _readable(sample, position):
        for numbers in region.moving:
            for at, view in memory.read(numbers):
                for offset in range(0, len(view), PAGE_BYTES):
                    number = int(numbers[at + offset // PAGE_BYTES])
                    data = bytes(view[offset : offset + PAGE_BYTES])
                    frame = _MOVING_FRAME + position * _PAGES_OF_PROCESS + number
                    yield Page(number * PAGE_BYTES, frame, ksm=False, data=data)


def _readable(
    sample: MemorySample, position: int
) -> Iterator[tuple[int, SampledRegion, ProcessMemory]]:
    """A process's regions, by number, as long as it is there and may be read."""
    identity = sample.processes[position].identity
    if not is_same_process(identity.tgid, identity.start_ticks):
        return
    try:
        with ProcessMemory(identity.tgid) as memory:
            for number, region in enumerate(sample.regions):
                if region.process == position:
                    yield number, region, memory
    except OSError:
        return


def _pages(
    sample: MemorySample, memory: ProcessMemory, begin: int, end: int, *, merged: bool
) -> Iterator[Page]:
    assert sample.numbers is not None
    numbers = sample.numbers[begin:end]
    for at, view in memory.read(numbers):
        for offset in range(0, len(view), PAGE_BYTES):
            position = begin + at + offset // PAGE_BYTES
            data = bytes(view[offset : offset + PAGE_BYTES])
            if xxhash.xxh3_64_intdigest(data) != int(sample.digests[position]):
                continue
            own = merged or sample.frames is None
            frame = _OWN_FRAME + position if own else int(np.asarray(sample.frames)[position])
            yield Page(int(sample.numbers[position]) * PAGE_BYTES, frame, ksm=False, data=data)


def _clock() -> dict[str, int]:
    return {"monotonic_ns": time.monotonic_ns(), "wall_ns": time.time_ns()}


def _facts(sampler: HostSampler) -> dict[str, Any]:
    return {
        "ksmtrace": __version__,
        "kernel": host.kernel_release(),
        "kernel_build": host.kernel_build(),
        "machine": host.machine(),
        "cpus": host.CPUS,
        "memory_bytes": host.memory_bytes(),
        "page_bytes": PAGE_BYTES,
        "backend": BACKEND,
        "backend_why": "a snapshot of what pages hold; nothing was traced",
        "fields_unknown": [],
        "pseudonyms": True,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "clock": _clock(),
        "ring_bytes": 0,
        "only_pids": None,
        "command": None,
        "knobs": sampler.knobs(),
        "knobs_set": {},
    }
