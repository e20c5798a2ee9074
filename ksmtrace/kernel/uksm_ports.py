"""UKSM's ports: to which kernels the patch was carried, how large that was, how it was tested.

Sources: A the repository dolohow/uksm (its README, patches and history up to 5.17); B the
repository sroeschus/uksm (its README's table and lists of changes, January 2025); C kernels of
phones, read for differences. None of them publishes performance figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.releases import parse_release

SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "A": "github.com/dolohow/uksm: README, patches and history",
        "B": "github.com/sroeschus/uksm: README of January 2025, patches",
        "C": "kernels of phones that carry it",
    }
)
_BUILD = "Full kernel build (1+8 CPU's)"
_BASIC = "Basic testing"
_SAME = "as before"


@dataclass(frozen=True)
class Port:
    """The patch for a kernel release, or for a run of them that do the same.

    first, last: releases like 6.1; None where only the age is known. uksm: UKSM's own release.
    hunks: of the patch, changed since the port before. difficulty, testing: in the porter's words.
    All None where nobody says. observed: what of it shows from outside, and how it differs.
    """

    first: str | None
    last: str | None
    uksm: str
    hunks: int | None
    difficulty: str | None
    testing: str | None
    observed: str
    source: Literal["A", "B", "C"]

    @property
    def kernels(self) -> str:
        """The releases in words."""
        if self.first is None:
            return "3.x, 4.x"
        return self.first if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def patches(self) -> int | None:
        """How many releases it stands for; None where that is not known."""
        if self.first is None or self.last is None:
            return None
        (major, minor, _), (to_major, to_minor, _) = map(parse_release, (self.first, self.last))
        skipped = _LAST_MINOR[major] + 1 if to_major > major else 0
        return skipped + to_minor - minor + 1


_LAST_MINOR = {4: 20, 5: 19}
"""The last release of a major number."""


def _ported(release: str, hunks: int, difficulty: str, testing: str, observed: str = _SAME) -> Port:
    return Port(release, release, "0.1.2.6", hunks, difficulty, testing, observed, "B")


PORTS: tuple[Port, ...] = (
    Port(
        None,
        None,
        "before 0.1.2.5",
        None,
        None,
        None,
        "a region climbs by merged less copied pages, not by their share of the sample:"
        " from 10 merges a pass on, however many pages were sampled",
        "C",
    ),
    Port(
        "4.0",
        "4.7",
        "0.1.2.6",
        None,
        None,
        None,
        "counters and knobs in /sys/kernel/mm/uksm, KsmZeroPages in /proc/meminfo, uksmd's CPU"
        " time; no tracepoints. Only here nr_uksm_zero_pages of /proc/vmstat is right",
        "A",
    ),
    Port(
        "4.8",
        "5.17",
        "0.1.2.6",
        None,
        None,
        None,
        "the same scanner and counters; nr_uksm_zero_pages of /proc/vmstat shows another counter,"
        " from here on: take KsmZeroPages",
        "A",
    ),
    _ported("5.18", 15, "low", _BASIC),
    _ported(
        "5.19",
        10,
        "med",
        "Used for long-term perf testing",
        "a page that may be pinned doesn't merge; cow_ksm in /proc/vmstat (Linux 5.19)",
    ),
    _ported("6.0", 1, "easy", _BASIC),
    _ported(
        "6.1",
        15,
        "med-complex",
        _BUILD,
        "as before; new consistency checks stop the kernel if they fail",
    ),
    _ported("6.2", 4, "med", _BUILD, "the daemon breaks sharing by an unshare fault"),
    _ported("6.3", 8, "med", _BUILD),
    _ported(
        "6.4",
        11,
        "easy",
        _BUILD,
        "prctl(PR_SET_MEMORY_MERGE) succeeds and does nothing; a process's ksm_process_profit"
        " reads 0; no ksm tracepoints, which KSM has from here on",
    ),
    _ported("6.5", 2, "easy", _BUILD),
    _ported(
        "6.6", 9, "easy", _BUILD, "KSM's own count of zero pages is compiled out; UKSM's remains"
    ),
    _ported("6.7", 0, "easy", _BUILD),
    _ported("6.8", 20, "med-complex", _BUILD),
    _ported("6.9", 5, "med", _BUILD),
    _ported(
        "6.10",
        6,
        "med",
        _BUILD,
        "as before; the notifier of changed page table entries is gone (what that means for a"
        " guest is not known)",
    ),
    _ported("6.11", 2, "easy", _BUILD),
    _ported("6.12", 6, "complex", _BUILD),
)
"""Oldest first."""


def port_of(release: str) -> Port | None:
    """The port for a kernel like 6.6 or 6.6.30-vendor; None if none is known."""
    major, minor, _ = parse_release(release)
    for port in PORTS:
        if port.first is None or port.last is None:
            continue
        if parse_release(port.first) <= (major, minor, 0) <= parse_release(port.last):
            return port
    return None


def known_port(release: str) -> Port:
    """The same; raises KsmtraceError (usage) if none is known."""
    port = port_of(release)
    if port is None:
        raise KsmtraceError(
            f"no port of UKSM to Linux {release} is known",
            f"there are ports from {PORTS[1].first} to {PORTS[-1].last}: ksmtrace kernels --uksm",
            Exit.USAGE,
        )
    return port
