from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import read_ksm_stat
from ksmtrace.processes.page_tables import entries_of
from ksmtrace.processes.regions import all_regions
from tests.live.conftest import Actor, run_ksmtrace

PAGE = 4096
SOFT_DIRTY = np.uint64(1 << 55)
SWAP = len(Path("/proc/swaps").read_text().splitlines()) > 1

_EVERYTHING = """
import ctypes, fcntl, mmap, os, signal, struct, sys
from ksmtrace.lab.workload import PAGE, mergeable_memory, page_of

libc = ctypes.CDLL(None, use_errno=True)
kept = []

def memory(pages, *advice, file=-1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
    found = mmap.mmap(file, pages * PAGE, flags)
    for word in advice:
        found.madvise(word)
    kept.append(found)
    return found

def address(of):
    return ctypes.addressof(ctypes.c_char.from_buffer(of))

def fill(some, pages, salt):
    some[: pages * PAGE] = b"".join(page_of(salt, n % 7) for n in range(pages))

small = memory(211, 15); fill(small, 199, 1); sum(small[::PAGE])
holes = memory(103, 15); fill(holes, 103, 2)
holes.madvise(mmap.MADV_DONTNEED, 11 * PAGE, 13 * PAGE)
huge = memory(2048, 14); fill(huge, 2048, 3)
merged = mergeable_memory(307); fill(merged, 307, 4); kept.append(merged)
zeroes = mergeable_memory(53); zeroes[:] = bytes(53 * PAGE); kept.append(zeroes)
forked = memory(97, 15); fill(forked, 97, 5)
out = memory(61, 15); fill(out, 61, 6); out.madvise(21)
locked = memory(31, 15); fill(locked, 31, 7)
libc.mlock(ctypes.c_void_p(address(locked)), ctypes.c_size_t(31 * PAGE))
closed = memory(29, 15); fill(closed, 29, 8)
libc.mprotect(ctypes.c_void_p(address(closed)), ctypes.c_size_t(29 * PAGE), 0)
memfd = os.memfd_create("m"); os.ftruncate(memfd, 23 * PAGE)
shared = memory(23, file=memfd, flags=mmap.MAP_SHARED); fill(shared, 23, 9)
private = memory(23, file=memfd, flags=mmap.MAP_PRIVATE); sum(private[::PAGE]); fill(private, 11, 9)
watched = memory(19, 15); fill(watched, 7, 10)
uffd = libc.syscall(323, os.O_CLOEXEC | os.O_NONBLOCK)
if uffd >= 0:
    fcntl.ioctl(uffd, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))
    fcntl.ioctl(uffd, 0xC020AA00, struct.pack("QQQQ", address(watched), 19 * PAGE, 1, 0))
child = os.fork()
if child == 0:
    libc.prctl(1, 9)
    signal.pause()
print(child, uffd >= 0, flush=True)
sys.stdin.read()
"""


