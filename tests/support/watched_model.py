"""The model performing a scenario under observation: what becomes of each page it merges.

The model is watched, not changed: methods of its parts are wrapped.
"""

from __future__ import annotations

import numpy as np

from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.events.registry import (
    COW_BREAK,
    LEFT_DISCARD,
    LEFT_MREMAP,
    LEFT_MUNMAP,
    LEFT_PRCTL,
    LEFT_UNMERGEABLE,
    RANGE_LEFT,
    WHOLE_ADDRESS_SPACE,
    ZERO_PAGE,
)
from ksmtrace.kernel.releases import Profile
from ksmtrace.lab import operations as op
from ksmtrace.lab.on_model import ModelStage
from ksmtrace.lab.performance import Observation
from ksmtrace.lab.plan import Plan
from ksmtrace.model.branches import Branch
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.memory import Frame, Mm
from ksmtrace.model.structures import MmSlot, RmapItem, StableChain, StableNode
from tests.support.batches import Row, event
from tests.support.recordings import BEGIN
from tests.support.truth import (
    Allocation,
    Cause,
    CensusRow,
    How,
    ItemEnd,
    Life,
    Node,
    Region,
    StepSeen,
    Truth,
)

EVENT_NS = 1_000
STEP_NS = 50_000_000
AFTER_NS = 20_000_000
"""From an operation's last event to the samples that follow it."""

_CAUSES: dict[type, tuple[Cause, str]] = {
    op.Write: ("written", "write"),
    op.WritePart: ("written", "write"),
    op.Unmap: ("unmapped", "unmap"),
    op.Remap: ("moved", "move"),
    op.Exit: ("exit", "exit"),
    op.Exec: ("exit", "exit"),
    op.MergeAny: ("unmerged", "prctl"),
    op.SetKnob: ("unmerged", "run=2"),
    op.Scan: ("undone", "ksmd"),
    op.Batch: ("undone", "ksmd"),
}
_RANGES = {"discard": LEFT_DISCARD, "unmergeable": LEFT_UNMERGEABLE}


