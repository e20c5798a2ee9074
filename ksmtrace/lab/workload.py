"""A small, lively KSM workload: something of everything that ksmd meets.

Run as `python -m ksmtrace.lab.workload [SECONDS]`. Several processes share duplicates within and
across them, zero pages, unique pages and pages that keep changing; one forks, one leaves early.
Counts are prime, so that a factor of two can't hide.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import time
from itertools import count
from typing import Never

PAGE = mmap.PAGESIZE
SHARED_CONTENTS, COPIES_OF_EACH = 31, 13
ZERO_PAGES, UNIQUE_PAGES, CHANGING_PAGES = 53, 97, 29
WORKERS = 3
PAGES = SHARED_CONTENTS * COPIES_OF_EACH + ZERO_PAGES + UNIQUE_PAGES + CHANGING_PAGES
_MADV_MERGEABLE, _MADV_NOHUGEPAGE = 12, 15


def page_of(*words: int) -> bytes:
    """A page whose content depends on all of `words`."""
    text = b"".join(word.to_bytes(8, "little") for word in words)
    return (text * (PAGE // len(text) + 1))[:PAGE]


def mergeable_memory(pages: int) -> mmap.mmap:
    """Anonymous private memory that ksmd may scan, not yet touched."""
    memory = mmap.mmap(-1, pages * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # Without it a huge page would hide the single pages from the first scans.
    # A kernel without huge pages refuses the word itself.
    with contextlib.suppress(OSError):
        memory.madvise(_MADV_NOHUGEPAGE)
    memory.madvise(_MADV_MERGEABLE)
    return memory


def fill(memory: mmap.mmap, worker: int) -> int:
    """Write everything that stays as it is; returns the first changing page's offset."""
    pages = [
        page_of(1, content) for content in range(SHARED_CONTENTS) for _ in range(COPIES_OF_EACH)
    ]
    pages += [bytes(PAGE)] * ZERO_PAGES
    pages += [page_of(2, worker, number) for number in range(UNIQUE_PAGES)]
    memory[: len(pages) * PAGE] = b"".join(pages)
    return len(pages) * PAGE


def work(worker: int, seconds: float) -> None:
    """One process's life."""
    end = time.monotonic() + seconds
    memory = mergeable_memory(PAGES)
    changing = fill(memory, worker)
    child = 0
    if worker == 0:
        time.sleep(seconds / 2)
        child = os.fork()
    for turn in count():
        for number in range(CHANGING_PAGES):
            at = changing + number * PAGE
            memory[at : at + PAGE] = page_of(3, worker, turn, number, os.getpid())
        # Now and then a shared page is written too: a copy on write.
        memory[(turn % COPIES_OF_EACH) * PAGE] = turn % 251
        if time.monotonic() >= end:
            break
        time.sleep(0.05)
    if child:
        os.waitpid(child, 0)


def start_worker(worker: int, seconds: float) -> int:
    """Fork a worker; returns its process id."""
    pid = os.fork()
    if pid == 0:
        _work_and_exit(worker, seconds)
    return pid


def _work_and_exit(worker: int, seconds: float) -> Never:
    try:
        work(worker, seconds)
    finally:
        os._exit(0)


def main(seconds: float) -> None:
    """Run the whole workload; the last worker leaves at half time."""
    lives = [seconds] * (WORKERS - 1) + [seconds / 2]
    for pid in [start_worker(worker, life) for worker, life in enumerate(lives)]:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0)
