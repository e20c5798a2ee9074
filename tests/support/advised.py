"""Hosts made up for the advisor: one that is well, and changes that make it ill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ksmtrace.inspect.advise.facts import Facts, Process, Series

SECONDS = 10.0
_SAMPLES = 11
MIB = 1 << 20
WELL_KNOBS: Mapping[str, str] = {
    "run": "1",
    "pages_to_scan": "101",
    "sleep_millisecs": "20",
    "merge_across_nodes": "1",
    "max_page_sharing": "256",
    "use_zero_pages": "1",
    "smart_scan": "1",
    "advisor_mode": "none",
    "advisor_max_cpu": "70",
    "advisor_max_pages_to_scan": "30000",
    "advisor_target_scan_time": "200",
}
WELL_BEFORE: Mapping[str, int] = {
    "full_scans": 700,
    "pages_shared": 2_003,
    "pages_sharing": 40_009,
    "pages_unshared": 57_991,
    "pages_volatile": 0,
    "pages_scanned": 1_000_003,
    "pages_skipped": 0,
    "ksm_zero_pages": 0,
    "stable_node_chains": 0,
    "stable_node_dups": 0,
    "general_profit": 40_009 * 4096 - 100_003 * 64,
    "cow_ksm": 30_011,
    "ksmd_cpu_ns": 7_000_000_000,
}
"""Sums up to 100,003 pages on ksmd's list; 0.05 s of CPU for 50,021 visits."""
WELL_GROWTH: Mapping[str, int] = {
    "full_scans": 5,
    "pages_scanned": 50_021,
    "ksmd_cpu_ns": 50_000_000,
}


def process(tgid: int = 4_007, **more: Any) -> Process:
    """A process that pays."""
    facts = {
        "comm": "shop",
        "cgroup": "/shop.slice/shop.service",
        "rmap_items": 100_003,
        "merging_pages": 42_012,
        "zero_pages": 0,
        "profit_bytes": 42_012 * 4096 - 100_003 * 64,
        "merge_any": True,
    }
    return Process(tgid=tgid, **{**facts, **more})


def host(
    *,
    knobs: Mapping[str, object] | None = None,
    now: Mapping[str, int | None] | None = None,
    grew: Mapping[str, int] | None = None,
    **facts: Any,
) -> Facts:
    """The host that is well, but for: knobs, counters that always stood so, growth of counters.

    A counter or knob of None is absent.
    """
    begin = {**WELL_BEFORE, **(now or {})}
    growth = {**WELL_GROWTH, **(grew or {})}
    share = np.linspace(0, 1, _SAMPLES)
    told: dict[str, Any] = {
        "source": "this host",
        "kernel": "6.18.2",
        "live": True,
        "series": Series(
            share * SECONDS,
            {n: v + np.rint(share * growth.get(n, 0)) for n, v in begin.items() if v is not None},
        ),
        "knobs": {
            name: str(value)
            for name, value in {**WELL_KNOBS, **(knobs or {})}.items()
            if value is not None
        },
        "rmap_item_bytes": 64,
        "cpus": 3,
        "memory_bytes": 7 << 30,
        "observed_s": SECONDS,
        "processes": (process(),),
        "scan_s": 2.0,
        "scans": 5,
        "nodes": 1,
        "mergeable_bytes": 1 << 30,
        "mem_available_bytes": 5 << 30,
        "swap_free_bytes": 0,
        "shared": (),
    }
    return Facts(**{**told, **facts})
