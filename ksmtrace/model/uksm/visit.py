"""One visit: a page of a slot is drawn, looked at, and hashed if there is one."""

from __future__ import annotations

from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.uksm.dedup import Dedup
from ksmtrace.model.uksm.merging import Merging
from ksmtrace.model.uksm.state import State
from ksmtrace.model.uksm.structures import Item, ItemState, Slot
from ksmtrace.model.uksm.trees import Trees


class Visit:
    """Visits pages. wakeup: the number of the wake-up, from 1."""

    def __init__(self, state: State, trees: Trees) -> None:
        self._state = state
        self._trees = trees
        self._merging = Merging(state)
        self._dedup = Dedup(state, trees, self._merging)
        self._zero_frame = state.memory.zero_frame
        self._random = state.dice.random
        self.wakeup = 0

    def draw(self, slot: Slot) -> None:
        """Visit a page of this slot that this pass has not visited."""
        done = slot.done
        order = slot.order
        drawn = done + int(self._random() * (slot.pages - done))
        index = order[drawn]
        order[drawn] = order[done]
        order[done] = index
        self.look(slot, index)
        slot.done = done + 1
        slot.sampled += 1
        state = self._state
        if slot.round_mark != state.full_round or not state.quirks.freeze:
            state.svp += 1
        if slot.done == slot.pages:
            slot.round_mark = state.full_round

    def look(self, slot: Slot, index: int) -> None:
        """Look at a page, and for others like it."""
        slot.seen[index] = self.wakeup
        state = self._state
        page = slot.mm.pages.get(slot.start + index * PAGE_SIZE)
        if page is None or page is self._zero_frame:
            state.work.absent += 1
            if index in slot.items:
                self._forget(slot, index)
            return
        hashes = state.hashes
        hash_ = hashes.now.get(page.content)
        if hash_ is None:
            hash_ = hashes.at(page.content)
        state.present += 1
        if hash_ == hashes.zero and self._is_zero(slot, index):
            return
        item = slot.items.get(index)
        if item is None:
            item = self._new(slot, index)
        item.page = page
        if item.state is not ItemState.STABLE or not page.ksm:
            self._dedup.page(item, hash_)

    def _new(self, slot: Slot, index: int) -> Item:
        state = self._state
        page = slot.mm.pages[slot.start + index * PAGE_SIZE]
        item = slot.items[index] = Item(state.next_item, slot, index, page)
        state.next_item += 1
        state.items += 1
        return item

    def _is_zero(self, slot: Slot, index: int) -> bool:
        """Map a page onto the zero page if it is as empty as its hash says."""
        state = self._state
        item = slot.items.get(index)
        if item is None:
            item = self._new(slot, index)
        # A page that an item waits for elsewhere is still that item's.
        page, item.page = item.page, slot.mm.pages[item.address]
        if self._merging.to_zero_page(item):
            slot.merged += 1
            item.page = page
            self._forget(slot, index)
            return True
        state.strength.account.spent += state.memcmp_cost // 2
        return False

    def _forget(self, slot: Slot, index: int) -> None:
        self._trees.detach(slot.items.pop(index))
        self._state.items -= 1
