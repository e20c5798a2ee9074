"""Reading a part of a process's memory, once and again: what a worker does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ksmtrace.inspect.estimate.sample import IS_HUGE, IS_KSM, Digests, Frames, Kinds, Tally
from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.processes.identity import identify
from ksmtrace.processes.memory import ZERO_DIGEST, ProcessMemory
from ksmtrace.processes.page_tables import (
    FILE_OR_SHARED,
    KPF_KSM,
    KPF_TRANSPARENT_HUGE,
    KPF_ZERO_PAGE,
    PAGES_AT_ONCE,
    PRESENT,
    SWAPPED,
    PageTables,
    Words,
    frames_of,
)

PART_PAGES = 1 << 16


@dataclass(frozen=True)
class Piece:
    """Some pages of a region. region: its position in the sample. start, end: addresses.

    has_ksm_pages: whether KSM pages may be mapped there.
    """

    region: int
    start: int
    end: int
    has_ksm_pages: bool = True


@dataclass(frozen=True)
class Part:
    """Pieces of one process. fraction: of contents that are sampled."""

    tgid: int
    start_ticks: int
    fraction: float
    pieces: tuple[Piece, ...]


@dataclass
class PieceRead:
    """What was found in a piece. offsets: of the sampled pages, after the piece's first.

    Kept narrow: there may be many millions. bytes_read: sampled or not.
    """

    piece: Piece
    offsets: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    digests: Digests = field(default_factory=lambda: np.empty(0, np.uint64))
    frames: Frames | None = None
    kinds: Kinds = field(default_factory=lambda: np.empty(0, np.uint8))
    tally: Tally = field(default_factory=Tally)
    bytes_read: int = 0

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """The pages' numbers: address / page size."""
        return self.offsets.astype(np.int64) + self.piece.start // PAGE_BYTES

    def keep(self, kept: npt.NDArray[np.bool_]) -> None:
        """Forget all other pages."""
        self.offsets, self.digests, self.kinds = (
            self.offsets[kept],
            self.digests[kept],
            self.kinds[kept],
        )
        self.frames = None if self.frames is None else self.frames[kept]


@dataclass
class PartRead:
    """What was found in a part. trouble: why something is missing, or None."""

    pieces: list[PieceRead]
    bytes_read: int = 0
    seconds: float = 0.0
    trouble: str | None = None


def read_part(part: Part) -> PartRead:
    """Digest what a part holds. Never raises for what the process does meanwhile."""
    begun = time.perf_counter()
    result = PartRead([])
    try:
        with PageTables(part.tgid) as tables, ProcessMemory(part.tgid) as memory:
            for piece in part.pieces:
                found = _read(piece, part.fraction, tables, memory)
                result.pieces.append(found)
                result.bytes_read += found.bytes_read
    except PermissionError:
        result.trouble = "may not be read"
    except OSError:
        result.trouble = "went away"
    if result.trouble is None and not is_same_process(part.tgid, part.start_ticks):
        # What was read last may be another's: its id was given again.
        result = PartRead([], trouble="went away")
    read = {found.piece for found in result.pieces}
    result.pieces += [PieceRead(piece) for piece in part.pieces if piece not in read]
    for found in result.pieces:
        pages = (found.piece.end - found.piece.start) // PAGE_BYTES
        found.tally.late += pages - found.tally.pages
    result.seconds = time.perf_counter() - begun
    return result


def _read(piece: Piece, fraction: float, tables: PageTables, memory: ProcessMemory) -> PieceRead:
    result = PieceRead(piece)
    tally = result.tally
    chunks: list[tuple[npt.NDArray[np.int64], Digests, Words, Kinds]] = []
    for first, entries in tables.entries(piece.start, piece.end):
        where = _candidates(entries, tally)
        numbers, frames = where + np.int64(first), frames_of(entries[where])
        digests, was_read = memory.digests(numbers)
        flags = _flags(piece, digests, frames, tables)
        is_zero_page = (flags & KPF_ZERO_PAGE) != 0
        tally.kernel_zero += int(is_zero_page.sum())
        tally.unread += int((~was_read & ~is_zero_page).sum())
        candidates = was_read & ~is_zero_page
        tally.candidates += int(candidates.sum())
        result.bytes_read += int(was_read.sum()) * PAGE_BYTES
        kept = candidates & is_sampled(digests, fraction)
        chunks.append((numbers[kept], digests[kept], frames[kept], _kinds(flags[kept])))
    if chunks:
        all_numbers, all_digests, all_frames, all_kinds = zip(*chunks, strict=True)
        first_of_piece = piece.start // PAGE_BYTES
        result.offsets = (np.concatenate(all_numbers) - first_of_piece).astype(np.uint32)
        result.digests, result.kinds = np.concatenate(all_digests), np.concatenate(all_kinds)
        result.frames = _narrow(np.concatenate(all_frames)) if tables.tell_flags else None
    return result


