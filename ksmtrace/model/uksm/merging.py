"""What UKSM does to page tables: mapping a page onto a merged one, onto another, onto zeros."""

from __future__ import annotations

import errno
from enum import Enum

from ksmtrace.model.content import PAGE_SIZE, ZERO, compared_bytes
from ksmtrace.model.memory import Frame
from ksmtrace.model.uksm.state import State
from ksmtrace.model.uksm.structures import Item

_FAILED = -errno.EFAULT


class Outcome(Enum):
    """What became of an attempt. COLLISION: the hashes are equal, the pages not."""

    OK = "ok"
    FAILED = "failed"
    COLLISION = "collision"
    CHANGED = "changed"


class Merging:
    """Compares pages and maps them onto each other."""

    def __init__(self, state: State) -> None:
        self._state = state

    def onto_merged(self, item: Item, target: Frame, hash_: int) -> Outcome:
        """Map an item's page onto a merged one."""
        state = self._state
        page = item.page
        if page is target:
            # It came by fork, or its slot is new: it is counted without a comparison.
            item.oldchecksum = 0
            self._tell(target, item)
            item.oldchecksum = 1
            return Outcome.OK
        if not self._may_change(item):
            state.work.failed += 1
            self._tell(target, item, failed=True)
            return Outcome.FAILED
        if self._equal(page, target):
            self._redirect(item, target)
            self._tell(target, item)
            return Outcome.OK
        state.work.failed += 1
        self._tell(target, item, failed=True)
        account = state.strength.account
        strength = state.strength.value
        if item.full_hash:
            rest = state.words_of_full_hash()
            account.spent += state.memcmp_cost + 2 * rest
            state.work.uksm_bytes += 4 * rest
            same = state.hashes.full(page.content) == item.full_hash
        else:
            account.spent += state.memcmp_cost + strength
            state.work.uksm_bytes += 4 * strength
            same = state.hashes.at(page.content) == hash_
        return Outcome.COLLISION if same else Outcome.CHANGED

    def pair(self, item: Item, other: Item) -> Outcome:
        """Make an item's page a merged page and map another item's page onto it."""
        state = self._state
        page = item.page
        if not (self._may_change(item) and self._may_change(other)):
            state.work.failed += 1
            self._tell(None, item, failed=True)
            return Outcome.FAILED
        if self._equal(page, other.page):
            page.ksm = True
            page.exclusive = False
            state.work.ksm_pages += 1
            item.mm.clean.discard(item.address)
            self._redirect(other, page)
            return Outcome.OK
        state.work.failed += 1
        if other.full_hash and other.full_hash == item.full_hash:
            return Outcome.FAILED
        hashes = state.hashes
        state.work.uksm_bytes += 2 * 4 * state.strength.value
        if hashes.at(page.content) != hashes.at(other.page.content):
            return Outcome.CHANGED
        state.strength.account.spent += state.memcmp_cost + 2 * state.strength.value
        return Outcome.COLLISION

    def tell_pair(self, item: Item, other: Item) -> None:
        """The events of a new merged page."""
        self._tell(None, item)
        self._tell(item.page, other)

    def to_another(self, item: Item, target: Frame) -> None:
        """Map a page that was just merged onto the merged page that there was before."""
        self._redirect(item, target)
        self._tell(target, item)

    def equal(self, one: Frame, other: Frame) -> bool:
        """Compare two pages."""
        return self._equal(one, other)

    def to_zero_page(self, item: Item) -> bool:
        """Map a page onto the zero page, if it is empty and may be touched."""
        state = self._state
        page = item.page
        if not self._may_change(item):
            if not page.content:
                self._tell_zero(item, failed=True)
            return False
        state.tallies.compares += 1
        state.work.compared_bytes += compared_bytes(page.content, ZERO)
        if page.content:
            return False
        memory = state.memory
        memory.replace_page(item.mm, item.address, memory.zero_frame)
        item.mm.ksm_zero.add(item.address)
        item.mm.ksm_zero_pages += 1
        state.zero_pages += 1
        state.work.merges += 1
        self._tell_zero(item)
        return True

    def break_cow(self, item: Item) -> None:
        """Give an item's address a page of its own again."""
        frame = item.page
        item.slot.cowed += 1
        self._state.memory.unshare_page(item.mm, item.address)
        if frame.node is None:
            # Whoever still has it by fork has an ordinary page.
            frame.ksm = False

    def _equal(self, one: Frame, other: Frame) -> bool:
        state = self._state
        state.tallies.compares += 1
        if one.content == other.content:
            state.work.compared_bytes += PAGE_SIZE
            return True
        state.work.compared_bytes += compared_bytes(one.content, other.content)
        return False

    def _may_change(self, item: Item) -> bool:
        """Whether a page's mapping may be write-protected; a huge page is split first."""
        page = item.page
        if page.locked:
            return False
        if page.huge is not None:
            if any(frame.pins for frame in page.huge.frames):
                return False
            self._state.memory.split(page.huge)
        return not (page.pins and (page.exclusive or item.address not in item.mm.clean))

    def _redirect(self, item: Item, target: Frame) -> None:
        self._state.memory.replace_page(item.mm, item.address, target)
        self._state.work.merges += 1
        item.page = target

    def _tell(self, target: Frame | None, item: Item, *, failed: bool = False) -> None:
        state = self._state
        state.tick()
        pfn = item.page.pfn if target is None else target.pfn
        state.stream.merge_with_ksm_page(target, pfn, item, _FAILED if failed else 0)

    def _tell_zero(self, item: Item, *, failed: bool = False) -> None:
        state = self._state
        state.tick()
        zero_page = state.memory.zero_frame
        state.stream.merge_one_page(zero_page, item, _FAILED if failed else 0)
