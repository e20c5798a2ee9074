"""UKSM's knobs and counters: each declared once, read so that an absent file is None, never 0.

UKSM (Ultra KSM) is a patch to the kernel. Built in, it takes KSM's place: /sys/kernel/mm/ksm is
gone, /sys/kernel/mm/uksm is there, and there are no tracepoints. Source: the patches of release
0.1.2.6 for Linux 4.0 to 6.12 (dolohow/uksm, sroeschus/uksm), Documentation/vm/uksm.txt in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ksmtrace.kernel import host
from ksmtrace.kernel.sysfs import (
    COUNTERS_BY_NAME,
    PROC,
    ThreadClock,
    chosen,
    open_file,
    parse_vmstat,
    reread,
    thread_pid,
)

RUNGS = 4
"""The scan ladder's steps: each has a share of CPU and a time to cover its memory in."""
RATIO_SCALE = 10_000
"""A share of CPU is a number of ten-thousandths of one CPU, or a part of the most."""
DAEMON = "uksmd"
_ZERO_PAGES = "KsmZeroPages"
_INT64_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class UksmCounter:
    """A number that UKSM reports. where: uksm (sysfs), meminfo, vmstat or uksmd.

    at_boot: what it reads before the first wake-up. cumulative: it only grows.
    """

    name: str
    where: str
    unit: str
    at_boot: str
    meaning: str
    cumulative: bool = False


@dataclass(frozen=True)
class UksmKnob:
    """A setting. unit: of its number. values: those that it takes."""

    name: str
    unit: str
    default: str
    meaning: str
    values: str


COUNTERS: tuple[UksmCounter, ...] = (
    UksmCounter("pages_shared", "uksm", "pages", "0", "merged pages in use"),
    UksmCounter(
        "pages_sharing",
        "uksm",
        "pages",
        "0",
        "further mappings of them: about the pages saved, zero pages apart; forks inflate it",
    ),
    UksmCounter(
        "pages_unshared",
        "uksm",
        "pages",
        "0",
        "waiting in the unstable tree, or in one thrown away and not visited since",
    ),
    UksmCounter(
        "pages_scanned",
        "uksm",
        "pages",
        "0",
        "pages hashed; absent ones and placed zero pages are not counted",
        cumulative=True,
    ),
    UksmCounter(
        "full_scans",
        "uksm",
        "rounds",
        "1",
        "rounds that visited over a quarter of all pages: not KSM's full scans; it can stand still",
        cumulative=True,
    ),
    UksmCounter("hash_strength", "uksm", "words", "64", "words of a page that its hash reads"),
    UksmCounter("sleep_times", "uksm", "wake-ups", "0", "wake-ups done", cumulative=True),
    UksmCounter("ema_per_page_time", "uksm", "ns", "500", "what a page costs, moving average"),
    UksmCounter(
        "zero_pages",
        "meminfo",
        "pages",
        "0",
        "mapped to UKSM's zero page: KsmZeroPages of /proc/meminfo",
    ),
    UksmCounter("cow_ksm", "vmstat", "pages", "0", COUNTERS_BY_NAME["cow_ksm"].meaning, True),
    UksmCounter("uksmd_cpu_ns", "uksmd", "ns", "0", "CPU time of uksmd since boot", True),
)
"""cow_ksm came with Linux 5.19. The line nr_uksm_zero_pages of /proc/vmstat is not read: from
Linux 4.8 on the patches put that label among the node's counters while the number is the zone's
last, so that another counter's value stands behind it (and the zero pages' behind another label).
"""

KNOBS: tuple[UksmKnob, ...] = (
    UksmKnob("run", "", "1", "1 running, 0 paused; pausing unmerges nothing", "0 or 1"),
    UksmKnob(
        "cpu_governor",
        "",
        "full",
        "a preset of cpu_ratios, eval_intervals and max_cpu_percentage",
        "full, medium, low or quiet",
    ),
    UksmKnob(
        "max_cpu_percentage",
        "percent of one CPU",
        "95",
        "what MAX stands for in cpu_ratios",
        "0 to 100, taken as 10 to 99",
    ),
    UksmKnob(
        "cpu_ratios",
        "1/10000 of a CPU, or parts of MAX",
        "20 40 MAX/4 MAX/1",
        "CPU of each rung, the slowest first",
        "four of N or MAX/N",
    ),
    UksmKnob(
        "eval_intervals",
        "milliseconds",
        "1000 500 200 50",
        "in which each rung's memory is to be sampled, the slowest first",
        "four numbers; 0: every page",
    ),
    UksmKnob(
        "sleep_millisecs",
        "milliseconds",
        "100",
        "between wake-ups; UKSM itself may lengthen it",
        "0 to 1000",
    ),
    UksmKnob(
        "abundant_threshold",
        "percent",
        "10",
        "merged pages of a sample from which a region climbs a rung",
        "0 to 99",
    ),
    UksmKnob(
        "thrash_threshold",
        "percent",
        "50",
        "copied pages of the merged from which a region may not climb; 0: never mind",
        "0 to 99",
    ),
)

