"""The scan-time advisor's formula (mm/ksm.c, Linux 6.8, 4e5fa4f5eff6; unchanged to 6.19)."""

from __future__ import annotations

from dataclasses import dataclass

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
    last = state.scan_time or scan_time
    factor = max(1, knobs.target_scan_time * 100 // scan_time)
    change = max(1, scan_time * 100 // last)
    change = ((100 - _WEIGHT) * state.change + _WEIGHT * change) // 100
    pages = ((pages_to_scan * 100) & _U32) // factor * change // 100
    cost = max(1, pages_to_scan // cpu_percent)
    pages = max(min(pages, cost * knobs.max_cpu), cost * _MIN_CPU)
    pages = min(pages, knobs.max_pages_to_scan)
    return Decision(scan_time, pages, cpu_percent, AdvisorState(scan_time, change, ksmd_cpu_ns))
