"""Swapping: pages go to the disk on request and come back when they are touched.

mm/vmscan.c, mm/memory.c (do_swap_page) and ksm_might_need_to_copy() in mm/ksm.c. A page that goes
takes all its mappings with it and is dropped from the swap cache, so a KSM page that went is dead:
whoever touches it first gets an ordinary page with its content. While further page table entries
wait for the slot, that page stays in the swap cache for them: one that belongs there by the
kernel's reckoning (the same address in a process related by fork) maps it, any other gets a copy,
counted as ksm_swpin_copy. docs/model.md#swap says how this was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ksmtrace.model.address_space import Frame, Mm, SwapSlot

if TYPE_CHECKING:
    from ksmtrace.model.memory import Memory


class CannotSwapOut(Exception):
    """A page can't leave memory; the text says why."""


class Swap:
    """The swap disk of a memory. copies: ksm_swpin_copy, as in vmstat."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.copies = 0

    def out(self, mm: Mm, start: int, end: int) -> None:
        """Swap out what is mapped in a range, wherever else it is mapped too.

        Raises CannotSwapOut for a huge page, one that is held, and a KSM page that is mapped where
        ksmd hasn't been since a fork: the kernel can't find that mapping.
        """
        chosen = {mm.pages[address] for address in mm.mapped_in(start, end)}
        chosen.discard(self._memory.zero_frame)
        if not chosen:
            return
        mappings = [
            (other, address)
            for other in self._memory.mms
            for address, frame in other.pages.items()
            if frame in chosen
        ]
        for other, address in mappings:
            frame = other.pages[address]
            if frame.huge is not None:
                raise CannotSwapOut("a huge page is not swapped out")
            if frame.pins:
                raise CannotSwapOut(f"the page at {address:#x} is held, and so stays in memory")
            if not is_found(other, address):
                raise CannotSwapOut(f"the KSM page at {address:#x} is mapped where ksmd wasn't yet")
        for other, address in mappings:
            self._unmap(other, address)
        self._drop_unmapped()

    def _unmap(self, mm: Mm, address: int) -> None:
        frame = mm.pages.pop(address)
        slot = frame.swap
        if slot is None:
            slot = frame.swap = SwapSlot(frame.content, self._memory.home_of(mm, address))
            slot.frame = frame
        slot.content = frame.content
        slot.entries += 1
        mm.swapped[address] = slot, frame.exclusive
        mm.clean.discard(address)
        mm.addresses_changed()
        frame.mapcount -= 1

    def _drop_unmapped(self) -> None:
        """What nobody maps or holds leaves the swap cache with the rest."""
        for mm in self._memory.mms:
            for slot, _exclusive in mm.swapped.values():
                frame = slot.frame
                if frame is not None and not frame.mapcount and not frame.pins:
                    self._uncache(slot)

    def bring_back(self, mm: Mm, address: int) -> None:
        """What a fault at a swapped-out address does before anything else."""
        memory = self._memory
        slot, exclusive = mm.swapped.pop(address)
        home = memory.home_of(mm, address)
        frame = slot.frame
        if frame is None:
            frame = slot.frame = memory.new_frame_at(mm, address, slot.content)
            frame.swap = slot
            frame.exclusive = exclusive
            slot.home = home
        elif frame.node is None and (frame.ksm or slot.home != home):
            frame = memory.new_frame_at(mm, address, slot.content)
            self.copies += 1
        elif not frame.ksm:
            frame.exclusive = exclusive
        memory.map_frame(mm, address, frame)
        mm.addresses_changed()
        if not frame.ksm:
            mm.clean.add(address)
        self._release(slot)

    def forget(self, mm: Mm, address: int) -> None:
        """The mapping of a swapped-out page goes."""
        slot, _exclusive = mm.swapped.pop(address)
        self._release(slot)

    def fork(self, mm: Mm, child: Mm) -> None:
        """A child waits for the same slots; what was one process's own is so no more."""
        for address, (slot, _exclusive) in mm.swapped.items():
            slot.entries += 1
            child.swapped[address] = mm.swapped[address] = slot, False

    def _release(self, slot: SwapSlot) -> None:
        slot.entries -= 1
        if not slot.entries:
            self._uncache(slot)

    @staticmethod
    def _uncache(slot: SwapSlot) -> None:
        if slot.frame is not None:
            slot.frame.swap = None
            slot.frame = None


def is_found(mm: Mm, address: int) -> bool:
    """Whether the kernel finds this mapping when it has to unmap the page (rmap_walk).

    A KSM page's mappings are known through the rmap_items on it, and from each to the same address
    in processes forked from the item's.
    """
    frame = mm.pages[address]
    if not frame.ksm:
        return True
    lineage = set()
    ancestor: Mm | None = mm
    while ancestor is not None:
        lineage.add(ancestor)
        ancestor = ancestor.parent
    items = getattr(frame.node, "items", ())
    return any(item.address == address and item.mm in lineage for item in items)


def is_movable(frame: Frame, mappings: list[tuple[Mm, int]]) -> bool:
    """Whether the kernel can put the content of a page into another one, for all who map it."""
    return not frame.pins and all(is_found(mm, address) for mm, address in mappings)
