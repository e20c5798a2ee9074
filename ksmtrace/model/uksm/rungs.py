"""A rung: slots one after the other, and a cursor that steps over their pages.

The cursor says how many visits each slot gets; which page is visited is the slot's own draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from random import Random

from ksmtrace.model.uksm.structures import Slot

Stride = Callable[[int, int], int]
"""Rung number and its pages to the stride that a rung takes outside planning."""


class Rung:
    """One of the four. step: pages a sample stands for. quota: visits left in this wake-up.

    slot, offset: the cursor. wrapped: whether it has passed the end in this evaluation round.
    """

    def __init__(self, number: int, dice: Random, stride: Stride) -> None:
        self.number = number
        self.step = 1
        self.quota = 0
        self.wrapped = False
        self.pages = 0
        self.slot: Slot | None = None
        self.offset = 0
        self._dice = dice
        self._stride = stride
        self._slots: list[Slot | None] = []
        self._holes: list[int] = []

    def __iter__(self) -> Iterator[Slot]:
        """Its slots, in order."""
        return (slot for slot in self._slots if slot is not None)

    def insert(self, slots: list[Slot]) -> None:
        """Put slots on it, each at the lowest free place."""
        was_empty = self.slot is None
        for slot in slots:
            if self._holes:
                slot.index = heappop(self._holes)
                self._slots[slot.index] = slot
            else:
                slot.index = len(self._slots)
                self._slots.append(slot)
            slot.rung = self
            self.pages += slot.pages
        if was_empty and slots:
            self._reset(wrapped=False, recompute=True)

    def remove(self, slot: Slot) -> None:
        """Take a slot off."""
        if self.slot is slot:
            self.advance()
        self._slots[slot.index] = None
        heappush(self._holes, slot.index)
        self.pages -= slot.pages
        slot.rung = None
        if self._too_big():
            self.step = self._stride(self.number, self.pages)
        if not self.pages:
            self.slot = None
            self.offset = 0
        elif self.slot is slot:
            self._reset(wrapped=True, recompute=False)

    def advance(self) -> None:
        """Go on to the next slot that a sample falls into."""
        slot = self.slot
        assert slot is not None
        # Truncated to 16 bits as in the kernel.
        rest = ((slot.pages - self.offset) % self.step) & 0xFFFF
        found = self._locate(slot.index + 1, self.step - rest)
        if found is None:
            self._reset(wrapped=True, recompute=False)
        else:
            self.slot, self.offset = found

    def _locate(self, index: int, pages: int) -> tuple[Slot, int] | None:
        """The slot, from a place on, that contains the page so far ahead, and where."""
        slots = self._slots
        while index < len(slots):
            slot = slots[index]
            if slot is not None:
                if pages < slot.pages:
                    return slot, pages
                pages -= slot.pages
            index += 1
        return None

    def _reset(self, *, wrapped: bool, recompute: bool) -> None:
        if wrapped:
            self.wrapped = True
        if recompute or self._too_big():
            self.step = self._stride(self.number, self.pages)
        found = self._locate(0, int(self._dice.random() * self.step))
        assert found is not None, "a step is shorter than the rung"
        self.slot, self.offset = found

    def _too_big(self) -> bool:
        third = self.pages // 3
        return self.pages > 0 and (self.step > self.pages or 0 < third < self.step)
