"""How long ksmd would take to merge, and what CPU that costs: arithmetic from its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ksmtrace.kernel.costs import DEFAULT, Costs
from ksmtrace.kernel.scanning import MOST_SCANS_SKIPPED, SCANS_TO_MERGE
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.work import WARM_LEVELS, Work

SMART_SCAN_VISITS = 1 / (MOST_SCANS_SKIPPED + 1)
"""How often smart scan looks at a page that never merges: it leaves it out most times."""

_WORD = 8
_LEVELS_SPARED = 1.1
"""By how much fewer nodes than log2 of the tree's size a walk passes while the tree grows."""


@dataclass(frozen=True)
class Pace:
    """ksmd's settings."""

    pages_to_scan: int
    sleep_millisecs: int
    smart_scan: bool = False


@dataclass(frozen=True)
class Pages:
    """What ksmd meets. candidates: all of it. merging: pages that merge, KSM pages among them.

    leaving: those that are mapped to the zero page then, and are not looked at again. ksm_pages:
    how many KSM pages there will be.
    """

    candidates: float
    merging: float
    leaving: float = 0
    ksm_pages: float = 0


@dataclass(frozen=True)
class Cost:
    """seconds: until everything is merged; None if ksmd never gets there. cpu_seconds: of ksmd.

    scan_seconds: one full scan then, which goes on for ever; cpu_percent: of one core, while it
    does. visit_ns: a page's share of that, by what ksmd does with it: notes its checksum, merges
    it, finds that it is merged, searches for a twin and finds none. engine: what told it. pace:
    what it was told from.
    """

    seconds: float | None
    scan_seconds: float | None
    cpu_seconds: float
    cpu_percent: float | None
    pace: Pace
    visit_ns: Mapping[str, float]
    engine: Literal["arithmetic"] = "arithmetic"


def pace_of(knobs: dict[str, str]) -> Pace:
    """The host's knobs, as HostSampler reads them."""
    return Pace(
        pages_to_scan=int(knobs.get("pages_to_scan", "100")),
        sleep_millisecs=int(knobs.get("sleep_millisecs", "20")),
        smart_scan=knobs.get("smart_scan") == "1",
    )


def cost(pages: Pages, pace: Pace, costs: Costs = DEFAULT) -> Cost:
    """Arithmetic: visits of each kind, and a sleep after each pages_to_scan of them."""
    alone = pages.candidates - pages.merging
    ns = visit_ns(pages, costs)
    cpu_s = _cpu(ns, first=pages.candidates, merge=pages.merging, search=alone)
    if not pages.candidates:
        return Cost(0.0, None, 0.0, None, pace, ns)
    if not pace.pages_to_scan:
        return Cost(None, None, cpu_s, None, pace, ns)
    batches = math.ceil(pages.candidates / pace.pages_to_scan)
    cpu_s += SCANS_TO_MERGE * batches * costs.wakeup_ns / 1e9
    searched = alone * (SMART_SCAN_VISITS if pace.smart_scan else 1)
    stays = pages.merging - pages.leaving
    batches_then = math.ceil((stays + searched) / pace.pages_to_scan)
    scan_cpu_s = _cpu(
        ns, merged=stays, search=searched, left_out=alone - searched, passed=pages.leaving
    )
    scan_cpu_s += batches_then * costs.wakeup_ns / 1e9
    scan_s = _sleeps(batches_then, pace) + scan_cpu_s
    return Cost(
        seconds=SCANS_TO_MERGE * _sleeps(batches, pace) + cpu_s,
        scan_seconds=scan_s,
        cpu_seconds=cpu_s,
        cpu_percent=100 * scan_cpu_s / scan_s if scan_s else None,
        pace=pace,
        visit_ns=ns,
    )


def visit_ns(pages: Pages, costs: Costs = DEFAULT) -> dict[str, float]:
    """Ksmd's CPU time for one page in nanoseconds, by what it does with it (see Cost).

    Checksums are those since Linux 5.0. Two pages of each content find each other in the unstable
    tree, the others find the KSM page.
    """
    alone = pages.candidates - pages.merging
    mapped = pages.merging - pages.leaving
    stable, unstable = _levels(pages.ksm_pages), _levels(alone + min(mapped, pages.ksm_pages))
    visit = Work(visits=1)
    noted = Work(visits=1, xxhash_bytes=PAGE_SIZE)

    def walks(stable_walks: float, unstable_walks: float) -> float:
        levels = stable_walks * stable + unstable_walks * unstable
        cold = stable_walks * max(0, stable - WARM_LEVELS)
        cold += unstable_walks * max(0, unstable - WARM_LEVELS)
        return (
            stable_walks * stable * costs.stable_level_ns
            + unstable_walks * unstable * costs.unstable_level_ns
            + cold * costs.cold_level_ns
            + levels * _WORD * costs.compare_byte_ns
        )

    # Held against what it is equal to in a tree, and once more before the merge.
    merge = Work(merges=1, compared_bytes=2 * PAGE_SIZE).ns(costs)
    made = min(0.5, pages.ksm_pages / mapped) if mapped else 0.0
    joining = walks(1 + made, 2 * made) + (1 - made) * merge + made * costs.ksm_page_ns
    zero = Work(merges=1, compared_bytes=PAGE_SIZE).ns(costs)
    share = pages.leaving / pages.merging if pages.merging else 0.0
    return {
        "first": noted.ns(costs),
        "merge": noted.ns(costs) + share * zero + (1 - share) * joining,
        "merged": visit.ns(costs),
        "search": noted.ns(costs) + walks(1, 1),
        "left_out": costs.skip_ns,
        "passed": costs.absent_ns,
    }


def _levels(nodes: float) -> float:
    """What a walk passes in a tree that grows to so many nodes."""
    return max(0.0, math.log2(nodes) - _LEVELS_SPARED) if nodes > 1 else 0.0


def _cpu(ns: Mapping[str, float], **visits: float) -> float:
    return sum(ns[kind] * number for kind, number in visits.items()) / 1e9


def _sleeps(batches: int, pace: Pace) -> float:
    return batches * pace.sleep_millisecs / 1000
