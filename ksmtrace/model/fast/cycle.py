"""The full-scan cycle of the fast engine: ksmd's list, and compiled calls for each member.

It stops between full scans only; so there never is a cursor, and who registers goes to the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ksmtrace.events.batch import EVENT
from ksmtrace.events.registry import KSM_START_SCAN, KSM_STOP_SCAN
from ksmtrace.model.advising import Advising
from ksmtrace.model.fast import scan
from ksmtrace.model.fast.events import FastStream
from ksmtrace.model.fast.handle import handle_of
from ksmtrace.model.fast.memory import FastMemory
from ksmtrace.model.fast.rules import rules_of
from ksmtrace.model.fast.space import FastMm
from ksmtrace.model.fast.tables import (
    ABSENT,
    CHAINS,
    COLD_LEVELS,
    COMPARED,
    COW_KSM,
    DEPTH_UNIT,
    DUPS,
    EVENTS,
    FAILED,
    HASHED,
    IN_TREES,
    KINDS_AT,
    KSM_PAGES,
    MERGES,
    NEXT_FRAME,
    NEXT_PFN,
    NOW,
    PATIENCE,
    RMAP_ITEMS,
    SCAN_UNSHARED,
    SHARED,
    SHARING,
    SHIFT,
    SKIPPED,
    STABLE_DEPTH,
    STABLE_LEVELS,
    UNSHARED,
    UNSTABLE_DEPTH,
    UNSTABLE_LEVELS,
    VISITS,
    VMA,
    ZERO_PAGES,
    Rows,
    Rules,
)
from ksmtrace.model.memory import Mm
from ksmtrace.model.state import State

_EVENTS_A_VISIT = 8
_FRAMES_A_VISIT = 2
_CHUNKS = 200
_LEAST_CHUNK = 1 << 10
_MOST_CHUNK = 1 << 18
_PATIENCE = 256

_COUNTERS = {
    "rmap_items": RMAP_ITEMS,
    "pages_shared": SHARED,
    "pages_sharing": SHARING,
    "pages_unshared": UNSHARED,
    "pages_skipped": SKIPPED,
    "ksm_zero_pages": ZERO_PAGES,
    "stable_node_chains": CHAINS,
    "stable_node_dups": DUPS,
}
"""The scanner's state that compiled code counts."""


@dataclass
class Progress:
    """How far a full scan is. pages: visited so far. state: the counters now."""

    pages: int
    state: State


