"""KSM's knobs and counters: each declared once, read so that an absent file is None, never 0.

Sources: Documentation/admin-guide/mm/ksm.rst and mm/ksm.c of the kernels named in `since`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ksmtrace.kernel import host
from ksmtrace.kernel.host import read_text

KSM = host.KSM
VMSTAT = Path("/proc/vmstat")
PROC = Path("/proc")


@dataclass(frozen=True)
class Counter:
    """A number the kernel reports. where: ksm (sysfs), vmstat, ksmd or process.

    cumulative: it only grows, but for a start from 0.
    """

    name: str
    where: str
    unit: str
    since: str
    meaning: str
    cumulative: bool = False


@dataclass(frozen=True)
class Knob:
    """A setting. needs_nothing_merged: the kernel answers EBUSY while any page is merged.

    unit: of its number, where it has one that is not a count. values: those that it takes.
    """

    name: str
    since: str
    default: str
    meaning: str
    needs_nothing_merged: bool = False
    unit: str = ""
    values: str = ""


COUNTERS: tuple[Counter, ...] = (
    Counter("full_scans", "ksm", "scans", "2.6.32", "full scans done; 0 again after run=2", True),
    Counter("pages_shared", "ksm", "pages", "2.6.32", "KSM pages in use"),
    Counter("pages_sharing", "ksm", "pages", "2.6.32", "further mappings of them: pages saved"),
    Counter("pages_unshared", "ksm", "pages", "2.6.32", "waiting in the unstable tree"),
    Counter("pages_volatile", "ksm", "pages", "2.6.32", "scanned pages that are in no tree"),
    Counter(
        "pages_scanned", "ksm", "pages", "6.6", "visits; batch-wise and wrong before 6.10", True
    ),
    Counter("pages_skipped", "ksm", "pages", "6.7", "visits spared by smart scan", True),
    Counter("ksm_zero_pages", "ksm", "pages", "6.6", "pages mapped to the zero page by ksmd"),
    Counter("stable_node_chains", "ksm", "chains", "4.13", "contents with several KSM pages"),
    Counter("stable_node_dups", "ksm", "pages", "4.13", "KSM pages in those chains"),
    Counter("general_profit", "ksm", "bytes", "6.4", "saved less the memory of rmap_items; signed"),
    Counter("cow_ksm", "vmstat", "pages", "5.19", "copies made of KSM pages, since boot", True),
    Counter(
        "ksm_swpin_copy", "vmstat", "pages", "5.19", "copies made at swap-in, since boot", True
    ),
    Counter("ksmd_cpu_ns", "ksmd", "ns", "2.6.32", "CPU time of ksmd since boot", True),
    Counter("ksm_rmap_items", "process", "items", "6.1", "pages of the process on ksmd's list"),
    Counter("ksm_merging_pages", "process", "pages", "5.19", "its pages mapped to KSM pages"),
    Counter("ksm_process_profit", "process", "bytes", "6.4", "its share of profit; signed"),
    Counter("ksm_merge_any", "process", "yes/no", "6.14", "whole process opted in by prctl"),
    Counter("ksm_mergeable", "process", "yes/no", "6.14", "any region opted in"),
)
"""ksm_zero_pages is also a line of ksm_stat, with the same meaning for one process (6.6)."""

KNOBS: tuple[Knob, ...] = (
    Knob(
        "run",
        "2.6.32",
        "0",
        "0 stopped, 1 running, 2 stopped and everything unmerged",
        values="0, 1 or 2",
    ),
    Knob(
        "pages_to_scan",
        "2.6.32",
        "100",
        "pages visited before each sleep",
        values="0 to 4294967295",
    ),
    Knob(
        "sleep_millisecs",
        "2.6.32",
        "20",
        "milliseconds of sleep between batches",
        unit="milliseconds",
        values="0 to 4294967295",
    ),
    Knob(
        "merge_across_nodes",
        "3.9",
        "1",
        "merge pages of different NUMA nodes",
        True,
        values="0 or 1",
    ),
    Knob(
        "max_page_sharing",
        "4.13",
        "256",
        "most mappings of one KSM page",
        True,
        values="numbers from 2 on",
    ),
    Knob(
        "stable_node_chains_prune_millisecs",
        "4.13",
        "2000",
        "how often chains are pruned",
        unit="milliseconds",
        values="0 to 4294967295",
    ),
    Knob("use_zero_pages", "4.11", "0", "map zero-filled pages to the zero page", values="0 or 1"),
    Knob("smart_scan", "6.7", "1", "visit pages less often that never merged", values="0 or 1"),
    Knob(
        "advisor_mode",
        "6.8",
        "none",
        "none or scan-time: who sets pages_to_scan",
        values="none or scan-time",
    ),
    Knob("advisor_max_cpu", "6.8", "70", "percent of one core", values="numbers from 0 on"),
    Knob(
        "advisor_min_pages_to_scan",
        "6.8",
        "500",
        "initial pages_to_scan of the advisor",
        values="numbers from 0 on",
    ),
    Knob(
        "advisor_max_pages_to_scan",
        "6.8",
        "30000",
        "upper bound of pages_to_scan",
        values="numbers from 0 on",
    ),
    Knob(
        "advisor_target_scan_time",
        "6.8",
        "200",
        "seconds a full scan should take",
        unit="seconds",
        values="numbers from 1 on",
    ),
)

COUNTERS_BY_NAME: Mapping[str, Counter] = MappingProxyType({c.name: c for c in COUNTERS})
KNOBS_BY_NAME: Mapping[str, Knob] = MappingProxyType({knob.name: knob for knob in KNOBS})
_SYSFS = tuple(c.name for c in COUNTERS if c.where == "ksm")
_VMSTAT = tuple(c.name for c in COUNTERS if c.where == "vmstat")
_VMSTAT_LINES = re.compile(rf"^({'|'.join(_VMSTAT)}) (\d+)$", re.MULTILINE)


def read_number(path: Path) -> int | None:
    """A file that holds one decimal number; None if absent or not a number."""
    text = read_text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def read_knob(name: str, ksm: Path = KSM) -> str | None:
    """A knob's value as the kernel takes it: of "[none] scan-time" it is the chosen word."""
    text = read_text(ksm / name)
    return None if text is None else chosen(text)


