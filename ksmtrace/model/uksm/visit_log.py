"""UKSM's page visits told, for those who want to watch it work."""

from __future__ import annotations

from collections.abc import Callable

from ksmtrace.model.decisions import Decision, Rule
from ksmtrace.model.memory import Frame
from ksmtrace.model.uksm.structures import ItemState, Slot
from ksmtrace.model.uksm.visit import Visit
from ksmtrace.model.visit_log import VisitRecord


class LoggedVisit(Visit):
    """A Visit that tells each of its looks; what it does is the same.

    watch: called with each record when the look is over.
    """

    watch: Callable[[VisitRecord], None] = staticmethod(lambda _record: None)

    def look(self, slot: Slot, index: int) -> None:
        """See `Visit`."""
        mm, address = slot.mm, slot.address_of(index)
        page = mm.pages.get(address)
        was_ksm = page is not None and page.ksm
        super().look(slot, index)
        decision = self._told(slot, index, page, was_ksm=was_ksm)
        self.watch(VisitRecord(mm.id, address, (decision,)))

    def _told(self, slot: Slot, index: int, page: Frame | None, *, was_ksm: bool) -> Decision:
        """What became of a look at `page`. was_ksm: it was a merged page before."""
        state = self._state
        if page is None:
            return Decision(Rule.UKSM_ABSENT, "no page there")
        if page is self._zero_frame:
            return Decision(Rule.UKSM_ABSENT, "on the zero page already")
        if slot.mm.pages.get(slot.address_of(index)) is self._zero_frame:
            return Decision(Rule.UKSM_ZERO, "full of zeroes: mapped to the zero page")
        hashed = f"hash {state.hashes.at(page.content):08x} of {state.strength.value:,} words"
        item = slot.items.get(index)
        standing = item.state if item is not None else ItemState.NONE
        if standing is ItemState.STABLE:
            stayed = slot.mm.pages.get(slot.address_of(index)) is page
            if was_ksm and stayed:
                return Decision(Rule.UKSM_ALREADY, "already merged")
            if stayed:
                # Of two twins the one that is looked at keeps its frame.
                return Decision(Rule.UKSM_TWIN, f"{hashed}: a waiting page is equal; merged")
            return Decision(Rule.UKSM_JOINED, f"{hashed}: a merged page is equal; joined")
        if standing is ItemState.UNSTABLE:
            assert item is not None
            assert item.tree_node is not None
            if len(item.tree_node.by_full_hash) > 1:
                words = f"{hashed}: another waits with it, but is not found; put in beside it"
                return Decision(Rule.UKSM_WAITS_BESIDE, words)
            return Decision(Rule.UKSM_WAITS, f"{hashed}: nothing has it; put in")
        return Decision(Rule.UKSM_NOT_PLACED, f"{hashed}: another page has it, but did not merge")
