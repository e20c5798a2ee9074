"""What the pages hold that ksmd may merge: read while ksmd stands still.

From /proc/PID/mem, and only where pagemap says that a page is present, so that reading brings
nothing into memory. Reading that way takes plain references, which unshare nothing; the caller
drains the CPUs' batches afterwards (`kernel.stepper.drain_lru_batches`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ksmtrace.kernel.host import PAGE_BYTES
from ksmtrace.kernel.sysfs import PROC
from ksmtrace.processes.page_tables import (
    KPF_KSM,
    KPF_ZERO_PAGE,
    frames_with,
    ksm_flag_tells,
    present_pages,
)
from ksmtrace.processes.regions import all_regions


class Page(NamedTuple):
    """One present page of a mergeable region. data: its whole content.

    ksm: whether it is a KSM page; None where the kernel doesn't tell.
    """

    addr: int
    pfn: int
    ksm: bool | None
    data: bytes


def read_contents(tgid: int, proc: Path = PROC) -> Iterator[Page]:
    """Every present page of a process's mergeable regions, ascending addresses.

    Ends early if the process goes away; a page that goes while it is read is left out. Raises
    OSError where the process may not be read.
    """
    folder = proc / str(tgid)
    with ExitStack() as opened:

        def read_only(path: Path) -> int:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            return descriptor

        try:
            pagemap, memory = read_only(folder / "pagemap"), read_only(folder / "mem")
        except (FileNotFoundError, ProcessLookupError):
            # A process that is just exiting still has its folder.
            return
        flags = read_only(proc / "kpageflags")
        for region in all_regions(tgid, proc):
            if region.mergeable:
                yield from _region(pagemap, memory, flags, region.start, region.end)


def _region(pagemap: int, memory: int, flags: int, start: int, end: int) -> Iterator[Page]:
    told = ksm_flag_tells()
    for first, present, frames in present_pages(pagemap, start, end):
        ksm, zero = (frames_with(flags, frames, flag) for flag in (KPF_KSM, KPF_ZERO_PAGE))
        numbers = (present + np.int64(first)).tolist()
        for number, pfn, is_ksm, is_zero_page in zip(
            numbers, frames.tolist(), ksm.tolist(), zero.tolist(), strict=True
        ):
            # ksmd doesn't look at mappings of the zero page, its own or others'.
            if is_zero_page:
                continue
            addr = number * PAGE_BYTES
            try:
                data = os.pread(memory, PAGE_BYTES, addr)
            except OSError:
                continue
            if len(data) == PAGE_BYTES:
                yield Page(addr, pfn, is_ksm if told else None, data)
