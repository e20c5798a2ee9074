from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.inspect.estimate import part as part_module
from ksmtrace.inspect.estimate.part import (
    Again,
    Part,
    PartRead,
    Piece,
    is_same_process,
    read_part,
    still_the_same,
)
from ksmtrace.inspect.estimate.sample import Tally
from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.processes.identity import identify
from ksmtrace.processes.memory import ZERO_DIGEST, ProcessMemory
from ksmtrace.processes.regions import Region, all_regions

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
_CHILD = """
import ctypes, mmap, sys
contents = [int(word) for word in sys.stdin.readline().split()]
m = mmap.mmap(-1, len(contents) * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(15)
for n, c in enumerate(contents):
    if c >= 0:
        m[n * 4096 : (n + 1) * 4096] = c.to_bytes(8, "little") * 512
start = ctypes.addressof(ctypes.c_char.from_buffer(m))
print(start, flush=True)
libc = ctypes.CDLL(None)
for line in sys.stdin:
    word, at, pages = line.split()
    if word == "drop":
        m.madvise(4, int(at) * 4096, int(pages) * 4096)
    elif word == "unmap":
        address = ctypes.c_void_p(start + int(at) * 4096)
        libc.munmap(address, ctypes.c_size_t(int(pages) * 4096))
    elif word == "write":
        m[int(at) * 4096] = int(pages)
    print("done", flush=True)
"""


