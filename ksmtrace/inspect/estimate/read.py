"""Reading the memory of chosen processes, twice, without changing it."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

import numpy as np

from ksmtrace.errors import KsmtraceError
from ksmtrace.inspect.estimate.part import (
    PART_PAGES,
    Again,
    Part,
    PartRead,
    Piece,
    PieceRead,
    read_part,
    still_the_same,
)
from ksmtrace.inspect.estimate.sample import (
    IS_KSM,
    Frames,
    MemorySample,
    SampledProcess,
    SampledRegion,
)
from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.kernel.sysfs import PROC, read_ksm_stat
from ksmtrace.processes.eligibility import bar_of, is_watched_by_userfaultfd
from ksmtrace.processes.identity import Identity
from ksmtrace.processes.regions import Region, all_regions

BYTES_A_PAGE = 24
"""Most memory that a sampled page takes here: digest, frame, kind, and one number to sort by."""

Work = TypeVar("Work")
Result = TypeVar("Result")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class HowToRead:
    """What a person chose.

    fraction: of contents to sample, 0..1. interval: least seconds between the two samples of a
    page; None: read once. jobs: workers. process_seconds: most time for one process. max_bytes:
    most memory to use. mergeable_only: only regions that are registered now. keep_numbers: page
    numbers are wanted afterwards.
    """

    fraction: float = 1.0
    interval: float | None = 1.0
    jobs: int = 1
    process_seconds: float = 60.0
    max_bytes: int | None = None
    mergeable_only: bool = False
    keep_numbers: bool = False


def read_memory(
    identities: Iterable[Identity],
    how: HowToRead,
    progress: Progress = lambda _words: None,
    between: Callable[[], None] = lambda: None,
) -> MemorySample:
    """Read what the processes hold. Lowers this process's own priority, for good.

    between: called after the first reading; the second waits for it, too.
    What can't be read is told in the sample's tallies and troubles. Raises KsmtraceError if it
    would take more memory than it may.
    """
    os.nice(19)
    return _Reader(how, progress, between).read(identities)


class _Reader:
    def __init__(self, how: HowToRead, progress: Progress, between: Callable[[], None]) -> None:
        self._how = how
        self._between = between
        self._progress = progress
        self._processes: list[SampledProcess] = []
        self._regions: list[SampledRegion] = []
        self._pieces: list[list[PieceRead]] = []
        self._to_read: list[tuple[int, list[Piece]]] = []
        self._expected_bytes = 0
        self._kept_pages = 0

    def read(self, identities: Iterable[Identity]) -> MemorySample:
        begun = time.monotonic()
        for identity in identities:
            self._progress(f"looking at the regions of {identity.tgid} {identity.comm}")
            self._plan(identity)
        self._check_memory()
        bytes_read = self._first_time()
        first_s = time.monotonic() - begun
        interval = 0.0
        if self._how.interval is not None:
            self._between()
            first_s = time.monotonic() - begun
            if (rest := self._how.interval - first_s) > 0:
                self._progress(f"waiting {rest:.0f} s to see which pages change")
                time.sleep(rest)
            interval = time.monotonic() - begun
            self._again()
        return self._sample(bytes_read, interval, time.monotonic() - begun)

    def _plan(self, identity: Identity) -> None:
        process = SampledProcess(identity)
        position = len(self._processes)
        self._processes.append(process)
        try:
            os.close(os.open(PROC / str(identity.tgid) / "mem", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            gone = isinstance(error, FileNotFoundError | ProcessLookupError)
            process.trouble = "went away" if gone else "may not be read"
            return
        counters = read_ksm_stat(identity.tgid) or {}
        process.ksm_merging_pages = counters.get("ksm_merging_pages")
        process.ksm_zero_pages = counters.get("ksm_zero_pages")
        # Exec makes the stack without opting it in, and a program may have unregistered regions.
        registered_only = self._how.mergeable_only or counters.get("ksm_merge_any") == 1
        pieces: list[Piece] = []
        for region in all_regions(identity.tgid):
            known = SampledRegion(position, region.start, region.end, region.name, region.mergeable)
            if _is_read(region, known, registered_only=registered_only):
                pieces += _pieces_of(len(self._regions), region)
                self._expected_bytes += region.anonymous_bytes or 0
            self._regions.append(known)
            self._pieces.append([])
        self._to_read.append((position, pieces))

    def _check_memory(self) -> None:
        needed = int(self._expected_bytes // PAGE_BYTES * BYTES_A_PAGE * self._how.fraction)
        if self._how.max_bytes is not None and needed > self._how.max_bytes:
            share = self._how.max_bytes / needed * self._how.fraction
            raise KsmtraceError(
                f"reading {self._expected_bytes / 2**30:.1f} GiB would take"
                f" {needed / 2**20:,.0f} MiB here, more than --max-memory",
                f"add --sample {max(share * 100 * 0.9, 0.01):.2g}%, or raise --max-memory",
            )

    def _first_time(self) -> int:
        spent = [0.0] * len(self._processes)
        owners: deque[tuple[int, Part]] = deque()
        total, done = max(self._expected_bytes, 1), 0

        def parts() -> Iterator[Part]:
            for position, pieces in self._to_read:
                identity = self._processes[position].identity
                for some in _bundles(pieces):
                    part = Part(identity.tgid, identity.start_ticks, self._how.fraction, some)
                    if spent[position] > self._how.process_seconds:
                        self._too_late(position, part)
                        continue
                    owners.append((position, part))
                    yield part

        for read in _each(self._how.jobs, read_part, parts()):
            position, _part = owners.popleft()
            process = self._processes[position]
            spent[position] += read.seconds
            process.seconds += read.seconds
            process.trouble = process.trouble or read.trouble
            self._take(read)
            done += read.bytes_read
            self._progress(
                f"reading {min(done / total, 1):4.0%}  {done / 2**20:,.0f} MiB"
                f"  {process.identity.comm}"
            )
        return done

    def _take(self, read: PartRead) -> None:
        for found in read.pieces:
            region = found.piece.region
            self._regions[region].tally.add(found.tally)
            if len(found.digests):
                self._kept_pages += len(found.digests)
                self._pieces[region].append(found)
        # Zero-filled pages are all kept, and processes grow.
        if (
            self._how.max_bytes is not None
            and self._kept_pages * BYTES_A_PAGE > self._how.max_bytes
        ):
            raise KsmtraceError(
                f"{self._kept_pages:,} pages were kept so far; more would take more than"
                " --max-memory",
                "lower --sample (zero-filled pages are always kept), or raise --max-memory",
            )

    def _too_late(self, position: int, part: Part) -> None:
        self._processes[
            position
        ].trouble = f"took longer than {self._how.process_seconds:g} s (--process-seconds)"
        for piece in part.pieces:
            pages = (piece.end - piece.start) // PAGE_BYTES
            self._regions[piece.region].tally.late += pages

    def _again(self) -> None:
        """Read what was sampled a second time, and keep only what held still."""
        todo = [(r, found) for r, pieces in enumerate(self._pieces) for found in pieces]
        owners: deque[tuple[int, PieceRead]] = deque()
        spent = [0.0] * len(self._processes)
        total, done = max(self._kept_pages, 1), 0

        def works() -> Iterator[Again]:
            for region, found in todo:
                position = self._regions[region].process
                process = self._processes[position]
                if spent[position] > self._how.process_seconds:
                    process.trouble = (
                        f"took longer than {self._how.process_seconds:g} s (--process-seconds) the"
                        " second time: not all that changes is known"
                    )
                    continue
                owners.append((region, found))
                identity = process.identity
                yield Again(identity.tgid, identity.start_ticks, found.numbers, found.digests)

        for same, seconds in _each(self._how.jobs, still_the_same, works()):
            region, found = owners.popleft()
            known = self._regions[region]
            spent[known.process] += seconds
            done += len(found.digests)
            if same is None:
                self._processes[known.process].trouble = "went away before it was read again"
                continue
            if not same.all():
                known.changed += int((~same).sum())
                if self._how.keep_numbers:
                    known.moving.append(found.numbers[~same])
                found.keep(same)
            self._progress(f"reading again {done / total:4.0%}")
        for position, process in enumerate(self._processes):
            if process.trouble is not None and process.trouble.startswith("went away"):
                self._forget(position)

    def _forget(self, position: int) -> None:
        """A process that is gone has nothing to save: its pages count as not reached."""
        for region, pieces in zip(self._regions, self._pieces, strict=True):
            if region.process == position:
                pieces.clear()
                region.changed = 0
                region.moving.clear()
                region.tally.late += region.tally.candidates
                region.tally.candidates = 0

    def _sample(self, bytes_read: int, interval: float, seconds: float) -> MemorySample:
        lengths = [sum(len(found.digests) for found in pieces) for pieces in self._pieces]
        bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        everything = [found for pieces in self._pieces for found in pieces]
        for region, pieces in zip(self._regions, self._pieces, strict=True):
            region.ksm = sum(int(((found.kinds & IS_KSM) != 0).sum()) for found in pieces)
        frames_known = all(found.frames is not None for found in everything)
        widths = {found.frames.dtype for found in everything if found.frames is not None}
        total = int(bounds[-1])
        digests = np.empty(total, np.uint64)
        wide = np.dtype(np.uint64) in widths
        frames: Frames = np.empty(total, np.uint64) if wide else np.empty(total, np.uint32)
        kinds = np.empty(total, np.uint8)
        numbers = np.empty(total if self._how.keep_numbers else 0, np.int64)
        at = 0
        for found in everything:
            end = at + len(found.digests)
            digests[at:end], kinds[at:end] = found.digests, found.kinds
            if found.frames is not None:
                frames[at:end] = found.frames
            if self._how.keep_numbers:
                numbers[at:end] = found.numbers
            # Piece by piece, so that nothing is held twice.
            found.keep(np.zeros(len(found.digests), np.bool_))
            at = end
        return MemorySample(
            processes=self._processes,
            regions=self._regions,
            digests=digests,
            frames=frames if frames_known else None,
            kinds=kinds,
            numbers=numbers if self._how.keep_numbers else None,
            bounds=bounds,
            fraction=self._how.fraction,
            interval=interval,
            bytes_read=bytes_read,
            seconds=seconds,
        )


def _is_read(region: Region, known: SampledRegion, *, registered_only: bool) -> bool:
    """Whether a region's pages are looked at; if not, they are counted here."""
    pages = (region.end - region.start) // PAGE_BYTES
    bar = bar_of(region)
    if bar is not None:
        known.bar = bar.cause
        known.tally.barred = pages
    elif registered_only and not region.mergeable:
        known.bar = "unregistered"
        known.tally.unregistered = pages
    elif is_watched_by_userfaultfd(region):
        known.tally.watched = pages
    elif region.anonymous_bytes == 0 and region.swapped_bytes == 0:
        # Nothing of its own: no need to walk what may be a terabyte of nothing.
        known.tally.file = min(pages, (region.present_bytes or 0) // PAGE_BYTES)
        known.tally.absent = pages - known.tally.file
    else:
        return True
    return False


def _pieces_of(position: int, region: Region) -> Iterator[Piece]:
    step = PART_PAGES * PAGE_BYTES
    for start in range(region.start, region.end, step):
        yield Piece(position, start, min(start + step, region.end), region.ksm_bytes != 0)


def _bundles(pieces: list[Piece]) -> Iterator[tuple[Piece, ...]]:
    """Small pieces together, so that a worker's errand is worth its way."""
    bundle: list[Piece] = []
    pages = 0
    for piece in pieces:
        bundle.append(piece)
        pages += (piece.end - piece.start) // PAGE_BYTES
        if pages >= PART_PAGES:
            yield tuple(bundle)
            bundle, pages = [], 0
    if bundle:
        yield tuple(bundle)


def _each(jobs: int, function: Callable[[Work], Result], works: Iterator[Work]) -> Iterator[Result]:
    """What function makes of each work, in order; works are asked for only as they are needed."""
    if jobs == 1:
        yield from map(function, works)
        return
    waiting: deque[Future[Result]] = deque()
    # A fork has all modules already, and is ready in milliseconds.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("fork"), initializer=_leave_interrupts)
    try:
        for work in works:
            waiting.append(pool.submit(function, work))
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise KsmtraceError(
            "a reader was killed", "is there enough free memory? try --jobs 1 or --sample 10%"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """A Ctrl-C reaches all of the terminal's processes; a worker ends with the one it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