def chosen(text: str) -> str:
    """Of a choice like "none [scan-time]" the chosen word; of any other text all of it."""
    return next((word[1:-1] for word in text.split() if word.startswith("[")), text)


def parse_vmstat(text: str) -> dict[str, int]:
    """The KSM lines of /proc/vmstat."""
    # It has two hundred lines; a search for two of them takes a fifth of reading all.
    return {name: int(number) for name, number in _VMSTAT_LINES.findall(text)}


class HostSampler:
    """Reads the host's counters, knobs and ksmd's CPU time again and again.

    The files stay open between samples: a sample costs a tenth of what opening them would.
    """

    table = "counters"
    """The recording's table that the samples are for."""

    def __init__(self, ksm: Path = KSM, vmstat: Path = VMSTAT, proc: Path = PROC) -> None:
        names = (*_SYSFS, *KNOBS_BY_NAME)
        self._ksm = {name: fd for name in names if (fd := open_file(ksm / name)) is not None}
        self._vmstat = open_file(vmstat)
        daemon = ksmd_pid(proc)
        self._ksmd = None if daemon is None else ThreadClock(proc / str(daemon))

    def counters(self) -> dict[str, int]:
        """The counters that this kernel has, by name, ksmd_cpu_ns among them."""
        values = {}
        for name in _SYSFS:
            text = reread(self._ksm.get(name))
            if text is not None:
                values[name] = int(text)
        if (text := reread(self._vmstat, 1 << 16)) is not None:
            values |= parse_vmstat(text)
        if self._ksmd is not None and (cpu := self._ksmd.cpu_ns()) is not None:
            values["ksmd_cpu_ns"] = cpu
        return values

    def knobs(self) -> dict[str, str]:
        """The knobs that this kernel has."""
        texts = ((name, reread(self._ksm.get(name))) for name in KNOBS_BY_NAME)
        return {name: chosen(text) for name, text in texts if text is not None}

    def close(self) -> None:
        """Close the files."""
        for fd in (*self._ksm.values(), self._vmstat):
            if fd is not None:
                os.close(fd)
        if self._ksmd is not None:
            self._ksmd.close()


class ThreadClock:
    """CPU time of a kernel thread; to the nanosecond where there are schedstats, else in ticks."""

    def __init__(self, folder: Path) -> None:
        self._schedstat = open_file(folder / "schedstat")
        self._stat = open_file(folder / "stat")

    def cpu_ns(self) -> int | None:
        """Since boot; None once the thread is gone."""
        if text := reread(self._schedstat):
            return int(text.split()[0])
        if text := reread(self._stat):
            user, system = text.rpartition(")")[2].split()[11:13]
            return (int(user) + int(system)) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        return None

    def close(self) -> None:
        """Close the files."""
        for fd in (self._schedstat, self._stat):
            if fd is not None:
                os.close(fd)


def open_file(path: Path) -> int | None:
    """A descriptor for `reread`; None if there is no such file, or it may not be read."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def reread(fd: int | None, most: int = 4096) -> str | None:
    """What an open kernel file holds now, without its last newline; None if it can't be read."""
    if fd is None:
        return None
    try:
        return os.pread(fd, most, 0).decode(errors="replace").rstrip("\n")
    except OSError:
        return None


def parse_ksm_stat(text: str) -> dict[str, int]:
    """The lines of /proc/PID/ksm_stat; yes and no become 1 and 0. Unknown lines are left out."""
    words = {"yes": 1, "no": 0}
    values: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.replace(":", " ").partition(" ")
        value = value.strip()
        if name in COUNTERS_BY_NAME:
            with contextlib.suppress(ValueError):
                values[name] = words[value] if value in words else int(value)
    return values


def read_ksm_stat(tgid: int, proc: Path = PROC) -> dict[str, int] | None:
    """A process's own counters; None if it is gone or may not be read."""
    text = read_text(f"{proc}/{tgid}/ksm_stat")
    if text is None:
        return None
    values = parse_ksm_stat(text)
    if "ksm_merging_pages" not in values:
        merging = read_number(proc / str(tgid) / "ksm_merging_pages")
        if merging is not None:
            values["ksm_merging_pages"] = merging
    return values


def ksmd_pid(proc: Path = PROC) -> int | None:
    """The daemon's process id, or None if there is none to be seen."""
    return thread_pid("ksmd", proc)


def thread_pid(name: str, proc: Path = PROC) -> int | None:
    """The process id of the kernel thread called so, or None if there is none to be seen."""
    for entry in proc.iterdir():
        if not entry.name.isdecimal() or read_text(entry / "comm") != name:
            continue
        # A kernel thread has no command line; a program that calls itself so does.
        if read_text(entry / "cmdline") == "":
            return int(entry.name)
    return None
