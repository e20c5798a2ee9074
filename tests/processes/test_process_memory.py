from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.processes.memory import ZERO_DIGEST, ProcessMemory

PAGES = 613


class Region:
    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, PAGES * PAGE_BYTES)
        for number in range(PAGES):
            page = number.to_bytes(8, "little") * (PAGE_BYTES // 8)
            self.memory[number * PAGE_BYTES : (number + 1) * PAGE_BYTES] = page
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.first = start // PAGE_BYTES


@pytest.fixture(scope="module")
def region() -> Region:
    return Region()


@pytest.fixture(scope="module")
def memory() -> Iterator[ProcessMemory]:
    with ProcessMemory(os.getpid()) as found:
        yield found


@settings(max_examples=61)
@given(st.sets(st.integers(0, PAGES - 1)))
def test_each_page_has_its_own_digest(
    region: Region, memory: ProcessMemory, chosen: set[int]
) -> None:
    numbers = np.array(sorted(chosen), np.int64)
    digests, was_read = memory.digests(numbers + region.first)
    page = region.memory
    expected = [
        xxhash.xxh3_64_intdigest(page[n * PAGE_BYTES : (n + 1) * PAGE_BYTES])
        for n in sorted(chosen)
    ]
    assert digests.tolist() == expected
    assert was_read.all()


def test_a_hole_is_passed_over_and_what_follows_is_read() -> None:
    # In a child that does nothing more: here, something else might be mapped into the holes.
    region = Region()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        for at, pages in ((0, 1), (255, 3), (500, 1), (612, 1)):
            address = ctypes.c_void_p((region.first + at) * PAGE_BYTES)
            ctypes.CDLL(None).munmap(address, ctypes.c_size_t(pages * PAGE_BYTES))
        os.write(tell, b".")
        signal.pause()
        os._exit(0)
    try:
        os.read(told, 1)
        with ProcessMemory(child) as memory:
            _, was_read = memory.digests(np.arange(PAGES) + region.first)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        os.close(tell)
    assert np.flatnonzero(~was_read).tolist() == [0, 255, 256, 257, 500, 612]


def test_a_short_read_in_the_middle_of_a_page_leaves_that_page_out(
    tmp_path: Path,
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "mem").write_bytes(bytes(5 * PAGE_BYTES + 100))
    with ProcessMemory(7, tmp_path) as memory:
        digests, was_read = memory.digests(np.arange(8))
    assert was_read.tolist() == [True] * 5 + [False] * 3
    assert digests.tolist() == [ZERO_DIGEST] * 5 + [0] * 3


def test_no_pages_are_read_as_none(memory: ProcessMemory) -> None:
    digests, was_read = memory.digests(np.empty(0, np.int64))
    assert len(digests) == len(was_read) == 0


def test_a_process_that_is_gone_cannot_be_opened() -> None:
    with pytest.raises(OSError, match="No such file"):
        ProcessMemory(1 << 30)