class Child:
    """A process with one region of these contents; -1: never touched."""

    def __init__(self, contents: list[int]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.start = int(self.say(" ".join(map(str, contents))))
        self.pages = len(contents)
        self.pid = self.process.pid
        found = identify(self.pid)
        assert found is not None
        self.start_ticks = found.start_ticks

    def say(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def piece(self, first: int = 0, pages: int | None = None) -> Piece:
        begin = self.start + first * PAGE_BYTES
        return Piece(0, begin, begin + (self.pages if pages is None else pages) * PAGE_BYTES)

    def part(self, *pieces: Piece, fraction: float = 1.0) -> Part:
        return Part(self.pid, self.start_ticks, fraction, pieces or (self.piece(),))

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)


@pytest.fixture
def child() -> Iterator[Callable[[list[int]], Child]]:
    started: list[Child] = []

    def start(contents: list[int]) -> Child:
        started.append(Child(contents))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end()


def again(child: Child, read: PartRead) -> Again:
    found = read.pieces[0]
    return Again(child.pid, child.start_ticks, found.numbers, found.digests)


def test_equal_pages_have_equal_digests_and_absent_ones_are_counted(
    child: Callable[[list[int]], Child],
) -> None:
    one = child([7, 7, -1, 8, 0, 0, -1])
    read = read_part(one.part())
    assert read.trouble is None
    found = read.pieces[0]
    first = one.start // PAGE_BYTES
    assert (found.numbers - first).tolist() == [0, 1, 3, 4, 5]
    assert found.digests[0] == found.digests[1] != found.digests[2]
    assert found.digests[3:].tolist() == [ZERO_DIGEST] * 2
    assert found.tally == Tally(candidates=5, absent=2)
    assert read.bytes_read == 5 * PAGE_BYTES


@ROOT
def test_pages_that_were_only_read_are_the_zero_page_and_no_candidates() -> None:
    code = (
        "import ctypes, mmap, sys\n"
        "m = mmap.mmap(-1, 11 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m.madvise(15)\n"
        "m[0] = 1; sum(m[::4096])\n"
        "print(ctypes.addressof(ctypes.c_char.from_buffer(m)), flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        start = int(process.stdout.readline())
        found = identify(process.pid)
        assert found is not None
        piece = Piece(0, start, start + 11 * PAGE_BYTES, has_ksm_pages=False)
        read = read_part(Part(process.pid, found.start_ticks, 1.0, (piece,)))
        assert process.stdin is not None
        process.stdin.close()
    assert read.pieces[0].tally == Tally(candidates=1, kernel_zero=10)


def test_pages_that_have_gone_or_were_written_are_not_the_same(
    child: Callable[[list[int]], Child],
) -> None:
    one = child(list(range(31)))
    read = read_part(one.part())
    one.say("write 3 77")
    one.say("drop 11 2")
    one.say("unmap 29 2")
    same, _ = still_the_same(again(one, read))
    assert np.flatnonzero(~same).tolist() == [3, 11, 12, 29, 30]


def test_what_was_dropped_is_not_brought_back_by_looking_again(
    child: Callable[[list[int]], Child],
) -> None:
    one = child(list(range(31)))
    read = read_part(one.part())
    one.say("drop 0 31")
    still_the_same(again(one, read))
    assert read_part(one.part()).pieces[0].tally.absent == 31


def test_a_region_that_was_unmapped_meanwhile_is_absent(
    child: Callable[[list[int]], Child],
) -> None:
    one = child([1] * 23)
    one.say("unmap 7 16")
    tally = read_part(one.part()).pieces[0].tally
    assert tally == Tally(candidates=7, absent=16)


def test_a_page_that_goes_between_page_tables_and_reading_is_counted_as_unread(
    child: Callable[[list[int]], Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = child([1] * 23)
    look = part_module._candidates

    def slow(*arguments: object) -> object:
        found = look(*arguments)  # type: ignore[arg-type]
        one.say("unmap 7 5")
        return found

    monkeypatch.setattr(part_module, "_candidates", slow)
    found = read_part(one.part()).pieces[0]
    assert found.tally == Tally(candidates=18, unread=5)
    assert (found.numbers - one.start // PAGE_BYTES).tolist() == [*range(7), *range(12, 23)]


def test_a_process_that_has_gone_leaves_all_its_pages_late(
    child: Callable[[list[int]], Child],
) -> None:
    one = child([1] * 23)
    one.end()
    read = read_part(one.part(one.piece(0, 11), one.piece(11, 12)))
    assert read.trouble == "went away"
    assert sum(found.tally.late for found in read.pieces) == 23


def test_another_process_with_the_same_id_is_not_taken_for_it(
    child: Callable[[list[int]], Child],
) -> None:
    one = child([1] * 23)
    before = replace(one.part(), start_ticks=one.start_ticks - 1)
    read = read_part(before)
    assert read.trouble == "went away"
    assert [found.tally for found in read.pieces] == [Tally(late=23)]
    assert not is_same_process(one.pid, one.start_ticks - 1)
    work = again(one, read_part(one.part()))
    same, _ = still_the_same(replace(work, start_ticks=one.start_ticks - 1))
    assert same is None


def test_a_program_that_became_another_one_is_not_read_as_the_first() -> None:
    code = (
        "import os, sys\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "os.execvp('sleep', ['sleep', '100'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        memory = ProcessMemory(process.pid)
        heap = next(r for r in all_regions(process.pid) if r.name == "[heap]")
        process.stdin.write("\n")
        process.stdin.flush()
        while (now := identify(process.pid)) is not None and now.comm != "sleep":
            time.sleep(0.001)
        digests, was_read = memory.digests(np.arange(heap.start, heap.end, 4096) // 4096)
        memory.close()
        process.kill()
    assert not was_read.any()
    assert not digests.any()


@ROOT
def test_anothers_memory_may_not_be_read_without_root(child: Callable[[list[int]], Child]) -> None:
    one = child([1] * 23)
    code = (
        "import os, sys; from ksmtrace.inspect.estimate.part import *\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "pid, ticks, start, end = map(int, sys.argv[1:])\n"
        "read = read_part(Part(pid, ticks, 1.0, (Piece(0, start, end),)))\n"
        "print(read.trouble, read.pieces[0].tally.late)\n"
    )
    piece = one.piece()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, (one.pid, one.start_ticks, piece.start, piece.end))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "may not be read 23\n"


def regions_of(pid: int) -> list[Region]:
    return [region for region in all_regions(pid) if not region.name.startswith("[v")]


@settings(max_examples=31, deadline=None)
@given(
    st.lists(st.integers(-1, 3), min_size=1, max_size=97),
    st.integers(1, 40),
    st.sampled_from([0.1, 0.5, 1.0]),
)
def test_each_page_of_a_region_is_in_exactly_one_tally(
    contents: list[int], step: int, fraction: float
) -> None:
    one = Child(contents)
    try:
        pieces = [
            one.piece(first, min(step, one.pages - first)) for first in range(0, one.pages, step)
        ]
        read = read_part(one.part(*pieces, fraction=fraction))
    finally:
        one.end()
    for piece, found in zip(pieces, read.pieces, strict=True):
        assert found.tally.pages == (piece.end - piece.start) // PAGE_BYTES
        assert len(found.digests) == len(found.kinds) == len(found.offsets)
        assert len(found.digests) <= found.tally.candidates
    assert sum(f.tally.candidates for f in read.pieces) == sum(c >= 0 for c in contents)
    if fraction == 1.0:
        assert sum(len(f.digests) for f in read.pieces) == sum(c >= 0 for c in contents)


def test_every_region_of_a_whole_process_is_accounted_for_page_by_page(
    child: Callable[[list[int]], Child],
) -> None:
    one = child([1] * 23)
    pieces = [Piece(n, r.start, r.end) for n, r in enumerate(regions_of(one.pid))]
    read = read_part(one.part(*pieces))
    for piece, found in zip(pieces, read.pieces, strict=True):
        assert found.tally.pages == (piece.end - piece.start) // PAGE_BYTES
