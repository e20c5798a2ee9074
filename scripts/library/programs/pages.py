"""What the programs of the library are made of: pages of known contents, processes with names."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable

PAGE = mmap.PAGESIZE
MADV_MERGEABLE, MADV_NOHUGEPAGE, PR_SET_NAME, PR_SET_PDEATHSIG, SIGKILL = 12, 15, 15, 1, 9
LIBC = ctypes.CDLL(None, use_errno=True)


def page_of(*words: int) -> bytes:
    """A page whose content depends on all of `words`."""
    text = b"".join(word.to_bytes(8, "little") for word in words)
    return (text * (PAGE // len(text) + 1))[:PAGE]


def memory(*pages: bytes) -> mmap.mmap:
    """Mergeable memory that holds these pages."""
    made = mmap.mmap(-1, len(pages) * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    made.madvise(MADV_NOHUGEPAGE)
    made[:] = b"".join(pages)
    made.madvise(MADV_MERGEABLE)
    return made


def started(name: str, work: Callable[[], None]) -> int:
    """Fork a process of this name that does some work and ends, with its parent if not before."""
    pid = os.fork()
    if pid:
        return pid
    try:
        LIBC.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
        LIBC.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        work()
    finally:
        os._exit(0)
