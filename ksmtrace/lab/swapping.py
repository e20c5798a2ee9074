"""Sending chosen pages of real processes to the swap disk.

madvise(MADV_PAGEOUT) leaves alone what more than one process maps, which KSM pages are. So the
scenario's processes live in a memory cgroup (v2) that is told to give back all it has
(memory.reclaim, Linux 5.19), while every page that shall stay is locked.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.stepper import drain_lru_batches
from ksmtrace.lab.needs import CGROUPS
from ksmtrace.lab.plan import ARENA, ARENA_PAGES
from ksmtrace.lab.puppeteer import Puppeteer
from ksmtrace.model.content import PAGE_SIZE

_GROUP = "ksmtrace-lab"
_CHILDREN_S = CGROUPS / "cgroup.subtree_control"
_READAHEAD = Path("/proc/sys/vm/page-cluster")
_PATIENCE = 20.0
_PRESENT, _SWAPPED = 1 << 63, 1 << 62
_PFN = (1 << 55) - 1
_ENTRY = 8
_SWAP_CACHE, _ZERO_PAGE = 1 << 13, 1 << 24
"""Bits of /proc/kpageflags."""
_STRETCH = 1 << 16
_PAUSE = 0.01
_EVERYTHING = str(1 << 40)


class Swapper:
    """The cgroup of a scenario's processes. Use `swapper` to get one."""

    def __init__(self, group: Path) -> None:
        self._group = group

    def swap_out(
        self, puppets: Puppeteer, pids: Mapping[str, int], process: str, start: int, length: int
    ) -> None:
        """Send a range's pages to the disk. Raises KsmtraceError if they don't go."""
        maps = {name: present_pages(pid) for name, pid in pids.items()}
        end = start + length
        here = {pfn for page, pfn in maps[process].items() if start <= page < end}
        leaving = here - _with_flag(here, _ZERO_PAGE)
        if not leaving:
            return
        kept = {
            name: ranges_of(page for page, pfn in pages.items() if pfn not in leaving)
            for name, pages in maps.items()
        }
        going = {
            pids[name]: [page for page, pfn in pages.items() if pfn in leaving]
            for name, pages in maps.items()
        }
        for name, ranges in kept.items():
            puppets.tell(name, "keep", ranges)
        try:
            self._reclaim_until_gone(leaving, going)
        finally:
            for name, ranges in kept.items():
                puppets.tell(name, "release", ranges)

    def _reclaim_until_gone(self, frames: set[int], going: Mapping[int, list[int]]) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            # What is locked, or is not any more, is so for reclaim after a drain only.
            drain_lru_batches()
            self._reclaim()
            swapped = all(_all_swapped(pid, pages) for pid, pages in going.items())
            if swapped and not _with_flag(frames, _SWAP_CACHE):
                # Once more, for what only the swap cache held before.
                self._reclaim()
                return
            if time.monotonic() > until:
                raise KsmtraceError(
                    "pages did not leave memory for the swap disk",
                    "is the disk full, or is one of the pages held or mapped by somebody else?",
                )
            time.sleep(_PAUSE)

    def _reclaim(self) -> None:
        """Ask for more than there is; the kernel tries, and says that it was too much."""
        try:
            (self._group / "memory.reclaim").write_text(_EVERYTHING)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise


def _with_flag(frames: Iterable[int], flag: int) -> set[int]:
    """Those frames that have a flag in /proc/kpageflags."""
    fd = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return {
            pfn
            for pfn in frames
            if int.from_bytes(os.pread(fd, _ENTRY, pfn * _ENTRY), "little") & flag
        }
    finally:
        os.close(fd)


def present_pages(pid: int) -> dict[int, int]:
    """Frame number by address of what a process has in memory in its arena."""
    pages = {}
    with open(f"/proc/{pid}/maps", "rb") as file:  # noqa: PTH123 a process's own file
        lines = file.read().splitlines()
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for line in lines:
            start, end = (int(word, 16) for word in line.split(b" ", 1)[0].split(b"-"))
            if not ARENA <= start < ARENA + ARENA_PAGES * PAGE_SIZE:
                continue
            for address, entry in _entries(fd, start, end):
                if entry & _PRESENT:
                    pages[address] = entry & _PFN
    finally:
        os.close(fd)
    return pages


def _entries(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    for low in range(start, end, _STRETCH * PAGE_SIZE):
        high = min(end, low + _STRETCH * PAGE_SIZE)
        count = (high - low) // PAGE_SIZE
        data = os.pread(fd, count * _ENTRY, low // PAGE_SIZE * _ENTRY)
        for number, (entry,) in enumerate(struct.iter_unpack("<Q", data)):
            yield low + number * PAGE_SIZE, entry


def _all_swapped(pid: int, pages: list[int]) -> bool:
    """Whether those addresses of a process are all on the disk."""
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return all(
            entry & _SWAPPED
            for page in pages
            for _address, entry in _entries(fd, page, page + PAGE_SIZE)
        )
    finally:
        os.close(fd)


def ranges_of(addresses: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Stretches of (start, length) that hold exactly these pages."""
    pages = sorted(addresses)
    cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(pages)) if b != a + PAGE_SIZE)]
    return tuple(
        (pages[low], (high - low) * PAGE_SIZE)
        for low, high in pairwise([*cuts, len(pages)])
        if low < high
    )


@contextmanager
def swapper(nursery: int) -> Iterator[Swapper]:
    """A cgroup for what is forked from the nursery from now on; readahead is off meanwhile.

    Raises KsmtraceError where the kernel refuses. Afterwards all is as it was.
    """
    group = CGROUPS / _GROUP
    with ExitStack() as stack:
        try:
            _set(stack, _READAHEAD, "0", _READAHEAD.read_text())
            if "memory" not in _CHILDREN_S.read_text().split():
                _set(stack, _CHILDREN_S, "+memory", "-memory")
            stack.callback(_remove, group)
            group.mkdir(exist_ok=True)
            if not (group / "memory.reclaim").exists():
                raise KsmtraceError(
                    "pages can't be swapped out: there is no memory.reclaim",
                    "it came with Linux 5.19",
                    Exit.HOST_CANNOT,
                )
            _set_group(stack, nursery, group)
        except OSError as error:
            raise KsmtraceError(
                f"the lab got no memory cgroup of its own: {error}", exit_code=Exit.HOST_CANNOT
            ) from error
        yield Swapper(group)


def _set(stack: ExitStack, file: Path, value: str, afterwards: str) -> None:
    file.write_text(value)
    stack.callback(file.write_text, afterwards)


def _set_group(stack: ExitStack, pid: int, group: Path) -> None:
    home = _group_of(pid)
    (group / "cgroup.procs").write_text(str(pid))
    stack.callback((home / "cgroup.procs").write_text, str(pid))


def _remove(group: Path) -> None:
    """A process that has just ended may be in it for another moment."""
    until = time.monotonic() + 1
    while group.exists() and time.monotonic() < until:
        try:
            group.rmdir()
        except OSError:
            time.sleep(_PAUSE)


def _group_of(pid: int) -> Path:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return CGROUPS / line[3:].lstrip("/")
    return CGROUPS
