"""One wake-up of UKSM's daemon: rungs in turn, each until its quota is used; then the rounds' ends.

An evaluation round is over when every rung's cursor has passed its end. A full round is one in
which a quarter of all pages was visited; only after such a one the strength is thought over.
"""

from __future__ import annotations

from random import Random

from ksmtrace.kernel.uksm import RUNGS
from ksmtrace.model.uksm import planning
from ksmtrace.model.uksm.credit import Credit
from ksmtrace.model.uksm.governors import DEFAULT_PAGE_NS, LONGEST_PAGE_NS
from ksmtrace.model.uksm.rungs import Rung
from ksmtrace.model.uksm.slots import Slots
from ksmtrace.model.uksm.state import State
from ksmtrace.model.uksm.structures import Slot
from ksmtrace.model.uksm.trees import Trees
from ksmtrace.model.uksm.visit import Visit

_PAGE_TIME_FORGOTTEN = 256
_SLEEP_RESTORED = 8


class WakeUp:
    """The daemon. rungs: slowest first. admitted: the slots that the last wake-up put on a rung."""

    def __init__(self, state: State, keys: Random, visit: type[Visit] = Visit) -> None:
        self._state = state
        self.credit = Credit(literally=state.quirks.credit)
        self.trees = Trees(state, self.credit)
        self.visit = visit(state, self.trees)
        self.rungs = [Rung(number, state.dice, self._stride) for number in range(RUNGS)]
        self.slots = Slots(state, self.trees, self.rungs[0], keys)
        self.admitted: list[Slot] = []
        self._plan()

    def on_rungs(self) -> list[Slot]:
        """The slots that are scanned."""
        return [slot for rung in self.rungs for slot in rung if not slot.deleted]

    def run(self) -> int:
        """Do one wake-up's work; returns for how many milliseconds to sleep."""
        state = self._state
        self.visit.wakeup += 1
        visits, fastest = self._scan()
        cpu_ns = state.tick()
        # Waking up is no part of what a page takes.
        state.work.wakeups += 1
        self.slots.reap()
        self.admitted = self.slots.admit()
        busy = [rung for rung in self.rungs if rung.pages]
        if busy and all(rung.wrapped for rung in busy):
            self._end_evaluation_round()
        if visits and cpu_ns:
            state.page_ns = planning.moving_average(cpu_ns // visits, state.page_ns)
        self._plan()
        state.sleep_times += 1
        return planning.nap_ms(state.settings.sleep, state.tick(), fastest)

    def _scan(self) -> tuple[int, int]:
        """Visit pages; returns how many, and the ratio of the fastest rung that had some."""
        state = self._state
        draw = self.visit.draw
        visits = fastest = 0
        for rung in self.rungs:
            if not rung.quota:
                continue
            if not rung.pages:
                rung.quota = 0
                continue
            fastest = max(fastest, state.settings.real_ratio(rung.number))
            while rung.quota and rung.pages:
                slot = rung.slot
                assert slot is not None
                if slot.deleted:
                    rung.remove(slot)
                    continue
                if not slot.counted:
                    slot.counted = True
                    state.total_pages += slot.pages
                draw(slot)
                rung.quota -= 1
                visits += 1
                if rung.offset + rung.step > slot.pages - 1 or slot.done == slot.pages:
                    self.judge(slot)
                else:
                    rung.offset += rung.step
        return visits, fastest

    def judge(self, slot: Slot) -> None:
        """A slot's turn is over: up a rung, down, or stay."""
        rung = slot.rung
        assert rung is not None
        settings = self._state.settings
        if slot.done == slot.pages and settings.thrash_threshold:
            number = 0
        elif self._is_rich(slot, slot.merged, slot.sampled):
            number = min(RUNGS - 1, rung.number + 1)
        else:
            number = max(0, rung.number - 1)
        moved = number != rung.number
        if moved:
            rung.remove(slot)
            self.rungs[number].insert([slot])
        slot.turn_round = self._state.eval_round
        slot.merged = slot.cowed = slot.sampled = 0
        if slot.done == slot.pages:
            slot.done = 0
        if not moved:
            rung.advance()

    def _is_rich(self, slot: Slot, merged: int, of: int) -> bool:
        """Whether enough of a slot merged, and stayed so."""
        settings = self._state.settings
        thrash = settings.thrash_threshold
        if merged and thrash:
            merged = 0 if slot.cowed * 100 // merged > thrash else merged - slot.cowed
        ratio = merged * 100 // of if of else 0
        return ratio > 0 and ratio >= settings.abundant_threshold

    def _end_evaluation_round(self) -> None:
        state = self._state
        for rung in self.rungs:
            rung.wrapped = False
        for slot in self.credit.slots:
            rung_now = slot.rung
            rich = rung_now is not None and self._is_rich(slot, slot.bemerged, slot.pages)
            if rung_now is not None and rich and rung_now.number < RUNGS - 1:
                rung_now.remove(slot)
                self.rungs[rung_now.number + 1].insert([slot])
            slot.bemerged = slot.cowed = 0
        self.credit.slots.clear()
        state.eval_round += 1
        if state.svp > state.total_pages // 4:
            self._end_full_round()

    def _end_full_round(self) -> None:
        state = self._state
        state.svp = 0
        if state.pages_scanned:
            state.full_round += 1
        before = state.strength.value
        if state.strength.adjust(state.full_round):
            state.tallies.strength_changes += 1
            self.trees.rekey(before)
            self.trees.empty_unstable()

    def _plan(self) -> None:
        """Quotas and strides for the next wake-up."""
        state, settings = self._state, self._state.settings
        if state.page_ns > LONGEST_PAGE_NS or state.eval_round % _PAGE_TIME_FORGOTTEN == 0:
            state.page_ns = DEFAULT_PAGE_NS
        if state.eval_round % _SLEEP_RESTORED == 0:
            settings.sleep = settings.sleep_saved
        slowest = settings.real_ratio(0)
        if planning.budget_ns(slowest, settings.sleep) < state.page_ns:
            settings.sleep = planning.sleep_for_one_page(state.page_ns, slowest)
        for rung in self.rungs:
            ratio = settings.real_ratio(rung.number)
            rung.quota = planning.quota(ratio, settings.sleep, state.page_ns)
            cover = settings.cover_ms[rung.number]
            rung.step = planning.stride(rung.pages, cover, ratio, state.page_ns)

    def _stride(self, number: int, pages: int) -> int:
        """The stride of a rung outside planning."""
        state, settings = self._state, self._state.settings
        ratio = settings.cpu_ratios[number]
        if not state.quirks.dense_entry:
            ratio = settings.real_ratio(number)
        return planning.stride(pages, settings.cover_ms[number], ratio, state.page_ns)
