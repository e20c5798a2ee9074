"""The census: which KSM page every registered process maps where, at one moment.

From /proc/PID/pagemap (address to frame) and /proc/kpageflags (is that frame a KSM page). Nothing
else tells what was merged before a recording began.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ksmtrace.errors import Obstacle
from ksmtrace.kernel.host import PAGE_BYTES, capabilities
from ksmtrace.kernel.sysfs import PROC
from ksmtrace.processes.page_tables import KPF_KSM, frames_with, ksm_flag_tells, present_pages
from ksmtrace.processes.regions import all_regions

CENSUS: np.dtype[np.void] = np.dtype([("tgid", "<u4"), ("addr", "<u8"), ("pfn", "<u8")])
"""One mapping of a KSM page."""

_REGIONS_AT_ONCE = 256


def census_obstacle(proc: Path = PROC) -> Obstacle | None:
    """Why no census can be taken here, or None."""
    if not os.access(proc / "kpageflags", os.R_OK):
        return Obstacle(
            "no census: /proc/kpageflags can't be read",
            "run as root on a kernel with CONFIG_PROC_PAGE_MONITOR=y",
        )
    if "CAP_SYS_ADMIN" not in capabilities():
        return Obstacle("no census: pagemap hides frames without CAP_SYS_ADMIN", "run with sudo")
    if not ksm_flag_tells():
        return Obstacle(
            "no census: this kernel's /proc/kpageflags calls every anonymous page a KSM page",
            "boot a kernel before 6.10, or one in which that is mended, such as 6.18.44",
        )
    return None


def take_census(tgid: int, proc: Path = PROC) -> Iterator[npt.NDArray[np.void]]:
    """The KSM pages that a process maps, in chunks of CENSUS rows, ascending addresses.

    Some chunks are empty: each step is bounded, so that a caller can do other work between them.
    Ends early if the process goes away.
    """
    try:
        pagemap = os.open(proc / str(tgid) / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        flags_file = os.open(proc / "kpageflags", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for number, region in enumerate(all_regions(tgid, proc)):
                if region.may_hold_ksm_pages:
                    yield from _region(tgid, pagemap, flags_file, region.start, region.end)
                elif number % _REGIONS_AT_ONCE == 0:
                    yield np.empty(0, CENSUS)
        finally:
            os.close(flags_file)
    finally:
        os.close(pagemap)


def _region(
    tgid: int, pagemap: int, flags_file: int, start: int, end: int
) -> Iterator[npt.NDArray[np.void]]:
    for first, present, frames in present_pages(pagemap, start, end):
        ksm = frames_with(flags_file, frames, KPF_KSM)
        rows = np.empty(int(ksm.sum()), CENSUS)
        rows["tgid"] = tgid
        rows["addr"] = (present[ksm].astype(np.uint64) + np.uint64(first)) * np.uint64(PAGE_BYTES)
        rows["pfn"] = frames[ksm]
        yield rows
