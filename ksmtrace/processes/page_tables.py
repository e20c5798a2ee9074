"""What the kernel tells about single pages: /proc/PID/pagemap, /proc/kpageflags, kpagecount.

Bits: Documentation/admin-guide/mm/pagemap.rst. Frames are hidden from all without CAP_SYS_ADMIN;
the rest of an entry is not. From 6.10 (dee3d0bef2b0) on kpageflags shows KPF_KSM for every
anonymous page, until a fix of 2026; seen on Debian's 6.12.117, not on 6.1.192 and 6.18.44.
"""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ksmtrace.kernel.host import PAGE_BYTES, capabilities
from ksmtrace.kernel.sysfs import PROC

Words = npt.NDArray[np.uint64]

PRESENT = np.uint64(1 << 63)
SWAPPED = np.uint64(1 << 62)
FILE_OR_SHARED = np.uint64(1 << 61)
_PFN = np.uint64((1 << 55) - 1)

KPF_KSM = np.uint64(1 << 21)
KPF_TRANSPARENT_HUGE = np.uint64(1 << 22)
KPF_ZERO_PAGE = np.uint64(1 << 24)

PAGES_AT_ONCE = 1 << 12
_FRAMES_AT_ONCE = 512


def entries_of(
    pagemap: int, start: int, end: int, at_once: int | None = None
) -> Iterator[tuple[int, Words]]:
    """(first page's number, pagemap's entries from there on), in chunks of at_once pages.

    Ends early where the process goes away.
    """
    step = at_once or PAGES_AT_ONCE
    for first in range(start // PAGE_BYTES, end // PAGE_BYTES, step):
        count = min(step, end // PAGE_BYTES - first)
        try:
            entries = np.frombuffer(os.pread(pagemap, count * 8, first * 8), "<u8")
        except OSError:
            return
        yield first, entries


def present_pages(
    pagemap: int, start: int, end: int
) -> Iterator[tuple[int, npt.NDArray[np.intp], Words]]:
    """(first page's number, which pages after it are present, their frames), in chunks."""
    for first, entries in entries_of(pagemap, start, end):
        present = np.flatnonzero((entries & PRESENT) != 0)
        yield first, present, frames_of(entries[present])


def frames_of(entries: Words) -> Words:
    """The frames of present pages; 0 where the kernel hides them."""
    return entries & _PFN


def words_of_frames(file: int, frames: Words) -> Words:
    """What /proc/kpageflags or kpagecount says of each frame; frames near each other in one read.

    0 for a frame that is no memory.
    """
    distinct, where = np.unique(frames, return_inverse=True)
    words = np.zeros(len(distinct), "<u8")
    begin = 0
    while begin < len(distinct):
        first = int(distinct[begin])
        # A plain int would have numpy turn all of `distinct` into floats, each time.
        end = int(np.searchsorted(distinct, np.uint64(first + _FRAMES_AT_ONCE)))
        span = int(distinct[end - 1]) - first + 1
        read = np.frombuffer(os.pread(file, span * 8, first * 8), "<u8")
        offsets = (distinct[begin:end] - distinct[begin]).astype(np.int64)
        known = offsets < len(read)
        words[begin:end][known] = read[offsets[known]]
        begin = end
    found: Words = words[where]
    return found


def frames_with(flags_file: int, frames: Words, flag: np.uint64) -> npt.NDArray[np.bool_]:
    """Which frames have a flag in /proc/kpageflags."""
    found: npt.NDArray[np.bool_] = (words_of_frames(flags_file, frames) & flag) != 0
    return found


@functools.cache
def ksm_flag_tells(proc: Path = PROC) -> bool:
    """Whether KPF_KSM tells KSM pages from others here: a fresh page of ours must not have it.

    True also where frames' flags can't be read at all.
    """
    with mmap.mmap(-1, PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        # Random: nothing can be equal, so ksmd can't have merged it.
        page[:] = os.urandom(PAGE_BYTES)
        first = np.frombuffer(page, np.uint8, 1)
        address = first.ctypes.data
        del first
        pagemap, flags = _open(proc / "self" / "pagemap"), _open(proc / "kpageflags")
        try:
            if pagemap is None or flags is None:
                return True
            for _number, entries in entries_of(pagemap, address, address + PAGE_BYTES):
                frames = frames_of(entries)
                if len(frames) and frames[0]:
                    return not frames_with(flags, frames, KPF_KSM)[0]
        finally:
            for file in (pagemap, flags):
                if file is not None:
                    os.close(file)
    return True


class PageTables:
    """A process's page tables, open.

    Raises OSError where the process is gone or may not be looked at.
    """

    def __init__(self, tgid: int, proc: Path = PROC) -> None:
        self._pagemap = os.open(proc / str(tgid) / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
        # Root without CAP_SYS_ADMIN may open them, but pagemap shows it no frames to ask about.
        told = proc != PROC or "CAP_SYS_ADMIN" in capabilities()
        self._flags = _open(proc / "kpageflags") if told else None
        self._counts = _open(proc / "kpagecount") if told else None

    def entries(
        self, start: int, end: int, at_once: int | None = None
    ) -> Iterator[tuple[int, Words]]:
        """As entries_of. start, end: addresses."""
        return entries_of(self._pagemap, start, end, at_once)

    @property
    def tell_flags(self) -> bool:
        """Whether `flags` can be read; then frames are told, too."""
        return self._flags is not None

    def flags(self, frames: Words) -> Words | None:
        """Each frame's flags, KPF_...; None where they can't be read.

        Without KPF_KSM where that says nothing (`ksm_flag_tells`).
        """
        if self._flags is None:
            return None
        flags = words_of_frames(self._flags, frames)
        return flags if ksm_flag_tells() else flags & ~KPF_KSM

    def mappings(self, frames: Words) -> Words | None:
        """How often each frame is mapped, in all processes; None where that can't be read."""
        return None if self._counts is None else words_of_frames(self._counts, frames)

    def close(self) -> None:
        """Close the files."""
        for file in (self._pagemap, self._flags, self._counts):
            if file is not None:
                os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
