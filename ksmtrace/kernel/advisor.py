"""The scan-time advisor's formula (mm/ksm.c, Linux 6.8, 4e5fa4f5eff6; unchanged to 6.19)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

INITIAL_PAGES_WITHOUT = 100
"""pages_to_scan after a switch to advisor_mode none."""
_MIN_CPU = 10
_WEIGHT = 30
_U32 = 0xFFFFFFFF


@dataclass(frozen=True)
class AdvisorKnobs:
    """max_cpu: percent of a core. target_scan_time: seconds."""

    max_cpu: int = 70
    max_pages_to_scan: int = 30000
    target_scan_time: int = 200


@dataclass(frozen=True)
class AdvisorState:
    """What the advisor remembers from the scan before. cpu_ns: ksmd's CPU time then."""

    scan_time: int = 0
    change: int = 0
    cpu_ns: int = 0


@dataclass(frozen=True)
class Decision:
    """What it decided. scan_time: whole seconds. cpu_percent: of one core, during the scan."""

    scan_time: int
    pages_to_scan: int
    cpu_percent: int
    state: AdvisorState


def decide(
    state: AdvisorState,
    knobs: AdvisorKnobs,
    *,
    pages_to_scan: int,
    scan_ns: int,
    ksmd_cpu_ns: int,
) -> Decision:
    """The next pages_to_scan, after a full scan that took `scan_ns`.

    ksmd_cpu_ns: ksmd's CPU time since boot. In the first scan of a mode the state is zero, so
    that all of it counts.
    """
    scan_time = max(1, scan_ns // 1_000_000_000)
    cpu_ms = (ksmd_cpu_ns - state.cpu_ns) // 1_000_000
    cpu_percent = max(1, cpu_ms * 100 // (scan_time * 1000))
    remembered = np.array([state.change])
    change = int(next_change(remembered, scan_time, state.scan_time or scan_time)[0])
    pages = int(
        next_pages_to_scan(
            np.array([change]),
            pages_to_scan=pages_to_scan,
            scan_time=scan_time,
            cpu_percent=cpu_percent,
            target_scan_time=knobs.target_scan_time,
            max_cpu=knobs.max_cpu,
            max_pages_to_scan=knobs.max_pages_to_scan,
        )[0]
    )
    return Decision(scan_time, pages, cpu_percent, AdvisorState(scan_time, change, ksmd_cpu_ns))


def next_change(change: Numbers, scan_time: int, last_scan_time: int) -> Numbers:
    """The average change of the scan time, in percent, after a scan of `scan_time` seconds.

    change: what the advisor may have remembered before, each answered by itself.
    """
    now = max(1, scan_time * 100 // max(1, last_scan_time))
    averages: Numbers = ((100 - _WEIGHT) * change + _WEIGHT * now) // 100
    return averages


def next_pages_to_scan(
    change: Numbers,
    *,
    pages_to_scan: int,
    scan_time: int,
    cpu_percent: int,
    target_scan_time: int,
    max_cpu: int,
    max_pages_to_scan: int,
) -> Numbers:
    """The decision for each average `change`. scan_time, target_scan_time: whole seconds."""
    factor = max(1, target_scan_time * 100 // max(1, scan_time))
    pages = ((pages_to_scan * 100) & _U32) // factor * change // 100
    cost = max(1, pages_to_scan // cpu_percent)
    decided: Numbers = np.minimum(
        np.maximum(np.minimum(pages, cost * max_cpu), cost * _MIN_CPU), max_pages_to_scan
    )
    return decided