COUNTERS_BY_UKSM_NAME: Mapping[str, UksmCounter] = MappingProxyType({c.name: c for c in COUNTERS})
KNOBS_BY_UKSM_NAME: Mapping[str, UksmKnob] = MappingProxyType({k.name: k for k in KNOBS})
SYSFS_COUNTERS = tuple(c.name for c in COUNTERS if c.where == "uksm")
GOVERNORS = ("full", "medium", "low", "quiet")
"""Those of the published release; a vendor's kernel may have more."""

_COUNT = re.compile(r"([0-9]{1,20})(?: \* 2\^([0-9]{1,2}))?")
_RATIO = re.compile(r"(MAX/)?([0-9]{1,9})")


def parse_count(text: str) -> int | None:
    """A counter's file; None if it is no number, or one beyond 63 bits.

    pages_scanned of a 32-bit kernel may read "N * 2^B" once it overflowed.
    """
    found = _COUNT.fullmatch(text.strip())
    number = int(found[1]) << int(found[2] or 0) if found else None
    return number if number is not None and number <= _INT64_MAX else None


@dataclass(frozen=True)
class Governors:
    """cpu_governor's file. chosen: the one in brackets, None if none is."""

    chosen: str | None
    choices: tuple[str, ...]

    @property
    def unpublished(self) -> tuple[str, ...]:
        """Those that the published release doesn't have: a vendor's."""
        return tuple(name for name in self.choices if name not in GOVERNORS)


def parse_governors(text: str) -> Governors:
    """`[full] medium low quiet`: what can be chosen, and what is."""
    words = text.split()
    taken = [w[1:-1] for w in words if len(w) > 2 and w[0] == "[" and w[-1] == "]"]
    # Two of them would be no choice.
    only = taken[0] if len(taken) == 1 else None
    names = (w[1:-1] if w[0] == "[" and w[-1] == "]" else w for w in words)
    return Governors(only, tuple(name for name in names if name))


def parse_cpu_ratios(text: str) -> tuple[int, ...] | None:
    """`20 40 MAX/4 MAX/1`: each rung's share as the kernel keeps it; None for anything else.

    N is N ten-thousandths of a CPU; MAX/n is kept as -(10000 / n), of max_cpu_percentage.
    """
    shares = []
    for word in text.split():
        found = _RATIO.fullmatch(word)
        if found is None or (found[1] and not 0 < int(found[2]) <= RATIO_SCALE):
            return None
        shares.append(-(RATIO_SCALE // int(found[2])) if found[1] else int(found[2]))
    return tuple(shares) if len(shares) == RUNGS else None


def cpu_percent(ratio: int, max_cpu_percentage: int) -> float:
    """What a rung may take, in percent of one CPU. ratio: as `parse_cpu_ratios` gives it."""
    if ratio < 0:
        return max_cpu_percentage * -ratio / RATIO_SCALE
    return 100 * ratio / RATIO_SCALE


def parse_eval_intervals(text: str) -> tuple[int, ...] | None:
    """`1000 500 200 50`: each rung's cover time in milliseconds; None for anything else."""
    words = text.split()
    whole = all(re.fullmatch(r"[0-9]{1,10}", word) for word in words)
    return tuple(map(int, words)) if whole and len(words) == RUNGS else None


class UksmSampler:
    """Reads UKSM's counters, its knobs and uksmd's CPU time again and again.

    uksm, proc: its sysfs folder and /proc; None for this host's. The files stay open meanwhile.
    """

    table = "uksm"
    """The recording's table that the samples are for."""

    def __init__(self, uksm: Path | None = None, proc: Path | None = None) -> None:
        folder, proc = uksm or host.UKSM, proc or PROC
        names = (*SYSFS_COUNTERS, *KNOBS_BY_UKSM_NAME)
        self._uksm = {name: fd for name in names if (fd := open_file(folder / name)) is not None}
        self._meminfo = open_file(proc / "meminfo")
        self._vmstat = open_file(proc / "vmstat")
        daemon = thread_pid(DAEMON, proc)
        self._uksmd = None if daemon is None else ThreadClock(proc / str(daemon))

    def counters(self) -> dict[str, int]:
        """The counters that this kernel has, by name."""
        found = {
            name: parse_count(text)
            for name in SYSFS_COUNTERS
            if (text := reread(self._uksm.get(name))) is not None
        }
        zero_bytes = host.meminfo(reread(self._meminfo, 1 << 16) or "").get(_ZERO_PAGES)
        found["zero_pages"] = None if zero_bytes is None else zero_bytes // host.PAGE_BYTES
        found["cow_ksm"] = parse_vmstat(reread(self._vmstat, 1 << 16) or "").get("cow_ksm")
        found["uksmd_cpu_ns"] = self._uksmd.cpu_ns() if self._uksmd is not None else None
        return {name: number for name, number in found.items() if number is not None}

    def knobs(self) -> dict[str, str]:
        """The knobs that this kernel has; of cpu_governor the chosen word."""
        texts = ((name, reread(self._uksm.get(name))) for name in KNOBS_BY_UKSM_NAME)
        return {name: chosen(text).strip() for name, text in texts if text is not None}

    def close(self) -> None:
        """Close the files."""
        for fd in (*self._uksm.values(), self._meminfo, self._vmstat):
            if fd is not None:
                os.close(fd)
        if self._uksmd is not None:
            self._uksmd.close()