class Everything:
    """A process with memory of every kind, that does nothing."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _EVERYTHING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        child, watched = self.process.stdout.readline().split()
        self.watched = watched == "True"
        self.pids = [self.process.pid, int(child)]

    def state(self) -> dict[str, Any]:
        """All that the kernel tells of its memory, less what says that somebody looked."""
        found: dict[str, Any] = {}
        for pid in self.pids:
            pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
            for region in all_regions(pid):
                if region.name.startswith("[v"):
                    continue
                entries = [e for _, e in entries_of(pagemap, region.start, region.end)]
                words = np.concatenate(entries) & ~SOFT_DIRTY
                found[f"{pid} {region.start:x} {region.name}"] = words.tolist()
                found[f"{pid} {region.start:x} flags"] = (region.flags, region.permissions)
            os.close(pagemap)
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            found[f"{pid} smaps"] = [
                line for line in lines if line.split(":")[0] not in OF_OTHERS_TOO
            ]
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[f"{pid} faults"] = stat[7:11]
            found[f"{pid} ksm"] = read_ksm_stat(pid)
        lines = Path("/proc/vmstat").read_text().splitlines()
        found["copies"] = [line for line in lines if line.startswith(("cow_ksm", "ksm_swpin"))]
        return found

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        os.kill(self.pids[1], 9)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)


@pytest.fixture
def everything() -> Iterator[Everything]:
    found = Everything()
    yield found
    found.end()


def estimate(*options: object) -> dict[str, Any]:
    done = run_ksmtrace("estimate", *options, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


OF_OTHERS_TOO = {"Referenced", "Pss", "Pss_File", "Shared_Clean", "Private_Clean"}
"""Lines that change when any other process maps a library that this one has mapped."""


def test_what_is_estimated_is_left_as_it_was(ksmd: Stepper, everything: Everything) -> None:
    ksmd.write("use_zero_pages", "1")
    ksmd.scan(4)
    # The first time pages leave the CPUs' batches.
    estimate(*everything.pids, "--interval", 0.01)
    before = everything.state()
    assert before[f"{everything.pids[0]} ksm"]["ksm_merging_pages"] > 300
    assert before[f"{everything.pids[0]} ksm"]["ksm_zero_pages"] == 53
    for options in ([], ["--once"], ["--jobs", 2], ["--sample", "30%"], ["--mergeable"]):
        answer = estimate(*everything.pids, "--interval", 0.01, *options)
        assert answer["pages_saved"] > 100
        now = everything.state()
        assert now.keys() == before.keys()
        assert [name for name in now if now[name] != before[name]] == []


def test_pages_are_told_apart_by_what_they_are(ksmd: Stepper, everything: Everything) -> None:
    answer = estimate(everything.pids[0], "--interval", 0.01)
    pages = answer["pages"]
    assert pages["watched"] == (19 if everything.watched else 0)
    assert pages["kernel_zero"] >= 211 - 199
    assert pages["barred"] >= 23
    assert pages["unread"] == pages["late"] == 0
    if SWAP:
        assert pages["swapped"] >= 61
    whole = sum(r.end - r.start for r in all_regions(everything.pids[0])) // PAGE
    assert sum(pages.values()) == whole


def test_memory_that_may_not_be_touched_by_its_owner_is_read(everything: Everything) -> None:
    answer = estimate(everything.pids[0], "--once")
    closed = [r for r in answer["processes"][0]["regions"] if r["candidate_pages"] == 29]
    assert [region["pages_saved"] for region in closed] == [22]


def children_of(actor: Actor) -> list[int]:
    text = Path(f"/proc/{actor.pid}/task/{actor.pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.parametrize("zero_pages", [0, 1])
@pytest.mark.parametrize("limit", [5, 256])
def test_the_estimate_is_what_the_real_ksmd_reaches(
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    counters: Callable[[], dict[str, int]],
    zero_pages: int,
    limit: int,
) -> None:
    ksmd.write("use_zero_pages", str(zero_pages))
    ksmd.write("max_page_sharing", str(limit))
    contents = [
        [1] * 307 + [0] * 101 + list(range(1000, 1211)),
        [1] * 11 + [2] * 2 + [0] * 53 + list(range(1000, 1103)),
        [3] * 257 + [0] + list(range(5000, 5031)),
    ]
    actors = [actor(some) for some in contents]
    pids = [one.pid for one in actors]
    answer = estimate(*pids, "--mergeable", "--interval", 0.01)
    ksmd.scan(7)
    now = counters()
    assert answer["pages_saved"] == now["pages_sharing"] + now["ksm_zero_pages"]
    assert answer["ksm_pages"] == now["pages_shared"]
    assert answer["net_profit_bytes"] == now["general_profit"]
    assert answer["zero_pages"] == 155
    again = estimate(*pids, "--mergeable", "--interval", 0.01)
    assert again["pages_saved"] == answer["pages_saved"]
    assert again["bytes_freed"] == 0


@pytest.mark.parametrize("zero_pages", [0, 1])
def test_pages_that_fork_shares_are_estimated_as_ksmd_merges_them(
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    counters: Callable[[], dict[str, int]],
    zero_pages: int,
) -> None:
    ksmd.write("use_zero_pages", str(zero_pages))
    parent = actor([1] * 13 + [0] * 7 + [2] + list(range(1000, 1103)))
    parent.do("fork")
    parent.do("write", 7, 21, 22)
    parent.do("fork")
    pids = [parent.pid, *children_of(parent)]
    assert len(pids) == 3
    answer = estimate(*pids, "--mergeable", "--interval", 0.01)
    ksmd.scan(7)
    now = counters()
    saved = now["pages_sharing"] + now["ksm_zero_pages"]
    assert answer["pages_saved"] == saved
    assert saved > 3 * 12


def test_a_page_that_keeps_changing_is_not_counted_as_saved(
    actor: Callable[[list[int]], Actor],
) -> None:
    script = (
        "import mmap, itertools, time\n"
        "m = mmap.mmap(-1, 23 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m.madvise(15)\n"
        "for n in itertools.count():\n"
        "    for page in range(23): m[page * 4096] = n % 251\n"
        "    time.sleep(0.001)\n"
        "    if n == 3: print('ready', flush=True)\n"
    )
    busy = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert busy.stdout is not None
    try:
        busy.stdout.readline()
        assert estimate(busy.pid, "--interval", 0.2)["pages_changed"] >= 23
    finally:
        busy.kill()
        busy.wait()
        busy.stdout.close()
