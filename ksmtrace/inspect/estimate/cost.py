"""How long ksmd would take to merge, and what CPU that costs: arithmetic from its settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ksmtrace.kernel.scanning import MOST_SCANS_SKIPPED, SCANS_TO_MERGE

NS_OF_VISIT = {"first": 1_000, "merge": 5_000, "merged": 350, "search": 9_000}
"""ksmd's CPU time, by what it does with a page: notes its checksum, merges it, finds that it is
merged, searches for a twin and finds none. Measured: Linux 6.18, x86-64, a virtual machine,
40,000 to 600,000 pages; a search takes longer in a larger tree."""

SMART_SCAN_VISITS = 1 / (MOST_SCANS_SKIPPED + 1)
"""How often smart scan looks at a page that never merges: it leaves it out most times."""


@dataclass(frozen=True)
class Pace:
    """ksmd's settings."""

    pages_to_scan: int
    sleep_millisecs: int
    smart_scan: bool = False


@dataclass(frozen=True)
class Pages:
    """What ksmd meets. candidates: all of it. merging: pages that merge.

    leaving: those that are mapped to the zero page then, and are not looked at again.
    """

    candidates: float
    merging: float
    leaving: float = 0


@dataclass(frozen=True)
class Cost:
    """seconds: until everything is merged; None if ksmd never gets there. cpu_seconds: of ksmd.

    scan_seconds: one full scan then, which goes on for ever; cpu_percent: of one core, while it
    does. engine: what told it. pace: what it was told from.
    """

    seconds: float | None
    scan_seconds: float | None
    cpu_seconds: float
    cpu_percent: float | None
    pace: Pace
    engine: Literal["arithmetic"] = "arithmetic"


def pace_of(knobs: dict[str, str]) -> Pace:
    """The host's knobs, as HostSampler reads them."""
    return Pace(
        pages_to_scan=int(knobs.get("pages_to_scan", "100")),
        sleep_millisecs=int(knobs.get("sleep_millisecs", "20")),
        smart_scan=knobs.get("smart_scan") == "1",
    )


def cost(pages: Pages, pace: Pace) -> Cost:
    """Arithmetic: visits of each kind, and a sleep after each pages_to_scan of them."""
    alone = pages.candidates - pages.merging
    first_s = _cpu(first=pages.candidates)
    second_s = _cpu(merge=pages.merging, search=alone)
    cpu_s = first_s + second_s
    if not pages.candidates:
        return Cost(0.0, None, 0.0, None, pace)
    if not pace.pages_to_scan:
        return Cost(None, None, cpu_s, None, pace)
    searched = alone * (SMART_SCAN_VISITS if pace.smart_scan else 1)
    stays = pages.merging - pages.leaving
    scan_cpu_s = _cpu(merged=stays + alone - searched, search=searched)
    scan_s = _sleeps(stays + alone, pace) + scan_cpu_s
    return Cost(
        seconds=SCANS_TO_MERGE * _sleeps(pages.candidates, pace) + cpu_s,
        scan_seconds=scan_s,
        cpu_seconds=cpu_s,
        cpu_percent=100 * scan_cpu_s / scan_s if scan_s else None,
        pace=pace,
    )


def _cpu(**visits: float) -> float:
    return sum(NS_OF_VISIT[kind] * number for kind, number in visits.items()) / 1e9


def _sleeps(pages: float, pace: Pace) -> float:
    return math.ceil(pages / pace.pages_to_scan) * pace.sleep_millisecs / 1000
