"""What a text tells of lost events, as `lost` events where the loss ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ksmtrace.events.batch import EVENT, EventBatch
from ksmtrace.events.registry import LOST
from ksmtrace.replay.foreign.textformat import Part

_MOST = (1 << 63) - 1


class Placed(NamedTuple):
    """A loss that ends before the event in a row."""

    row: int
    cpu: int
    number: int


class Losses:
    """Finds the place of each loss: before the next event of the text, whose time it gets.

    tracefs' header tells how many events were overwritten, but not on which CPU. Their place is
    before each CPU's first event: the first of these losses has the number, the others have 0.
    """

    def __init__(self) -> None:
        self._open: list[tuple[int, int]] = []
        self._overwritten = 0
        self._met: set[int] | None = None

    def place(
        self,
        part: Part,
        events: npt.NDArray[np.intp],
        overwritten: Sequence[tuple[int, int]],
    ) -> list[Placed]:
        """The losses that end among some lines.

        part: the lines. events: rows of lines that are an event, anybody's. overwritten: row and
        number of each header that tells of it.
        """
        lost_on, lost = part["lost_on"], part["lost"]
        headers = dict(overwritten)
        told = [row for row, both in enumerate(zip(lost, lost_on, strict=True)) if any(both)]
        found: list[Placed] = []
        done = 0
        for row in sorted([*told, *headers]):
            self._end_at(part, events, done, row, found)
            done = row
            if row in headers:
                self._overwritten += headers[row]
                self._met = set()
            else:
                # Lost without a number: at least one.
                self._open.append((_cpu(lost_on[row]), int(lost[row] or b"1")))
        self._end_at(part, events, done, len(lost), found)
        return found

    def _end_at(
        self, part: Part, events: npt.NDArray[np.intp], begin: int, end: int, found: list[Placed]
    ) -> None:
        """Losses that the events of rows from `begin` to `end` end."""
        if not self._open and self._met is None:
            return
        first, behind = np.searchsorted(events, (begin, end)).tolist()
        if first == behind:
            return
        found += [Placed(int(events[first]), cpu, count) for cpu, count in self._open]
        self._open.clear()
        if self._met is None:
            return
        rows = events[first:behind].tolist()
        cpus = [_cpu(part["cpu"][row]) for row in rows]
        for cpu in dict.fromkeys(cpus):
            if cpu not in self._met:
                self._met.add(cpu)
                found.append(Placed(rows[cpus.index(cpu)], cpu, self._overwritten))
                self._overwritten = 0

    def rest(self) -> list[Placed]:
        """Losses that no event follows."""
        found = [Placed(0, cpu, count) for cpu, count in self._open]
        if self._overwritten:
            found.append(Placed(0, 0, self._overwritten))
        self._open.clear()
        self._overwritten = 0
        return found


def lost_events(losses: Sequence[Placed], times: npt.NDArray[np.uint64]) -> EventBatch:
    """Events for losses. times: of the events before which they stand."""
    batch = np.zeros(len(losses), EVENT)
    batch["kind"] = LOST.id
    batch["ts"] = times
    batch["cpu"] = [loss.cpu for loss in losses]
    batch["addr"] = [min(loss.number, _MOST) for loss in losses]
    return batch


def _cpu(text: bytes) -> int:
    return int(text or b"0") & 0xFFFF