def _candidates(entries: Words, tally: Tally) -> npt.NDArray[np.intp]:
    """Which pages ksmd would look at, mappings of the zero page among them still."""
    present = (entries & PRESENT) != 0
    tally.swapped += int(((entries & SWAPPED) != 0).sum())
    tally.absent += int(((entries & (PRESENT | SWAPPED)) == 0).sum())
    of_file = present & ((entries & FILE_OR_SHARED) != 0)
    tally.file += int(of_file.sum())
    return np.flatnonzero(present & ~of_file)


def _flags(piece: Piece, digests: Digests, frames: Words, tables: PageTables) -> Words:
    """Each page's flags, where they matter; 0 elsewhere, and where the kernel hides them.

    To ask for all would cost as much as to digest them. It matters whether a zero-filled page is
    the zero page or in a huge one, and, where there are any, what is a KSM page.
    """
    asked = np.flatnonzero(digests == np.uint64(ZERO_DIGEST))
    if piece.has_ksm_pages:
        asked = np.arange(len(digests))
    found = np.zeros(len(digests), np.uint64)
    flags = tables.flags(frames[asked])
    if flags is not None:
        found[asked] = flags
    return found


def _kinds(flags: Words) -> Kinds:
    kinds = np.where((flags & KPF_KSM) != 0, np.uint8(IS_KSM), np.uint8(0))
    kinds[(flags & KPF_TRANSPARENT_HUGE) != 0] |= IS_HUGE
    return kinds


def _narrow(frames: Words) -> Frames:
    """Frames in half the room, as long as the host has less than 16 TiB."""
    return frames.astype(np.uint32) if frames.max(initial=0) < 1 << 32 else frames


def is_sampled(digests: Digests, fraction: float) -> npt.NDArray[np.bool_]:
    """Whether a content belongs to the sample: all pages that hold it, or none."""
    if fraction >= 1:
        return np.ones(len(digests), np.bool_)
    below = np.uint64(int(fraction * 2.0**64))
    found: npt.NDArray[np.bool_] = (digests < below) | (digests == np.uint64(ZERO_DIGEST))
    return found


@dataclass(frozen=True)
class Again:
    """Pages to be read once more, as they were the first time. numbers: ascending."""

    tgid: int
    start_ticks: int
    numbers: npt.NDArray[np.int64]
    digests: Digests


def still_the_same(work: Again) -> tuple[npt.NDArray[np.bool_] | None, float]:
    """(which pages hold what they held, seconds it took). None: the process went away."""
    begun = time.perf_counter()
    same: npt.NDArray[np.bool_] | None = np.zeros(len(work.numbers), np.bool_)
    assert same is not None
    try:
        with PageTables(work.tgid) as tables, ProcessMemory(work.tgid) as memory:
            at = 0
            while at < len(work.numbers):
                first = int(work.numbers[at])
                end = int(np.searchsorted(work.numbers, first + PAGES_AT_ONCE))
                same[at:end] = _same(work, at, end, tables, memory)
                at = end
    except OSError:
        same = None
    if not is_same_process(work.tgid, work.start_ticks):
        same = None
    return same, time.perf_counter() - begun


def _same(
    work: Again, begin: int, end: int, tables: PageTables, memory: ProcessMemory
) -> npt.NDArray[np.bool_]:
    numbers = work.numbers[begin:end]
    start, stop = int(numbers[0]) * PAGE_BYTES, (int(numbers[-1]) + 1) * PAGE_BYTES
    entries = np.concatenate([e for _, e in tables.entries(start, stop)] or [np.empty(0, "<u8")])
    local = numbers - numbers[0]
    there = local < len(entries)
    there[there] = (entries[local[there]] & PRESENT) != 0
    now, was_read = memory.digests(numbers[there])
    same = np.zeros(len(numbers), np.bool_)
    same[there] = was_read & (now == work.digests[begin:end][there])
    return same


def is_same_process(tgid: int, start_ticks: int) -> bool:
    """Whether a process id still stands for the process that began then."""
    now = identify(tgid)
    return now is not None and now.start_ticks == start_ticks
