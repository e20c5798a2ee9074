"""Whether every page was visited since some moment: what a full scan is where all is sampled."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ksmtrace.model.uksm.structures import Slot

PATIENCE = 8
"""Evaluation rounds without a turn after which a slot is taken for one that gets none.

A stride of one passes over a region of one page, unless that is the first of its rung.
"""


class Coverage:
    """Watches some slots until each of their pages was visited, or they are gone or passed over."""

    def __init__(self) -> None:
        self.going_on = False
        self._wakeup = 0
        self._round = 0
        self._slots: list[Slot] = []

    def begin(self, slots: Iterable[Slot], wakeup: int, eval_round: int) -> bool:
        """Watch these slots from a wake-up on. Returns whether there is anything to watch."""
        self._slots = list(slots)
        self._wakeup = wakeup
        self._round = eval_round
        self.going_on = bool(self._slots)
        return self.going_on

    def complete(self, eval_round: int) -> bool:
        """Whether all was visited."""
        while self._slots:
            slot = self._slots[-1]
            had_turn = max(slot.turn_round, self._round) + PATIENCE >= eval_round
            if not slot.deleted and had_turn and not self._covered(slot):
                return False
            self._slots.pop()
        return True

    def _covered(self, slot: Slot) -> bool:
        seen = np.frombuffer(slot.seen, np.uint32)
        return len(seen) > 0 and int(seen.min()) >= self._wakeup

    def end(self) -> None:
        """Stop watching."""
        self.going_on = False
