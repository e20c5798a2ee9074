"""Dead KSM pages: ksm_remove_rmap_item and ksm_remove_ksm_page.

A KSM page that is found dead loses its rmap_items newest first, without an event for the oldest,
and then itself: one run of events. Who names a rmap_item names the KSM page, and better than by the
frame: two KSM pages can carry one number, because a frame is used again before its dead KSM page
was found, and a page that the kernel moves to another frame changes its number without an event.
"""

from __future__ import annotations

from ksmtrace.replay.conformance_pages import attached_at, leave
from ksmtrace.replay.conformance_processes import Processes
from ksmtrace.replay.conformance_scan import unfinished
from ksmtrace.replay.conformance_state import (
    Claim,
    Finding,
    Impossible,
    Item,
    Mm,
    Node,
    Phase,
    Removal,
    Stage,
    World,
)

FROM_BEFORE = -1
"""Item.serial of one that was put on a KSM page before the stream began."""


class Removals:
    """Judges removals."""

    def __init__(self, world: World, processes: Processes) -> None:
        self._world = world
        self._processes = processes
        self._stable_first = world.profile.behaviour.visit_order != "checksum_first"

    def remove_rmap_item(
        self, pfn: int, pointer: int, mm_pointer: int, addr: int, tgid: int, _e: int, _arg: int
    ) -> None:
        """ksm_remove_rmap_item."""
        world = self._world
        removal = world.expected
        if removal is None:
            removal = world.expected = Removal(pfn, world.index)
        elif type(removal) is not Removal or removal.pfn != pfn:
            raise unfinished(world)
        removal.count += 1
        item = world.items.get(pointer)
        if item is None or item.mm.pointer != mm_pointer or (item.addr != addr and addr):
            item = self._from_before(item, removal, pointer, mm_pointer, addr)
        mm = item.mm
        if tgid and tgid != mm.tgid:
            self._processes.owned_by(mm, tgid, alive=False)
        item.seen = max(item.seen, world.ordinal - 1)
        node = item.node
        if node is None or mm.dead:
            self._check_from_before(item, removal)
        elif item.serial > removal.serial:
            raise Impossible(
                "removal",
                f"{world.page_of(item)} left the dead KSM page {pfn:#x} out of turn: rmap_items"
                " leave newest first",
            )
        elif node is not removal.node:
            self._turn_to(node, removal, item)
        removal.serial = item.serial
        if node is None:
            # Another event can't take it off again.
            item.serial = 0
            return
        world.most -= 1
        mm.most -= 1
        leave(world, item)

    def _from_before(
        self, known: Item | None, removal: Removal, pointer: int, mm_pointer: int, addr: int
    ) -> Item:
        """A rmap_item that no event has put anywhere: of before the stream, if that is possible."""
        world = self._world
        mm = world.mms.get(mm_pointer)
        named = world.page(mm, addr, pointer) if mm else f"rmap_item {pointer:#x}"
        if known is not None:
            raise Impossible(
                "removal",
                f"{named} left a KSM page, but that rmap_item is that of {world.page_of(known)}",
            )
        if world.closed:
            raise Impossible(
                "removal",
                f"{named} left the dead KSM page {removal.pfn:#x}, but was never put on one",
            )
        if mm is None:
            mm = world.mms[mm_pointer] = Mm(mm_pointer, world.stops)
        item = world.items[pointer] = Item(pointer, mm, addr, -1)
        item.serial = FROM_BEFORE
        return item

    def _check_from_before(self, item: Item, removal: Removal) -> None:
        """A rmap_item that no event has put on a KSM page, or that is not there any more."""
        world = self._world
        if item.mm.dead:
            raise Impossible(
                "removal",
                f"{world.page_of(item)} left the dead KSM page {removal.pfn:#x}, but ksmd had freed"
                " all rmap_items of that process before",
            )
        if item.serial != FROM_BEFORE:
            raise Impossible(
                "removal",
                f"{world.page_of(item)} left the dead KSM page {removal.pfn:#x}, but was on none",
            )
        if removal.node is not None and removal.node.made:
            raise self._of_another(item, removal)

    def _of_another(self, item: Item, removal: Removal) -> Impossible:
        world = self._world
        known = removal.node
        return Impossible(
            "removal",
            f"{world.page_of(item)} left the dead KSM page {removal.pfn:#x}, but was not put on it",
            f"the KSM page was made by event {known.first}" if known else "",
        )

    def _turn_to(self, node: Node, removal: Removal, item: Item) -> None:
        """The rmap_item was put on another KSM page than those named before it.

        That is one KSM page if it has moved in between, to the frame that the others named.
        """
        taken_for = removal.node
        if taken_for is not None:
            moved = not taken_for.made and attached_at(node.last) < removal.serial
            if not moved:
                raise self._of_another(item, removal)
            self._retire(taken_for)
        removal.node = node

    def remove_ksm_page(
        self, pfn: int, _i: int, _m: int, _addr: int, _t: int, _e: int, _arg: int
    ) -> None:
        """ksm_remove_ksm_page."""
        world = self._world
        removal = world.expected
        if removal is not None and (type(removal) is not Removal or removal.pfn != pfn):
            raise unfinished(world)
        world.expected = None
        world.gone += 1
        if world.stage is Stage.ZERO_FAILED and self._stable_first:
            world.stage = Stage.OVER
        if removal is None:
            self._alone(pfn)
            return
        world.most -= 1
        world.most_shared -= 1
        if removal.node is not None:
            self._complete(removal.node, removal)

    def _complete(self, node: Node, removal: Removal) -> None:
        """All who are named have left; one that is older, at least, has left without an event."""
        world = self._world
        rest = [item for item in node.items if not item.mm.dead]
        older = any(item.serial < removal.serial for item in rest)
        if node.made and removal.serial >= 0 and not older:
            raise Impossible(
                "removal",
                f"all {removal.count} rmap_items left the dead KSM page {removal.pfn:#x} with an"
                " event, but the oldest never does",
            )
        if world.phase is Phase.SCANNING:
            self._look_for_missing(rest, removal)
        if removal.pfn != node.pfn:
            self._explain(node)
        self._retire(node)

    def _explain(self, node: Node) -> None:
        """It had moved: what was seen since at other frames may have been it."""
        strangers = self._world.strangers
        for stranger in [one for one in strangers if one.first > node.last]:
            del strangers[stranger]

    def _look_for_missing(self, rest: list[Item], removal: Removal) -> None:
        """Who was on the dead KSM page for sure, but did not leave with the others."""
        world = self._world
        here = [item for item in rest if item.attached == world.ordinal and not item.mm.exited]
        newer = [item for item in here if item.serial > removal.serial]
        if newer or len(here) > 1:
            self._claim((newer or here)[-1], removal)
            return
        for item in rest:
            mm = item.mm
            there = max(world.sure, mm.sure, item.attached) == world.ordinal - 1
            if there and item.serial > removal.serial and not mm.exited:
                # It was there when the last scan stopped: only if ksmd has passed it since ...
                before = world.missing.get(mm)
                if before is None or before[0] < item.addr:
                    world.missing[mm] = item.addr, self._missing(item, removal)

    def _missing(self, item: Item, removal: Removal) -> Finding:
        world = self._world
        return world.finding(
            "removal",
            f"{world.page_of(item)} is on the dead KSM page {removal.pfn:#x}, but did not leave it"
            " with the others",
        )

    def _claim(self, item: Item, removal: Removal) -> None:
        world = self._world
        world.scan_claims.append(Claim(self._missing(item, removal), world.exits))

    def _retire(self, node: Node) -> None:
        world = self._world
        for item in list(node.items):
            leave(world, item)
        world.strangers.pop(node, None)
        if node.doubtful and world.nodes.get(node.pfn) not in (None, node):
            # Then it was another that died on that frame before.
            world.nodes[node.pfn].doubtful = True
        if world.nodes.get(node.pfn) is node:
            del world.nodes[node.pfn]
        else:
            others = [one for one in world.older.pop(node.pfn, ()) if one is not node]
            if others:
                world.older[node.pfn] = others

    def _alone(self, pfn: int) -> None:
        """A KSM page with one rmap_item at most: which, only its frame tells."""
        world = self._world
        if not world.complete:
            # One of before, that nobody was on, may have had that frame.
            return
        there = [*world.older.get(pfn, ())]
        if pfn in world.nodes:
            there.append(world.nodes[pfn])
        living = [node for node in there if not node.doubtful]
        # At most one of the rmap_items was left, so several that are there for sure are too many.
        possible = [node for node in living if self._may_be_alone(node)]
        if not living:
            self._unknown(pfn, there)
        elif not possible:
            finding = world.finding(
                "removal",
                f"the dead KSM page {pfn:#x} was removed, but not the rmap_items that are on it",
            )
            world.scan_claims.append(Claim(finding, world.exits))
        elif len(possible) == 1:
            for node in there:
                if node.doubtful or node is possible[0]:
                    self._retire(node)
        else:
            possible[0].doubtful = True

    def _may_be_alone(self, node: Node) -> bool:
        world = self._world
        if world.phase is not Phase.SCANNING:
            return True
        sure = sum(i.attached == world.ordinal and not i.mm.exited for i in node.items)
        return sure < 2

    def _unknown(self, pfn: int, there: list[Node]) -> None:
        """No KSM page can have died on this frame, unless one has moved there."""
        world = self._world
        message = (
            f"the dead KSM page {pfn:#x} was removed, but none that may be dead was on that frame"
        )
        if len(there) == len(world.nodes) + sum(map(len, world.older.values())):
            raise Impossible("ksm page", message)
        stranger = Node(pfn, world.index, made=False)
        world.strangers[stranger] = world.finding(
            "ksm page", message, "another may have moved there; but each was seen elsewhere later"
        )