class FastCycle:
    """ksmd's list of address spaces, and full scans of them.

    on_progress: called some two hundred times in a scan, or after every quarter million visits.
    """

    def __init__(self, state: State, memory: FastMemory, stream: FastStream) -> None:
        self._state = state
        self._memory = memory
        self._stream = stream
        self.slots: list[FastMm] = []
        self.advising = Advising(state)
        self.on_progress: Callable[[Progress], None] | None = None
        self.wakeups = 0

    def enter(self, mm: Mm, parent: Mm | None, *, exec_: bool) -> None:
        """Put an address space on the list."""
        assert isinstance(mm, FastMm)
        self.slots.append(mm)
        mm.slot = mm
        mm.mergeable = True
        self._stream.enter(mm, parent, exec_=exec_)

    def exit(self, mm: Mm) -> None:
        """The last user is gone: leave the list at once, or come up next to be cleaned up."""
        assert isinstance(mm, FastMm)
        if mm.slot is not None:
            if not self._memory.tables.mm["items"][mm.row]:
                self._drop(mm)
            else:
                self.slots.remove(mm)
                self.slots.insert(0, mm)
        self._stream.exit(mm)

    def _drop(self, mm: FastMm) -> None:
        self.slots.remove(mm)
        mm.slot = None
        mm.mergeable = False
        if self._state.behaviour.drop_clears_merge_any:
            mm.merge_any = False

    def full_scan(self, pages_to_scan: int) -> None:
        """Visit everything once, in batches of `pages_to_scan`; without anybody nothing happens."""
        if not self.slots:
            return
        state = self._state
        self.advising.scan_starts()
        state.stream.scan(KSM_START_SCAN, state.seqnr, state.rmap_items)
        visits_before = int(self._memory.tables.counts[VISITS])
        self._pass(visits_before)
        visits = int(self._memory.tables.counts[VISITS]) - visits_before
        batches = visits // pages_to_scan
        self.wakeups += batches + 1
        if state.behaviour.pages_scanned == "exact":
            state.pages_scanned += visits
        elif state.behaviour.pages_scanned == "per_batch":
            state.pages_scanned += batches * (pages_to_scan + 1)
        state.clock.scan_ends()
        self.advising.scan_ends()
        state.stream.scan(KSM_STOP_SCAN, state.seqnr, state.rmap_items)
        state.seqnr += 1

    def _pass(self, visits_before: int) -> None:
        self._tell_regions()
        rules = self._begin()
        reserve = scan.begin_scan(handle_of(self._memory.tables), rules)
        self._make_room(rules, reserve)
        if rules["per_node"] or not self._state.settings.merge_across_nodes:
            scan.prune_migrating(handle_of(self._memory.tables), rules)
        visited_none = self._state.behaviour.prot_none != "not_visited"
        for mm in list(self.slots):
            spans = mm.spans(prot_none_visited=visited_none)
            self._scan(rules, mm, spans, reserve, visits_before)
            if not mm.users or not any(vma.mergeable for vma in mm.vmas):
                self._drop(mm)
        self._end()

    def _scan(
        self, rules: Rules, mm: FastMm, spans: Rows, reserve: int, visits_before: int
    ) -> None:
        cursor = np.zeros(2, np.int64)
        while True:
            room = self._make_room(rules, reserve)
            done = scan.scan_mm(handle_of(self._memory.tables), rules, mm.row, spans, cursor, room)
            self._drain()
            if done:
                return
            if self.on_progress is not None:
                self._take_counters()
                pages = int(self._memory.tables.counts[VISITS]) - visits_before
                self.on_progress(Progress(pages, self._state))

    def _make_room(self, rules: Rules, reserve: int) -> int:
        """Have room for a number of visits, and return that."""
        memory = self._memory
        visits = min(max(len(memory.tables.place) // _CHUNKS, _LEAST_CHUNK), _MOST_CHUNK)
        memory.ready(
            per_node=bool(rules["per_node"]),
            nodes=2 * visits,
            chains=visits,
            events=reserve + _EVENTS_A_VISIT * visits if rules["keep_events"] else 0,
        )
        counts = memory.tables.counts
        counts[STABLE_DEPTH] = _depth(int(counts[IN_TREES]))
        counts[UNSTABLE_DEPTH] = _depth(int(counts[SCAN_UNSHARED]))
        memory.frames_used = int(counts[NEXT_FRAME])
        memory.reserve_frames(_FRAMES_A_VISIT * visits)
        return visits

    def _begin(self) -> Rules:
        """Hand compiled code what Python knows."""
        state, memory = self._state, self._memory
        rules = rules_of(state, memory, keep_events=self._stream.keep)
        memory.ready(per_node=bool(rules["per_node"]), nodes=2, chains=2, events=0)
        counts = memory.tables.counts
        for name, at in _COUNTERS.items():
            counts[at] = getattr(state, name)
        counts[NOW] = state.clock.now_ns
        counts[COW_KSM] = memory.cow_ksm
        counts[NEXT_FRAME] = memory.frames_used
        counts[NEXT_PFN] = memory.next_pfn
        counts[SHIFT] = memory.shift
        counts[PATIENCE] = _PATIENCE
        counts[EVENTS] = 0
        counts[SCAN_UNSHARED] = 0
        return rules

    def _end(self) -> None:
        """Take back what compiled code changed."""
        self._drain()
        self._take_counters()
        counts = self._memory.tables.counts
        passed = int(counts[NOW]) - self._state.clock.now_ns
        self._state.clock.now_ns += passed
        self._state.clock.ksmd_cpu_ns += passed
        self._memory.cow_ksm = int(counts[COW_KSM])
        self._memory.frames_used = int(counts[NEXT_FRAME])
        self._memory.next_pfn = int(counts[NEXT_PFN])

    def _take_counters(self) -> None:
        for name, at in _COUNTERS.items():
            setattr(self._state, name, int(self._memory.tables.counts[at]))

    def _drain(self) -> None:
        tables = self._memory.tables
        events = int(tables.counts[EVENTS])
        tables.counts[EVENTS] = 0
        kinds = tables.counts[KINDS_AT : KINDS_AT + len(self._stream.counts)]
        self._stream.counts += kinds
        kinds[:] = 0
        if events:
            self._stream.add(tables.events[:events].reshape(-1).view(EVENT))

    def _tell_regions(self) -> None:
        """Tell compiled code which regions there are."""
        rows: list[tuple[int, int, bool]] = []
        for mm in self.slots:
            self._memory.tables.mm["vmas"][mm.row] = len(rows)
            rows += [(vma.end, vma.nid, vma.protection == "none") for vma in mm.vmas]
        self._memory.tables = self._memory.tables._replace(vma=np.array(rows, VMA))

    def sweep(self) -> bool:
        """Remove every stable node; False if one is still mapped."""
        rules = self._begin()
        reserve = scan.begin_scan(handle_of(self._memory.tables), rules)
        nodes = int(self._memory.tables.counts[SHARED] + self._memory.tables.counts[SHARING])
        self._make_room(rules, reserve + nodes + len(self._memory.tables.node))
        clean = bool(scan.sweep(handle_of(self._memory.tables), rules))
        self._end()
        return clean

    def unmerge_everything(self) -> None:
        """Unshare all, free all rmap_items, remove all stable nodes (run=2)."""
        state = self._state
        for mm in list(self.slots):
            if mm.users:
                for vma in mm.vmas:
                    if vma.mergeable:
                        state.memory.unshare(mm, vma.start, vma.end)
            rules = self._begin()
            reserve = scan.begin_scan(handle_of(self._memory.tables), rules)
            spans = mm.spans(prot_none_visited=False)
            spans["visited"] = 0
            self._scan(rules, mm, spans, reserve, 0)
            self._end()
            if not mm.users:
                self._drop(mm)
        if state.behaviour.run_2_sweeps:
            self.sweep()
        state.seqnr = 0

    @property
    def counted(self) -> dict[str, int]:
        """What was done so far, for `model.work`."""
        counts = self._memory.tables.counts
        return {
            "visits": int(counts[VISITS]),
            "absent": int(counts[ABSENT]),
            "skipped": int(counts[SKIPPED]),
            "hashed": int(counts[HASHED]),
            "stable_levels": int(counts[STABLE_LEVELS]) // DEPTH_UNIT,
            "unstable_levels": int(counts[UNSTABLE_LEVELS]) // DEPTH_UNIT,
            "cold_levels": int(counts[COLD_LEVELS]) // DEPTH_UNIT,
            "ksm_pages": int(counts[KSM_PAGES]),
            "compared_bytes": int(counts[COMPARED]),
            "merges": int(counts[MERGES]),
            "failed": int(counts[FAILED]),
        }


def _depth(nodes: int) -> int:
    """How many nodes a search of a tree passes, in parts of one."""
    return round(math.log2(nodes + 1) * DEPTH_UNIT)
