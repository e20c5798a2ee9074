"""Breaks by process, as counters: one that is listed stays so while it lives.

Counters must not fall, so nobody is moved between a place of his own and the sum of the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ksmtrace.processes.identity import Identity, identify_briefly


class BreaksByProcess:
    """The first `most` processes that break get a place; it is free again when one is gone."""

    def __init__(
        self, most: int, look_up: Callable[[int], Identity | None] = identify_briefly
    ) -> None:
        self._most = most
        self._look_up = look_up
        self._who: dict[int, Identity] = {}
        self._counts: dict[int, int] = {}
        self.others = 0

    def take(self, tgids: npt.NDArray[np.uint32]) -> None:
        """Add breaks. tgids: who broke, one a break; 0: unknown."""
        values, counts = np.unique(tgids, return_counts=True)
        for tgid, count in zip(values.tolist(), counts.tolist(), strict=True):
            if self._has_place(tgid):
                self._counts[tgid] += count
            else:
                self.others += count

    def listed(self) -> list[tuple[str, str, int]]:
        """(tgid, comm, breaks) of those that live; the places of others become free."""
        for tgid in list(self._who):
            now = self._look_up(tgid)
            if now is None or now.start_ticks != self._who[tgid].start_ticks:
                del self._who[tgid], self._counts[tgid]
        return [(str(tgid), one.comm, self._counts[tgid]) for tgid, one in self._who.items()]

    def _has_place(self, tgid: int) -> bool:
        if tgid in self._who:
            return True
        if not tgid or len(self._who) >= self._most:
            return False
        who = self._look_up(tgid)
        if who is None:
            return False
        self._who[tgid], self._counts[tgid] = who, 0
        return True
