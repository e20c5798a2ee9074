"""Memory for a short program with large arrays: what was freed is used again, not given back."""

from __future__ import annotations

import ctypes
import os

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1
_MOST = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Have glibc keep what is freed; to be called before numpy is imported, and before threads.

    Else each large array is mapped anew and its pages are zeroed by faults, half of the time where
    those are slow, as in a virtual machine. Elsewhere than with glibc nothing changes.
    """
    # Huge pages are zeroed whole, also for arrays that fill a part.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _MOST)
