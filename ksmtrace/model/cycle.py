"""The full-scan cycle: ksmd's list of address spaces, its cursor, batches (mm/ksm.c: ksm_do_scan).

docs/model.md#cycle tells the same in words.
"""

from __future__ import annotations

from ksmtrace.events.registry import KSM_START_SCAN, KSM_STOP_SCAN
from ksmtrace.model import smart_scan
from ksmtrace.model.advising import Advising
from ksmtrace.model.branches import Branch
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.memory import Frame, Mm
from ksmtrace.model.state import State
from ksmtrace.model.structures import MmSlot, RmapItem
from ksmtrace.model.visit import Visit


class Cycle:
    """Where ksmd is, and how it goes on.

    slots: ksmd's list, in order. The cursor is `slot` (None between scans), `address` (where it
    will look next) and the rmap_item it passed last.
    """

    def __init__(self, state: State, visit: Visit) -> None:
        self._state = state
        self.visit = visit
        self.slots: list[MmSlot] = []
        self.slot: MmSlot | None = None
        self.address = 0
        self._passed: RmapItem | None = None
        self._next_item = 1
        self.advising = Advising(state)

    # Who is on the list.

    def enter(self, mm: Mm, parent: Mm | None, *, exec_: bool) -> None:
        """Put an address space on the list: before the cursor, so that the next scan visits it."""
        state = self._state
        slot = MmSlot(mm)
        at_end = state.behaviour.run_2_appends and state.settings.run & 2
        if self.slot is None or at_end:
            self.slots.append(slot)
        else:
            self.slots.insert(self.slots.index(self.slot), slot)
            state.reached[Branch.ENTER_BEHIND_CURSOR] += 1
        mm.slot = slot
        mm.mergeable = True
        state.stream.enter(mm, parent, exec_=exec_)

    def exit(self, mm: Mm) -> None:
        """The last user is gone: leave the list at once, or come up next to be cleaned up."""
        slot = mm.slot
        if isinstance(slot, MmSlot):
            reached = self._state.reached
            if slot is self.slot:
                reached[Branch.EXIT_AT_CURSOR] += 1
            elif slot.first is None:
                reached[Branch.EXIT_AT_ONCE] += 1
                self._drop(slot)
            else:
                reached[Branch.EXIT_REORDERED] += 1
                self.slots.remove(slot)
                cursor = 0 if self.slot is None else self.slots.index(self.slot) + 1
                self.slots.insert(cursor, slot)
        self._state.stream.exit(mm)

    def _drop(self, slot: MmSlot) -> None:
        self.slots.remove(slot)
        slot.mm.slot = None
        slot.mm.mergeable = False
        if self._state.behaviour.drop_clears_merge_any:
            slot.mm.merge_any = False

    # One batch.

    def batch(self, pages: int) -> None:
        """Visit up to `pages` pages; the end of a full scan ends the batch, too."""
        state = self._state
        visit = self.visit.cmp_and_merge_page
        exact = state.behaviour.pages_scanned == "exact"
        for _ in range(pages):
            found = self._next()
            if found is None:
                return
            visit(*found)
            state.clock.visited()
            if exact:
                state.pages_scanned += 1
        if self.slot is not None:
            state.reached[Branch.BATCH_ENDED] += 1
        if state.behaviour.pages_scanned == "per_batch":
            state.pages_scanned += pages + 1

    def _next(self) -> tuple[Frame, RmapItem] | None:
        """The next page to visit, or None at the end of a full scan (scan_get_next_rmap_item)."""
        if not self.slots:
            self._state.reached[Branch.LIST_EMPTY] += 1
            return None
        if self.slot is None:
            self._start()
        while True:
            slot = self.slot
            assert slot is not None
            if slot.mm.users:
                found = self._next_in(slot, slot.mm)
                if found is not None:
                    return found
            else:
                self.address = 0
                self._passed = None
            self._trim(slot)
            following = self.slots.index(slot) + 1
            self.slot = self.slots[following] if following < len(self.slots) else None
            if self.address == 0:
                self._state.reached[Branch.SLOT_DROPPED] += 1
                self._drop(slot)
            self.address = 0
            self._passed = None
            if self.slot is None:
                self._stop()
                return None

    def _next_in(self, slot: MmSlot, mm: Mm) -> tuple[Frame, RmapItem] | None:
        """The next page of one address space; None when the cursor has passed them all."""
        state = self._state
        zero_frame = state.memory.zero_frame
        pages = mm.pages
        look = self.address
        while (vma := mm.vma_from(look)) is not None:
            look = vma.end
            if not vma.mergeable:
                continue
            address = max(self.address, vma.start)
            if vma.protection == "none" and state.behaviour.prot_none == "not_visited":
                address = vma.end
            while address < vma.end:
                page = pages.get(address)
                if page is None:
                    present = mm.page_from(address)
                    address = vma.end if present is None else min(present, vma.end)
                    continue
                if page is zero_frame:
                    self.visit.pass_zero_page()
                    address += PAGE_SIZE
                    continue
                item = self._item_for(slot, mm, address)
                address += PAGE_SIZE
                if not page.ksm and smart_scan.skips(state, item):
                    self._skip(item)
                    continue
                self.address = address
                return page, item
            self.address = address
        return None

    def _skip(self, item: RmapItem) -> None:
        """A skipped page is in no tree meanwhile."""
        reached = self._state.reached
        reached[Branch.SMART_SKIP] += 1
        if item.head is not None:
            reached[Branch.SMART_SKIP_LEFT_KSM_PAGE] += 1
        elif item.tree is not None:
            reached[Branch.SMART_SKIP_LEFT_TREE] += 1
        self.visit.skip(item)

    def _item_for(self, slot: MmSlot, mm: Mm, address: int) -> RmapItem:
        """The address's rmap_item, found or made; those passed over have lost their pages."""
        passed = self._passed
        item = slot.first if passed is None else passed.next
        while item is not None and item.address < address:
            following = item.next
            self._free(item)
            item = following
        if item is None or item.address > address:
            fresh = RmapItem(self._next_item, mm, address)
            if self._state.item_lives is not None:
                self._state.item_lives[self._next_item] = [self._state.stream.position]
            self._next_item += 1
            fresh.next = item
            item = fresh
            self._state.rmap_items += 1
            mm.ksm_rmap_items += 1
        if passed is None:
            slot.first = item
        else:
            passed.next = item
        self._passed = item
        return item

    def _trim(self, slot: MmSlot) -> None:
        """Free the rmap_items beyond the cursor: their pages are gone."""
        item = slot.first if self._passed is None else self._passed.next
        if self._passed is None:
            slot.first = None
        else:
            self._passed.next = None
        while item is not None:
            following = item.next
            self._free(item)
            item = following

    def _free(self, item: RmapItem) -> None:
        state = self._state
        state.reached[Branch.TRIMMED] += 1
        if item.head is not None:
            self.visit.stable.detach(item, Branch.STALE_MET_BY_TRIM)
        elif item.tree is not None:
            self.visit.unstable.remove(item)
        if state.item_lives is not None:
            state.item_lives[item.id].append(state.stream.position)
        state.rmap_items -= 1
        item.mm.ksm_rmap_items -= 1

    def _start(self) -> None:
        state = self._state
        self.advising.scan_starts()
        state.stream.scan(KSM_START_SCAN, state.seqnr, state.rmap_items)
        if not state.settings.merge_across_nodes:
            self.visit.stable.prune_migrating()
        self.visit.unstable.reset()
        self.slot = self.slots[0]
        self.address = 0
        self._passed = None

    def _stop(self) -> None:
        state = self._state
        state.clock.scan_ends()
        self.advising.scan_ends()
        state.stream.scan(KSM_STOP_SCAN, state.seqnr, state.rmap_items)
        state.seqnr += 1

    # run=2.

    def sweep(self) -> bool:
        """Remove every stable node; False if one is still mapped."""
        return self.visit.stable.sweep()

    def unmerge_everything(self) -> None:
        """Unshare all, free all rmap_items, remove all stable nodes (run=2)."""
        state = self._state
        for slot in list(self.slots):
            mm = slot.mm
            if mm.users:
                for vma in mm.vmas:
                    if vma.mergeable:
                        state.memory.unshare(mm, vma.start, vma.end)
            self.slot, self._passed = slot, None
            self._trim(slot)
            if not mm.users:
                self._drop(slot)
        self.slot = None
        self.address = 0
        self._passed = None
        if state.behaviour.run_2_sweeps:
            self.sweep()
        state.seqnr = 0
