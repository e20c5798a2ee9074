"""Slots: one for each region that UKSM may have, made, admitted to rung 0, and reaped.

The kernel is told of each change of a region. Here regions are looked at when a wake-up begins,
and have serial numbers, which comes to the same: nothing else happens during a wake-up.
"""

from __future__ import annotations

from random import Random

from ksmtrace.model.memory import Mm, Vma
from ksmtrace.model.uksm.rungs import Rung
from ksmtrace.model.uksm.state import State
from ksmtrace.model.uksm.structures import Slot
from ksmtrace.model.uksm.trees import Trees

_WRAPPED = 1 << 64
_KEY_BITS = 47


class Slots:
    """All slots. waiting: made, and not on a rung yet; dying: their regions are gone."""

    def __init__(self, state: State, trees: Trees, slowest: Rung, dice: Random) -> None:
        self._state = state
        self._trees = trees
        self._slowest = slowest
        self._keys = dice
        self._regions: dict[int, tuple[Mm, list[Vma], set[int]]] = {}
        self._opted_out: set[int] = set()
        self.by_serial: dict[int, Slot] = {}
        self.waiting: dict[int, Slot] = {}
        self.dying: list[Slot] = []

    def slot_at(self, mm: Mm, address: int) -> Slot | None:
        """The slot of the region at an address, if it has one."""
        vma = mm.vma_at(address)
        if vma is None:
            return None
        slot = self.by_serial.get(vma.serial)
        if slot is None:
            self._look_at(mm)
            slot = self.by_serial.get(vma.serial)
        return slot

    def _make(self, mm: Mm, vma: Vma) -> Slot | None:
        if not vma.compatible or vma.serial in self._opted_out:
            return None
        slot = Slot(mm, vma, (self._keys.getrandbits(_KEY_BITS), vma.serial))
        self.by_serial[vma.serial] = self.waiting[vma.serial] = slot
        return slot

    def opt_out(self, mm: Mm, vma: Vma) -> None:
        """MADV_UNMERGEABLE: the region loses its slot for as long as it stays what it is."""
        self._opted_out.add(vma.serial)
        if vma.serial in self.by_serial:
            self._delete(vma.serial)
        known = self._regions.get(mm.id)
        if known is not None:
            known[2].discard(vma.serial)

    def look(self) -> None:
        """Find out which regions have come, gone, or been replaced by others."""
        alive = set()
        for mm in self._state.memory.mms:
            alive.add(mm.id)
            self._look_at(mm)
        for number in sorted(self._regions.keys() - alive):
            for serial in sorted(self._regions.pop(number)[2]):
                self._delete(serial)

    def _look_at(self, mm: Mm) -> None:
        known = self._regions.get(mm.id)
        if known is not None and known[1] is mm.vmas:
            return
        now = set()
        for vma in mm.vmas:
            slot = self.by_serial.get(vma.serial)
            if slot is None:
                slot = self._make(mm, vma)
            if slot is not None:
                slot.vma = vma
                now.add(vma.serial)
        for serial in sorted((set() if known is None else known[2]) - now):
            self._delete(serial)
        self._regions[mm.id] = mm, mm.vmas, now

    def _delete(self, serial: int) -> None:
        slot = self.by_serial.pop(serial)
        slot.deleted = True
        if self.waiting.pop(serial, None) is None:
            self.dying.append(slot)

    def admit(self) -> list[Slot]:
        """Put waiting slots with memory on the slowest rung, oldest first."""
        ready = [slot for _, slot in sorted(self.waiting.items()) if slot.vma.root is not None]
        for slot in ready:
            del self.waiting[slot.serial]
            slot.begin()
        if ready:
            self._slowest.insert(ready)
        return ready

    def reap(self) -> None:
        """Forget the slots whose regions are gone, with all their items."""
        state = self._state
        for slot in self.dying:
            if slot.rung is not None:
                slot.rung.remove(slot)
            for item in slot.items.values():
                self._trees.detach(item)
            state.items -= len(slot.items)
            slot.items = {}
            if slot.counted:
                state.total_pages -= slot.pages
            counted = slot.pages if slot.round_mark == state.full_round else slot.done
            state.svp -= counted
            if state.svp < 0:
                state.svp = state.svp % _WRAPPED if state.quirks.wrap else 0
        self.dying = []

    @property
    def live(self) -> list[Slot]:
        """Those that have memory, on a rung or about to be."""
        return [
            slot
            for slot in self.by_serial.values()
            if slot.rung is not None or slot.vma.root is not None
        ]
