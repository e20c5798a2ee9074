"""Merges: which page ksmd visits, what it may do with it, and which KSM page it ends up on.

A rmap_item is one (address space, address) from its birth until ksmd passes that address without
finding a page there: no event tells, but ksmd passes each address once a scan. So the same pointer
elsewhere, or another pointer at the same place, takes scans that can be counted.
"""

from __future__ import annotations

from ksmtrace.events.registry import FIRST_SIGHT, INTO_EXISTING, MAPCOUNT_SHIFT
from ksmtrace.replay.conformance_processes import Processes
from ksmtrace.replay.conformance_scan import Scans, stamp, unfinished
from ksmtrace.replay.conformance_state import (
    EFAULT,
    Half,
    Impossible,
    Item,
    Mm,
    Node,
    Phase,
    Proven,
    Stage,
    World,
)


class Pages:
    """Judges ksm_merge_with_ksm_page and ksm_merge_one_page."""

    def __init__(self, world: World, processes: Processes, scans: Scans) -> None:
        self._world = world
        self._processes = processes
        self._scans = scans
        behaviour = world.profile.behaviour
        self._stable_first = behaviour.visit_order != "checksum_first"
        # Before max_page_sharing a new KSM page may find its place in the tree taken: undone.
        self._pairs_stand = behaviour.chains != "absent"
        self._flags_known = "first_sight" not in world.unknown
        self._limited = self._pairs_stand and "mapcount" not in world.unknown

    def merge_with_ksm_page(
        self, pfn: int, pointer: int, mm_pointer: int, addr: int, tgid: int, err: int, arg: int
    ) -> None:
        """ksm_merge_with_ksm_page."""
        world = self._world
        mm = self._alive(mm_pointer, addr, tgid)
        if err not in (0, EFAULT):
            raise Impossible("value", f"a merge can't end with {err}")
        if world.scan_claims:
            self._scans.goes_on()
        expected = world.expected
        if expected is not None:
            if type(expected) is not Half:
                raise unfinished(world)
            self._second_half(expected, pfn, pointer, mm, addr, err, arg)
            return
        if arg & INTO_EXISTING and world.phase is Phase.UNKNOWN:
            self._after_a_gap(pfn, pointer, mm, addr, err)
            return
        item = self._visit(pointer, mm, addr, looked=self._looked(arg))
        item.over = world.ordinal
        if arg & INTO_EXISTING:
            self._join(item, pfn, err, arg)
            return
        if pfn == world.zero_pfn:
            raise Impossible("ksm page", "the zero page's frame became a KSM page")
        world.stage = Stage.OVER
        if err == 0:
            world.expected = Half(pfn, item, world.index, first_sight=bool(arg & FIRST_SIGHT))

    def _after_a_gap(self, pfn: int, pointer: int, mm: Mm, addr: int, err: int) -> None:
        """The first merge known, onto a KSM page: perhaps a second half, of a page long passed."""
        world = self._world
        self._scans.must_be_under_way("a page was merged")
        item = world.items.get(pointer) or Item(pointer, mm, addr, -1)
        world.items[pointer] = item
        node = world.nodes.get(pfn) or Node(pfn, world.index, made=False)
        world.nodes[pfn] = node
        if not err:
            stamp(mm, world)
            attach(world, item, node, sure=False)

    def merge_one_page(
        self, pfn: int, pointer: int, mm_pointer: int, addr: int, tgid: int, err: int, _arg: int
    ) -> None:
        """ksm_merge_one_page: onto the zero page."""
        world = self._world
        mm = self._alive(mm_pointer, addr, tgid)
        if err not in (0, EFAULT):
            raise Impossible("value", f"a merge can't end with {err}")
        if world.expected is not None:
            raise unfinished(world)
        self._scans.goes_on()
        if world.knob("use_zero_pages") == "0":
            raise Impossible("zero page", "a page was merged with the zero page: use_zero_pages=0")
        if world.zero_pfn not in (0, pfn) and world.one_zero_page:
            raise Impossible(
                "zero page", f"the zero page is frame {world.zero_pfn:#x} and now {pfn:#x}"
            )
        if pfn in world.nodes and world.nodes[pfn].items:
            raise Impossible("zero page", f"the zero page is frame {pfn:#x}, which is a KSM page")
        world.zero_pfn = pfn
        item = self._visit(pointer, mm, addr, looked=True, zero=True)
        if err:
            world.stage = Stage.ZERO_FAILED
            return
        world.stage = Stage.OVER
        item.over = world.ordinal
        world.zero_merges += 1
        world.zero_most += 1
        item.mm.zero_most += 1

    def merge_with_ksm_page_among_others(
        self, _pfn: int, pointer: int, mm_pointer: int, addr: int, _t: int, err: int, arg: int
    ) -> None:
        """ksm_merge_with_ksm_page where other processes' events are missing.

        One onto a KSM page may be the second half of a pair whose first is missing, about a page
        that ksmd has passed before.
        """
        if err not in (0, EFAULT):
            raise Impossible("value", f"a merge can't end with {err}")
        self._scans.goes_on()
        self._scans.must_be_under_way("a page was visited")
        if not arg & INTO_EXISTING:
            self._pass(pointer, mm_pointer, addr)

    def merge_one_page_among_others(
        self, _pfn: int, pointer: int, mm_pointer: int, addr: int, _t: int, err: int, _arg: int
    ) -> None:
        """ksm_merge_one_page where other processes' events are missing."""
        if err not in (0, EFAULT):
            raise Impossible("value", f"a merge can't end with {err}")
        self._scans.goes_on()
        self._scans.must_be_under_way("a page was visited")
        self._pass(pointer, mm_pointer, addr)

    def _pass(self, pointer: int, mm_pointer: int, addr: int) -> None:
        """Come to a page, of which nothing else is known."""
        world = self._world
        mm = world.mms.get(mm_pointer)
        if mm is None:
            mm = world.mms[mm_pointer] = Mm(mm_pointer, world.stops)
        if mm is not world.mm:
            self._scans.move_to(mm)
        elif addr < world.addr and addr:
            raise self._backwards(mm, addr, pointer)
        world.addr = addr

    def _backwards(self, mm: Mm, addr: int, pointer: int) -> Impossible:
        world = self._world
        return Impossible(
            "visit order", f"ksmd went back to {world.page(mm, addr, pointer)} from {world.addr:#x}"
        )

    def _alive(self, pointer: int, addr: int, tgid: int) -> Mm:
        """The address space that a merge names."""
        mm = self._world.mms.get(pointer)
        if mm is None:
            mm = self._processes.meet(pointer)
        elif mm.exited:
            mm = self._processes.risen(mm, addr)
        if tgid and tgid != mm.tgid:
            self._processes.owned_by(mm, tgid)
        return mm

    def _looked(self, arg: int) -> bool | None:
        """Whether a rmap_item has a checksum, from an earlier visit; None if it isn't told."""
        return not arg & FIRST_SIGHT if self._flags_known else None

    def _visit(
        self, pointer: int, mm: Mm, addr: int, *, looked: bool | None, zero: bool = False
    ) -> Item:
        """The rmap_item that ksmd visits: the next in order, or still the same.

        looked: see `_looked`. zero: it is tried with the zero page.
        """
        world = self._world
        item = world.items.get(pointer)
        ordinal = world.ordinal
        if mm is world.mm:
            if addr == world.addr and (addr or item is world.item):
                item = self._same_visit(pointer, item, zero=zero)
                self._check_sight(item, looked=looked)
                return item
            if addr < world.addr and addr:
                raise self._backwards(mm, addr, pointer)
        else:
            self._scans.must_be_under_way("a page was visited")
            self._scans.move_to(mm)
        world.addr = addr
        world.visits += 1
        world.stage = Stage.BEGUN
        if item is None or item.mm is not mm or (item.addr != addr and addr):
            item = self._identify(item, pointer, mm, addr, looked=looked)
        elif item.seen == ordinal:
            raise Impossible(
                "once a scan", f"{world.page_of(item)} was visited twice in {world.scan}"
            )
        if world.missing:
            self._not_passed(mm, addr)
        if looked is not item.looked:
            self._check_sight(item, looked=looked)
        item.seen = ordinal
        if not mm.exited:
            mm.seen += 1
            world.seen += 1
        if item.node is not None:
            leave(world, item)
        world.item = item
        return item

    def _check_sight(self, item: Item, *, looked: bool | None) -> None:
        """A checksum stays as long as the rmap_item."""
        world = self._world
        if looked is False and item.looked:
            if item.seen >= world.ordinal - 1:
                raise Impossible(
                    "first sight",
                    f"{world.page_of(item)} is seen for the first time, but had a checksum before",
                )
            # It was freed and made again since.
            item.looked = False
        elif looked:
            item.looked = True

    def _not_passed(self, mm: Mm, addr: int) -> None:
        """The cursor comes here only now: who is further on can't have left a KSM page before."""
        world = self._world
        there = world.missing.get(mm)
        if there is not None and there[0] >= addr > 0:
            raise Proven(there[1])

    def _same_visit(self, pointer: int, item: Item | None, *, zero: bool) -> Item:
        """A second try in one visit: only after the zero page was tried in vain."""
        world = self._world
        if item is None or item is not world.item:
            here = world.item
            raise Impossible(
                "identity",
                f"one page had two rmap_items: {pointer:#x} and {here.pointer if here else 0:#x}",
            )
        if world.stage is not Stage.ZERO_FAILED or zero:
            raise Impossible(
                "once a scan", f"{world.page_of(item)} was visited twice in {world.scan}"
            )
        return item

    def _second_half(
        self, half: Half, pfn: int, pointer: int, mm: Mm, addr: int, err: int, arg: int
    ) -> None:
        """The page's twin, from the unstable tree, is mapped onto the new KSM page."""
        world = self._world
        if not arg & INTO_EXISTING or pfn != half.pfn:
            raise unfinished(world)
        world.expected = None
        item = self._twin(half, pointer, mm, addr, looked=self._looked(arg))
        if err:
            return
        if self._flags_known and half.first_sight != bool(arg & FIRST_SIGHT):
            raise Impossible(
                "first sight",
                f"{world.page_of(half.item)} and its twin have one content, but only one of them"
                " has a checksum",
            )
        item.over = world.ordinal
        before = world.nodes.get(pfn)
        if before is not None:
            world.older.setdefault(pfn, []).append(before)
        node = world.nodes[pfn] = Node(pfn, half.index, made=True)
        node.last = world.index
        self._count(node, 2 if self._pairs_stand else 0, arg)
        world.most_shared += 1
        world.created += 1
        attach(world, item, node, sure=self._pairs_stand)
        attach(world, half.item, node, sure=self._pairs_stand)
        half.item.serial += 1

    def _twin(self, half: Half, pointer: int, mm: Mm, addr: int, *, looked: bool | None) -> Item:
        """The rmap_item of a page in the unstable tree: ksmd has passed it in this scan."""
        world = self._world
        item = world.items.get(pointer)
        here = world.mm
        assert here is not None
        if item is half.item:
            raise Impossible("two halves", f"{world.page_of(half.item)} became its own twin")
        if mm is not here:
            if mm.done != world.ordinal:
                mm.done = world.ordinal
                stamp(mm, world)
            self._scans.comes_after(here, mm)
        elif addr >= world.addr and addr:
            raise Impossible(
                "unstable tree",
                f"{world.page(mm, addr, pointer)} was found in the unstable tree, but ksmd was"
                f" only at {world.addr:#x}",
            )
        if item is None or item.mm is not mm or (item.addr != addr and addr):
            item = self._identify(item, pointer, mm, addr, looked=looked)
        elif item.over == world.ordinal:
            raise Impossible(
                "once a scan",
                f"{world.page_of(item)} was tried twice in {world.scan}: after its own try it is"
                " in no tree",
            )
        self._check_sight(item, looked=looked)
        if item.seen != world.ordinal:
            item.seen = world.ordinal
            if not mm.exited:
                mm.seen += 1
                world.seen += 1
        if item.node is not None:
            leave(world, item)
        return item

    def _join(self, item: Item, pfn: int, err: int, arg: int) -> None:
        """Onto an existing KSM page: a merge, or what a fork has shared is noticed."""
        world = self._world
        if self._stable_first and world.stage is Stage.ZERO_FAILED:
            raise Impossible(
                "visit order",
                f"{world.page_of(item)} was tried with the zero page before the stable tree",
            )
        world.stage = Stage.OVER
        node = world.nodes.get(pfn)
        if node is None:
            node = self._stranger(pfn, arg)
        node.last = world.index
        if err:
            return
        if node.in_scan != world.ordinal:
            node.fresh = 0
            # Nobody may have been left on it.
            world.most_shared += 1
        elif self._limited and node.fresh > 1:
            self._check_limit(node, item, arg)
        self._count(node, node.fresh + 1, arg)
        attach(world, item, node, sure=True)

    def _count(self, node: Node, fresh: int, arg: int) -> None:
        """Remember how many were put on it in this scan, and what may have changed since."""
        world = self._world
        if not fresh or node.in_scan != world.ordinal:
            node.in_scan = world.ordinal
            node.exits = world.exits
        node.fresh = fresh
        node.mapped = arg >> MAPCOUNT_SHIFT
        node.enters = world.enters

    def _check_limit(self, node: Node, item: Item, arg: int) -> None:
        """No more than max_page_sharing, but for what a fork had shared: that maps nothing new."""
        world = self._world
        limit = world.knob("max_page_sharing")
        if limit is None or node.fresh < int(limit) or node.exits != world.exits:
            return
        mapped = arg >> MAPCOUNT_SHIFT
        new = mapped and node.mapped and mapped == node.mapped + 1 and not arg & FIRST_SIGHT
        if new and node.enters == world.enters:
            raise Impossible(
                "limit",
                f"{world.page_of(item)} was mapped onto KSM page {node.pfn:#x}, which had"
                f" {node.fresh} mappings already: max_page_sharing is {limit}",
            )

    def _stranger(self, pfn: int, arg: int) -> Node:
        """A KSM page that no event has made."""
        world = self._world
        if pfn == world.zero_pfn:
            raise Impossible("ksm page", "a page was mapped onto the zero page as a KSM page")
        node = world.nodes[pfn] = Node(pfn, world.index, made=False)
        # One from before that nobody was on can still be mapped, and be noticed at first sight.
        left_over = not world.complete and (not self._flags_known or bool(arg & FIRST_SIGHT))
        if world.closed and not left_over:
            message = f"a page was mapped onto KSM page {pfn:#x}, which was never made"
            if len(world.nodes) == 1 and not any(world.older.values()):
                raise Impossible("ksm page", message)
            world.strangers[node] = world.finding(
                "ksm page",
                message,
                "another KSM page may have moved to that frame; but each was seen elsewhere later",
            )
        return node

    def _identify(
        self, known: Item | None, pointer: int, mm: Mm, addr: int, *, looked: bool | None
    ) -> Item:
        """A rmap_item that is new, or whose pointer was another one's."""
        world = self._world
        born_by = world.ordinal - 1 if looked else world.ordinal
        if known is not None:
            self._check_freed(known, mm, addr, born_by)
            forget(world, known)
        if addr:
            before = mm.places.get(addr)
            if before is not None and before.pointer != pointer:
                if before.seen + 2 > born_by:
                    raise Impossible(
                        "identity",
                        f"{world.page(mm, addr, pointer)} has another rmap_item than in the scan"
                        " before",
                        f"rmap_item {before.pointer:#x} before, {pointer:#x} now",
                    )
                forget(world, before)
        item = world.items[pointer] = Item(pointer, mm, addr, -1)
        if addr:
            mm.places[addr] = item
        return item

    def _check_freed(self, known: Item, mm: Mm, addr: int, born_by: int) -> None:
        """Whether a pointer's old rmap_item can have been freed for a new one at (mm, addr)."""
        world = self._world
        owner = known.mm
        if owner.exited or owner.dead:
            return
        # Freed by a scan that passed it, after the last that visited it; reborn in it or later.
        impossible = known.seen >= born_by
        if known.seen == born_by - 1 and owner is mm and known.addr > addr and addr:
            # In its scan ksmd came to the new place first.
            impossible = True
        if impossible:
            message = (
                f"rmap_item {known.pointer:#x} of {world.page(mm, addr, known.pointer)} is that of"
                f" {world.page_of(known)}"
            )
            why = "a rmap_item is freed only when ksmd passes its address again"
            if owner is mm:
                raise Impossible("identity", message, why)
            # Or when its process has exited, which may be told late.
            self._processes.suspect(
                world.finding("identity", message, why), ("exit", owner.pointer)
            )


