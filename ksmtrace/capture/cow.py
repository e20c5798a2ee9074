"""Seeing writes to merged pages as they happen (`record --cow`): what it needs, and how it went.

The BPF programs (`bpf/cow.h`) read the page table at each write fault. Where that lies in the
kernel's address space is found out once, here, and checked on pages of our own before anything is
believed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ksmtrace.capture.libbpf import BpfObject
from ksmtrace.errors import KsmtraceError, Obstacle, host_cannot
from ksmtrace.kernel import host
from ksmtrace.kernel.sysfs import PROC

FAULTS: Final = ("page_fault_user", "page_fault_kernel")
SYSTEM_CALLS: Final = "sys_exit"
PREPARE: Final = "cow_prepare"
MAPS: Final = ("cow_layouts", "cow_counters", "cow_heaps")

_LAYOUT_WORDS = 6
_COUNTER_WORDS = 3
_PRESENT = 1 << 63
_PFN = (1 << 55) - 1
_ANONYMOUS = 1
_ATTEMPTS = 25
_PAUSE = 0.02
_GIGABYTE_SHIFT = 30
_RAM = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) : System RAM$", re.MULTILINE)
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class CowWatch:
    """What `record --cow` came to; the source fills it in while it is open.

    seen_by: the tracepoints that programs stand on. obstacles: what is not seen, in words.
    faults: write faults that were looked at; breaks: those that hit merged pages; unchecked: those
    where it could not be looked up whether the process may write. locations_left_out: how many
    places that wrote are missing in the table `code`.
    """

    seen_by: list[str] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)
    faults: int = 0
    breaks: int = 0
    unchecked: int = 0
    locations_left_out: int = 0

    def facts(self) -> dict[str, object]:
        """For the manifest."""
        return {
            "seen_by": self.seen_by,
            "obstacles": self.obstacles,
            "write_faults": self.faults,
            "breaks": self.breaks,
            "unchecked": self.unchecked,
            "locations_left_out": self.locations_left_out,
        }

    def count(self, loaded: BpfObject) -> None:
        """Fetch the programs' counters."""
        rows = loaded.read_per_cpu("cow_counters", _COUNTER_WORDS)
        self.faults, self.breaks, self.unchecked = (
            sum(column) for column in zip(*rows, strict=True)
        )


def cow_obstacles() -> list[Obstacle]:
    """What keeps writes to merged pages from being seen here; empty if they can be."""
    obstacles = []
    if host.machine() != "x86_64":
        obstacles.append(
            Obstacle(
                f"writes to merged pages can't be seen on {host.machine()}: its page tables are"
                " not known to ksmtrace",
                "record without --cow",
            )
        )
    mounted = host.tracefs()
    if mounted is not None:
        missing = [name for name in FAULTS if not (mounted / "events/exceptions" / name).is_dir()]
        if missing:
            obstacles.append(
                Obstacle(
                    f"this kernel lacks the tracepoint {missing[0]}, so writes to merged pages"
                    " can't be seen",
                    "record without --cow",
                )
            )
    if "CAP_SYS_ADMIN" not in host.capabilities():
        obstacles.append(
            Obstacle("--cow needs page frames, which pagemap hides without CAP_SYS_ADMIN", "sudo")
        )
    return obstacles


def find_page_tables(loaded: BpfObject) -> None:
    """Let the programs find the page tables, and check that what they read there is right.

    Raises KsmtraceError (HOST_CANNOT) where they don't.
    """
    gigabytes = (_end_of_memory() >> _GIGABYTE_SHIFT) + 1
    for attempt in range(_ATTEMPTS):
        # The look-up of a region is refused while the CPU has one to let go of yet.
        time.sleep(_PAUSE * (attempt > 0))
        with _sample_pages() as (in_file, anonymous, zero):
            frames = [_pfn(address) for address in (in_file, anonymous, zero)]
            loaded.run_raw(PREPARE, (in_file, frames[0], anonymous, frames[2], gigabytes))
            found = loaded.read_words("cow_layouts", _LAYOUT_WORDS)
            _, _, _, levels, pfn, mapping = found
            # A page may be moved between two looks at it.
            if levels and pfn == frames[1] and mapping & _ANONYMOUS:
                return
    raise host_cannot(
        [Obstacle("the kernel's page tables were not found in its memory", "record without --cow")],
        "see writes to merged pages",
    )


def _end_of_memory() -> int:
    """The last physical address of RAM, or a terabyte where the kernel doesn't say."""
    text = host.read_text(Path("/proc/iomem")) or ""
    return max((int(found[2], 16) for found in _RAM.finditer(text)), default=0) or 1 << 40


@contextmanager
def _sample_pages() -> Iterator[tuple[int, int, int]]:
    """Addresses of the first page of a file, an anonymous page, and one that maps the zero page."""
    page = host.PAGE_BYTES
    fd = os.memfd_create("ksmtrace-page", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, page)
        with (
            mmap.mmap(fd, page, mmap.MAP_SHARED) as in_file,
            mmap.mmap(-1, page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as anonymous,
            mmap.mmap(-1, page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as zero,
        ):
            for memory in (anonymous, zero):
                memory.madvise(mmap.MADV_NOHUGEPAGE)
            in_file[0] = anonymous[0] = 1
            assert zero[0] == 0
            yield _address(in_file), _address(anonymous), _address(zero)
    finally:
        os.close(fd)


def _address(memory: mmap.mmap) -> int:
    # The reference must go at once, or the mapping could not be closed.
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _pfn(address: int) -> int:
    with (PROC / "self" / "pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(address // host.PAGE_BYTES * 8)
        entry = int.from_bytes(pagemap.read(8), "little")
    return entry & _PFN if entry & _PRESENT else 0


def attach(loaded: BpfObject, watch: CowWatch) -> None:
    """Find the page tables and attach; what can't be watched beside faults is said in `watch`.

    Raises KsmtraceError (HOST_CANNOT).
    """
    find_page_tables(loaded)
    for name in FAULTS:
        loaded.attach(name)
        watch.seen_by.append(name)
    try:
        loaded.attach(SYSTEM_CALLS)
        watch.seen_by.append(SYSTEM_CALLS)
    except KsmtraceError as error:
        watch.obstacles.append(f"ranges that processes give up are not seen: {error.message}")
