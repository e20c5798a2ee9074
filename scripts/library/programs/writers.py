"""Three processes share pages and keep writing to some, each in another way."""

from __future__ import annotations

import ctypes
import os
import tempfile
import time
from functools import partial

from pages import PAGE, memory, page_of, started

CONTENTS, PAGES, WRITTEN = 101, 307, 31
SECONDS, PAUSE, REST = 11.0, 0.9, 1.1
BEGIN = time.monotonic()


def common() -> list[bytes]:
    """What all three hold."""
    return [page_of(1, page % CONTENTS) for page in range(PAGES)]


def over() -> bool:
    """Whether it is time to end."""
    return time.monotonic() > BEGIN + SECONDS


def counter() -> None:
    """Adds one to a number in each of some pages, then puts them back: one byte breaks a page."""
    kept = memory(*common())
    while not over():
        time.sleep(PAUSE)
        for page in range(WRITTEN):
            kept[page * PAGE] ^= 1
        time.sleep(REST)
        for page in range(WRITTEN):
            kept[page * PAGE] ^= 1


def copier() -> None:
    """Copies whole pages over with memcpy, the same content that was there before."""
    kept = memory(*common())
    begin = ctypes.addressof(ctypes.c_char.from_buffer(kept))
    while not over():
        time.sleep(PAUSE + REST)
        for page in range(WRITTEN, 2 * WRITTEN):
            ctypes.memmove(begin + page * PAGE, page_of(1, page % CONTENTS), PAGE)


def reader() -> None:
    """Reads a file into its pages: the kernel writes, in read(2)."""
    kept = memory(*common())
    with tempfile.TemporaryFile() as file, memoryview(kept) as pages:
        file.write(page_of(2))
        file.flush()
        while not over():
            time.sleep(PAUSE + REST)
            for page in range(2 * WRITTEN, 3 * WRITTEN):
                os.preadv(file.fileno(), [pages[page * PAGE : (page + 1) * PAGE]], 0)


pids = [started(work.__name__, partial(work)) for work in (counter, copier, reader)]
for pid in pids:
    os.waitpid(pid, 0)