def attached_at(index: int) -> int:
    """Item.serial of one that an event has put on a KSM page; a new page's twin is older by one."""
    return 2 * index + 2


def attach(world: World, item: Item, node: Node, *, sure: bool) -> None:
    """A page was mapped onto a KSM page. sure: it stays there until ksmd passes it again."""
    mm = item.mm
    if not node.items:
        world.occupied += 1
    node.items[item] = None
    item.node = node
    item.serial = 2 * world.index + 2
    item.attached = -1
    mm.attached += 1
    mm.most += 1
    world.attached += 1
    world.attachments += 1
    world.most += 1
    if sure and not mm.exited:
        item.attached = world.ordinal
        mm.fresh += 1
        world.fresh += 1


def leave(world: World, item: Item) -> None:
    """A rmap_item isn't on its KSM page any more."""
    node = item.node
    assert node is not None
    del node.items[item]
    if not node.items:
        world.occupied -= 1
    item.node = None
    mm = item.mm
    if not mm.dead:
        mm.attached -= 1
        world.attached -= 1
        if item.attached == world.ordinal and not mm.exited:
            mm.fresh -= 1
            world.fresh -= 1


def forget(world: World, item: Item) -> None:
    """A rmap_item was freed."""
    if item.node is not None:
        leave(world, item)
    if item.mm.places.get(item.addr) is item:
        del item.mm.places[item.addr]
    if world.items.get(item.pointer) is item:
        del world.items[item.pointer]
