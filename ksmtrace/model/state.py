"""What every part of the scanner shares: settings, counters, the way out for events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ksmtrace.kernel.releases import Behaviour
from ksmtrace.model.branches import Branch
from ksmtrace.model.clock import Clock
from ksmtrace.model.memory import Memory
from ksmtrace.model.stream import ModelStream


@dataclass
class Settings:
    """The knobs, as numbers; named as in sysfs."""

    run: int = 0
    pages_to_scan: int = 100
    sleep_millisecs: int = 20
    merge_across_nodes: int = 1
    max_page_sharing: int = 256
    stable_node_chains_prune_millisecs: int = 2000
    use_zero_pages: int = 0
    smart_scan: int = 1
    advisor_mode: str = "none"
    advisor_max_cpu: int = 70
    advisor_min_pages_to_scan: int = 500
    advisor_max_pages_to_scan: int = 30000
    advisor_target_scan_time: int = 200


@dataclass
class State:
    """One scanner's state. The numbers are those of sysfs, full_scans being seqnr."""

    memory: Memory
    behaviour: Behaviour
    clock: Clock
    stream: ModelStream
    settings: Settings = field(default_factory=Settings)
    reached: Counter[Branch] = field(default_factory=Counter)
    item_lives: dict[int, list[int]] | None = None
    """Between which events each rmap_item lived; the second number is missing while it does."""
    seqnr: int = 0
    rmap_items: int = 0
    pages_shared: int = 0
    pages_sharing: int = 0
    pages_unshared: int = 0
    pages_scanned: int = 0
    pages_skipped: int = 0
    ksm_zero_pages: int = 0
    stable_node_chains: int = 0
    stable_node_dups: int = 0

    def nid_of(self, nid: int) -> int:
        """Which trees a page on NUMA node `nid` belongs to."""
        per_node = self.behaviour.numa_trees and not self.settings.merge_across_nodes
        return nid if per_node else 0
