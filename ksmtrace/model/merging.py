"""Merging one page: what ksmd does to page tables (mm/ksm.c: try_to_merge_one_page and friends)."""

from __future__ import annotations

import errno

from ksmtrace.model.branches import Branch
from ksmtrace.model.memory import Frame, HugePage, Vma
from ksmtrace.model.state import State
from ksmtrace.model.structures import RmapItem

FAILED = -errno.EFAULT
"""The only error that merge events ever carry."""


class Merging:
    """Maps pages onto KSM pages and onto the zero page, and undoes it."""

    def __init__(self, state: State) -> None:
        self._state = state

    def mergeable_vma(self, item: RmapItem) -> Vma | None:
        """The region of an rmap_item if ksmd may still touch it."""
        mm = item.mm
        if not mm.users:
            return None
        vma = mm.vma_at(item.address)
        return vma if vma is not None and vma.mergeable else None

    def merge_one_page(
        self, item: RmapItem, page: Frame, onto: Frame | None, held: Frame | None = None
    ) -> int:
        """Map `item`'s page onto another; None turns the page itself into a KSM page.

        held: another page that ksmd holds meanwhile. Returns 0 or FAILED.
        """
        if page is onto:
            return 0
        state = self._state
        memory = state.memory
        if page.locked:
            return FAILED
        if page.huge is not None and not self.split(page.huge, held):
            return FAILED
        if page.ksm:
            # A KSM page is never mapped onto another page, an orphan neither.
            if page.node is None:
                state.reached[Branch.ORPHAN_FAILED] += 1
            return FAILED
        mm, address = item.mm, item.address
        if mm.pages.get(address) is not page:
            return FAILED
        if page.pins:
            if page.exclusive or address not in mm.clean:
                state.reached[Branch.PINNED] += 1
                return FAILED
            state.reached[Branch.PINNED_BUT_CLEAN] += 1
        if onto is None:
            page.ksm = True
            page.node = None
            page.exclusive = False
            mm.clean.discard(address)
            return 0
        if onto.content != page.content:
            return FAILED
        memory.replace_page(mm, address, onto)
        return 0

    def attempt(
        self, item: RmapItem, page: Frame, onto: Frame | None, held: Frame | None = None
    ) -> int:
        """`merge_one_page` where ksmd may still touch `item`'s region. Returns 0 or FAILED."""
        if self.mergeable_vma(item) is None:
            return FAILED
        return self.merge_one_page(item, page, onto, held)

    def merge_with_zero_page(self, item: RmapItem, page: Frame) -> int:
        """Map `item`'s page onto the zero page. Returns 0 or FAILED."""
        state = self._state
        err = self.merge_one_page(item, page, state.memory.zero_frame)
        if err == 0 and state.behaviour.zero_pages == "counted":
            item.mm.ksm_zero.add(item.address)
            item.mm.ksm_zero_pages += 1
            state.ksm_zero_pages += 1
        return err

    def split(self, huge: HugePage, held: Frame | None = None) -> bool:
        """Split a huge page unless somebody else holds a part of it."""
        state = self._state
        if held is not None and held.huge is huge:
            state.reached[Branch.HUGE_PAGE_OF_BOTH] += 1
            return False
        if any(frame.pins for frame in huge.frames):
            return False
        state.reached[Branch.HUGE_PAGE_SPLIT] += 1
        state.memory.split(huge)
        return True

    def break_cow(self, item: RmapItem) -> None:
        """Give `item`'s address a page of its own again."""
        if self.mergeable_vma(item) is not None:
            self._state.memory.unshare_page(item.mm, item.address)