class _WatchedModel(ModelStage):
    """A model under observation."""

    def __init__(self, plan: Plan, profile: Profile) -> None:
        super().__init__(plan, profile, on="model")
        self.lives: list[Life] = []
        self.nodes: list[Node] = []
        self.marks: list[tuple[int, Row]] = []
        self.parents: dict[int, int] = {}
        self.allocations: list[Allocation] = []
        self.known: set[int] = set()
        self.now = BEGIN
        self.started = 0
        self.doing: op.Operation | None = None
        self._node_of: dict[StableNode, Node] = {}
        self._at: dict[tuple[int, int], Life] = {}
        self._on: dict[RmapItem, Life] = {}
        self._merge_of: dict[RmapItem, tuple[How, int, int]] = {}
        self._first_half: Frame | None = None
        self.begin: StepSeen | None = None
        self._watch_memory()
        self._watch_merging()
        self._watch_nodes()
        self._watch_deaths()
        self._watch_numbers()

    # When.

    @property
    def position(self) -> int:
        return self.scanner._state.stream.position

    @property
    def ns(self) -> int:
        """The time of the event before, or of the operation's begin."""
        return self.now + EVENT_NS * (self.position - self.started)

    # Whose numbers are free again.

    def _watch_numbers(self) -> None:
        memory, cycle = self.memory, self.scanner._cycle
        new_frame, spawn, item_for = memory.new_frame, memory.spawn, cycle._item_for
        log = self.allocations

        def framed(content: bytes, nid: int = 0) -> Frame:
            frame = new_frame(content, nid)
            log.append(("pfn", frame.pfn, True))
            return frame

        def spawned(tgid: int) -> Mm:
            mm = spawn(tgid)
            log.append(("mm", mm.id, True))
            return mm

        def item_found(slot: MmSlot, mm: Mm, address: int) -> RmapItem:
            before = cycle._next_item
            item = item_for(slot, mm, address)
            if cycle._next_item != before:
                log.append(("item", item.id, True))
            return item

        memory.new_frame = framed  # type: ignore[method-assign]
        memory.spawn = spawned  # type: ignore[method-assign]
        cycle._item_for = item_found  # type: ignore[method-assign]
        self._watch_freeing()

    def _watch_freeing(self) -> None:
        memory, cycle = self.memory, self.scanner._cycle
        unpin, exit_, free, drop = memory.unpin, memory.exit, cycle._free, cycle._drop
        log = self.allocations

        def unpinned(frame: Frame) -> None:
            unpin(frame)
            self._maybe_dead(frame)

        def exited(mm: Mm) -> None:
            exit_(mm)
            if mm.slot is None:
                log.append(("mm", mm.id, False))

        def freed(item: RmapItem) -> None:
            free(item)
            log.append(("item", item.id, False))

        def dropped(slot: MmSlot) -> None:
            drop(slot)
            if slot.mm not in memory.mms:
                log.append(("mm", slot.mm.id, False))

        memory.unpin = unpinned  # type: ignore[method-assign]
        memory.exit = exited  # type: ignore[method-assign]
        cycle._free = freed  # type: ignore[method-assign]
        cycle._drop = dropped  # type: ignore[method-assign]

    def _maybe_dead(self, frame: Frame | None) -> None:
        if frame is not None and not frame.alive:
            self.allocations.append(("pfn", frame.pfn, False))

    # What ends mappings.

    def _cause(self) -> tuple[Cause, str]:
        doing = self.doing
        if isinstance(doing, op.Advise):
            return ("unmapped" if doing.advice == "discard" else "unmerged"), doing.advice
        return _CAUSES[type(doing)]

    def _gone(self, mm: Mm, address: int) -> None:
        life = self._at.pop((mm.id, address), None)
        if life is not None:
            life.end = self.ns
            life.cause, life.by = self._cause()

    def _watch_memory(self) -> None:
        memory = self.memory
        unmap_page, replace_page, write = memory.unmap_page, memory.replace_page, memory.write

        def unmapped(mm: Mm, address: int) -> None:
            self._gone(mm, address)
            frame = mm.pages.get(address)
            unmap_page(mm, address)
            self._maybe_dead(frame)

        def replaced(mm: Mm, address: int, frame: Frame) -> None:
            old = mm.pages.get(address)
            if old is not frame:
                self._gone(mm, address)
            replace_page(mm, address, frame)
            self._maybe_dead(old)

        def written(mm: Mm, address: int, content: bytes) -> None:
            frame = mm.pages.get(address)
            zero = address in mm.ksm_zero
            merged = frame is not None and (frame.ksm or zero)
            write(mm, address, content)
            if merged:
                assert frame is not None
                arg = ZERO_PAGE if zero else 0
                self._mark(
                    event(
                        COW_BREAK, pfn=frame.pfn, item=0xC0DE, mm=mm.id, addr=address,
                        tgid=mm.tgid, arg=arg,
                    )
                )  # fmt: skip

        memory.unmap_page = unmapped  # type: ignore[method-assign]
        memory.replace_page = replaced  # type: ignore[method-assign]
        memory.write = written  # type: ignore[method-assign]

    def _mark(self, row: Row) -> None:
        self.marks.append((self.position, {**row, "ts": self.ns}))

    # What begins lives.

    def _watch_merging(self) -> None:
        visit = self.scanner._cycle.visit
        merge = visit._merge_with_ksm_page
        stream = self.scanner._state.stream
        zero_merged = stream.merge_one_page

        def merged(
            item: RmapItem, page: Frame, ksm_page: Frame | None, held: Frame | None = None
        ) -> int:
            err = merge(item, page, ksm_page, held)
            how: How = "joined"
            if ksm_page is None:
                how = "created"
            elif page is ksm_page:
                how = "inherited"
            elif self._first_half is ksm_page:
                how = "partner"
            self._first_half = page if ksm_page is None and err == 0 else None
            if err == 0:
                self._merge_of[item] = (how, self.position - 1, self.ns)
            return err

        def zeroed(zero_page: Frame, item: RmapItem, err: int) -> None:
            zero_merged(zero_page, item, err)
            if err == 0:
                self._merge_of[item] = ("zero_page", self.position - 1, self.ns)
                self._born(item, None, zero_page)

        visit._merge_with_ksm_page = merged  # type: ignore[method-assign]
        stream.merge_one_page = zeroed  # type: ignore[method-assign]

    def _born(self, item: RmapItem, node: Node | None, frame: Frame) -> Life:
        how, index, ns = self._merge_of.pop(item)
        mm = item.mm
        assert mm.pages.get(item.address) is frame, "a life begins with its mapping there"
        assert (mm.id, item.address) not in self._at, "a life begins twice"
        life = Life(
            self._names[mm.id], mm.id, mm.tgid, item.address, how, index, ns,
            None if node is None else node.number, frame,
        )  # fmt: skip
        self.lives.append(life)
        self._at[mm.id, item.address] = life
        if node is not None:
            node.lives.append(life)
            self._on[item] = life
        return life

    def _watch_nodes(self) -> None:
        stable = self.scanner._cycle.visit.stable
        append, detach, insert = stable.append, stable.detach, stable.insert

        def inserted(frame: Frame) -> StableNode | None:
            node = insert(frame)
            if node is not None:
                known = Node(len(self.nodes), frame.pfn, self.ns, chained=node.chain is not None)
                self.nodes.append(known)
                self._node_of[node] = known
            return node

        def appended(item: RmapItem, node: StableNode) -> None:
            append(item, node)
            self._born(item, self._node_of[node], node.frame)

        def detached(item: RmapItem, where: Branch = Branch.STALE_MET_BY_ITEM) -> None:
            detach(item, where)
            # A dead node's items have left with it.
            if item in self._on:
                self._left(item, "silent")

        stable.append = appended  # type: ignore[method-assign]
        stable.detach = detached  # type: ignore[method-assign]
        stable.insert = inserted  # type: ignore[method-assign]

    def _watch_deaths(self) -> None:
        stable = self.scanner._cycle.visit.stable
        destroy, add_dup = stable.destroy, stable._add_dup

        def destroyed(node: StableNode) -> None:
            items = list(node.items)
            destroy(node)
            known = self._node_of[node]
            known.died = self.ns
            known.by_sweep = isinstance(self.doing, op.SetKnob)
            for number, item in enumerate(items):
                self._left(item, "stale" if number else "stale_oldest")

        def dup_added(chain: StableChain, node: StableNode) -> None:
            add_dup(chain, node)
            if node in self._node_of:
                self._node_of[node].chained = True

        stable.destroy = destroyed  # type: ignore[method-assign]
        stable._add_dup = dup_added  # type: ignore[method-assign]

    def _left(self, item: RmapItem, how: ItemEnd) -> None:
        life = self._on.pop(item)
        life.item_ns = self.ns
        life.item_end = "run=2" if isinstance(self.doing, op.SetKnob) else how

    # The operations.

    def _do(self, operation: op.Operation) -> None:
        if self.begin is None:
            self.begin = self.seen(op.Wait(0), None, BEGIN)
        self.doing = operation
        self.started = self.position
        mms = {mm.id for mm in self.memory.mms}
        was_any = {mm.id: mm.merge_any for mm in self.memory.mms}
        super()._do(operation)
        match operation:
            case op.Remap(process, start, length):
                mm = self._mms[process]
                for key, life in list(self._at.items()):
                    moved = key[0] == mm.id and start <= key[1] < start + length
                    if moved and mm.pages.get(key[1]) is not life.frame:
                        self._gone(mm, key[1])
                self._range_left(mm, start, length, LEFT_MREMAP)
            case op.Unmap(process, start, length):
                self._range_left(self._mms[process], start, length, LEFT_MUNMAP)
            case op.Advise(process, start, length, advice) if advice in _RANGES:
                self._range_left(self._mms[process], start, length, _RANGES[advice])
            case op.MergeAny(process, False) if was_any[self._mms[process].id]:
                self._range_left(self._mms[process], 0, 0, LEFT_PRCTL)
            case op.Fork(process, child):
                self.parents[self._mms[child].tgid] = self._mms[process].tgid
        self.known |= {mm.id for mm in self.memory.mms if mm.mergeable}
        self.known &= mms | {mm.id for mm in self.memory.mms}

    def _range_left(self, mm: Mm, start: int, length: int, how: int) -> None:
        if mm.mergeable:
            pages = WHOLE_ADDRESS_SPACE if how == LEFT_PRCTL else length // PAGE_SIZE
            row = event(RANGE_LEFT, mm=mm.id, addr=start, tgid=mm.tgid, arg=pages, err=how)
            self._mark(row)

    def seen(self, operation: op.Operation, full_scans: int | None, ns: int) -> StepSeen:
        """The state now."""
        alive = [mm for mm in self.memory.mms if mm.users and mm.id in self.known]
        return StepSeen(
            ns,
            operation,
            full_scans,
            dict(self.scanner.counters),
            dict(self.scanner.knobs),
            {mm.tgid: self.scanner.ksm_stat(mm) for mm in alive},
            [
                CensusRow(mm.tgid, mm.id, address, frame.pfn)
                for mm in alive
                for address, frame in sorted(mm.pages.items())
                if frame.ksm
            ],
            [Region(mm.tgid, vma.start, vma.end, vma.mergeable) for mm in alive for vma in mm.vmas],
            [(mm.tgid, self._names[mm.id]) for mm in alive],
            {(mm.tgid, address) for mm in self.memory.mms for address in mm.ksm_zero},
        )


def truth_of(plan: Plan, profile: Profile) -> Truth:
    """Perform a plan on the model, and tell what happened. Raises KsmtraceError as the lab does."""
    stage = _WatchedModel(plan, profile)
    batches: list[EventBatch] = []
    steps: list[StepSeen] = []
    stage.now = BEGIN + STEP_NS

    def watch(seen: Observation) -> None:
        batch = seen.events.copy()
        batch["ts"] = stage.now + EVENT_NS * np.arange(1, len(batch) + 1)
        batches.append(batch)
        assert stage.doing is not None
        ns = stage.now + EVENT_NS * (len(batch) + 1) + AFTER_NS
        steps.append(stage.seen(stage.doing, seen.scan, ns))
        stage.now = ns + STEP_NS

    stage.perform(watch=watch)
    begin = stage.begin or stage.seen(op.Wait(0), None, BEGIN)
    zero_pfn = stage.memory.zero_frame.pfn
    return Truth(
        profile, begin, concatenate(batches), stage.lives, stage.nodes, steps, stage.marks,
        stage.parents, zero_pfn, stage.allocations,
    )  # fmt: skip
