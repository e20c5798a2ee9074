"""From a text to events, a chunk of whole lines at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import numpy.typing as npt

from ksmtrace.events.batch import EventBatch, concatenate, empty
from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.replay.foreign.fields import PARSERS, Pointers
from ksmtrace.replay.foreign.losses import Losses, lost_events
from ksmtrace.replay.foreign.textformat import Facts, Part, TextFormat

_NAMES = b"|".join(kind.name.encode() for kind in TRACEPOINTS)
_MEANT = re.compile(rb"(?:^|[\s:])(?:" + _NAMES + rb"):")
"""A line that names one of our events but isn't one."""
_KSM = b"ksm_"
_PARSER_OF = {kind.id: PARSERS[kind.name] for kind in TRACEPOINTS}
_ADDED_UP = ("promised", "overwritten", "lost_chunks")
"""What a text may tell several times, as parts of one number."""


@dataclass
class Account:
    """What became of the lines of a text.

    lines: all of them. events: ours, losses not among them. entries: lines that are an event,
    anybody's. others: events of other tracepoints by name. unreadable: lines that name one of our
    events but aren't one; first_unreadable: number and text of the first. told: what headers say.
    """

    lines: int = 0
    events: int = 0
    entries: int = 0
    others: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    first_unreadable: tuple[int, str] | None = None
    lost: int = 0
    told: Facts = field(default_factory=dict)
    pointers: Pointers = field(default_factory=Pointers)
    without_cpu: int = 0
    ticks: bool = False
    backwards: int = 0
    first_ns: int | None = None
    earliest_ns: int = 0
    latest_ns: int = 0

    @property
    def unknown_kinds(self) -> dict[str, int]:
        """Tracepoints of KSM that the registry does not have."""
        return {n: c for n, c in self.others.items() if n.split(":")[-1].startswith("ksm_")}

    @property
    def missing(self) -> int:
        """Events that a header promises and that are not there."""
        if "promised" not in self.told:
            return 0
        lost_between = self.lost - int(self.told.get("overwritten", 0))
        return max(0, int(self.told["promised"]) - self.entries - lost_between)


class _Kinds(dict[bytes, int]):
    """Our events' ids by the names in a text; 0 for all others."""

    def __missing__(self, key: bytes) -> int:
        return 0


class TextParser:
    """Turns a text into batches; any split into chunks of whole lines gives the same events.

    No input raises. Order is the text's, also where times go back. account: what was met so far.
    """

    def __init__(self, text_format: TextFormat) -> None:
        self.account = Account()
        self._format = text_format
        names = {kind.id: text_format.names_begin_with + kind.name.encode() for kind in TRACEPOINTS}
        self._kinds = _Kinds({name: number for number, name in names.items()})
        self._last_ns = 0
        self._before = 0
        self._losses = Losses()

    def feed(self, chunk: bytes) -> EventBatch:
        """The events of some lines. chunk: ends with a line's end, or is empty."""
        rows = self._format.line.findall(chunk)
        if not rows:
            return empty()
        columns = list(zip(*rows, strict=True))
        part: Part = {name: columns[place] for name, place in self._format.at.items()}
        kinds = np.fromiter(map(self._kinds.__getitem__, part["name"]), np.uint16, len(rows))
        is_event = np.fromiter(map(bool, part["name"]), bool, len(rows))
        overwritten = self._other_lines(part, is_event)
        self._other_events(part, is_event & (kinds == 0))
        at, events = self._events(part, kinds)
        timed = np.flatnonzero(is_event)
        if losses := self._losses.place(part, timed, overwritten):
            places = np.array([loss.row for loss in losses], np.intp)
            lost = lost_events(losses, _times(part, places.tolist()))
            self.account.lost += int(lost["addr"].sum())
            order = np.argsort(np.concatenate((places * 2, at * 2 + 1)), kind="stable")
            events = concatenate([lost, events])[order]
        if len(timed):
            self._last_ns = int(_times(part, timed[-1:].tolist())[0])
        self._look_at(events)
        self.account.entries += len(timed)
        self.account.lines += len(rows)
        return events

    def finish(self) -> EventBatch:
        """Losses at the text's end, which no event follows."""
        losses = self._losses.rest()
        batch = lost_events(losses, np.full(len(losses), self._last_ns, np.uint64))
        self.account.lost += int(batch["addr"].sum())
        return batch

    def _events(
        self, part: Part, kinds: npt.NDArray[np.uint16]
    ) -> tuple[npt.NDArray[np.intp], EventBatch]:
        """Our events and the row of each, in order."""
        ats, batches = [np.empty(0, np.intp)], [empty()]
        for number in np.unique(kinds[kinds != 0]).tolist():
            rows = np.flatnonzero(kinds == number)
            bodies = list(compress(part["body"], (kinds == number).tolist()))
            events, good = _PARSER_OF[number].parse(bodies, self.account.pointers)
            for row in rows[~good].tolist():
                self._unreadable(row, part["name"][row] + b": " + part["body"][row])
            ats.append(rows[good])
            batches.append(events[good])
        at, events = np.concatenate(ats), np.concatenate(batches)
        order = np.argsort(at, kind="stable")
        at, events = at[order], events[order]
        chosen = at.tolist()
        events["ts"] = _times(part, chosen)
        cpus = [part["cpu"][row] for row in chosen]
        self.account.ticks |= any(part["ticks"])
        self.account.without_cpu += cpus.count(b"")
        events["cpu"] = [int(cpu or b"0") & 0xFFFF for cpu in cpus]
        self.account.events += len(events)
        return at, events

    def _other_events(self, part: Part, mask: npt.NDArray[np.bool_]) -> None:
        names = Counter(compress(part["name"], mask.tolist()))
        for name, count in names.items():
            self.account.others[name.decode(errors="replace")] += count

    def _other_lines(self, part: Part, is_event: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
        """Look at lines that are no events. Returns row and number of overwritten events told."""
        overwritten = []
        for row in np.flatnonzero(~is_event).tolist():
            line = part["rest"][row]
            if not line:
                continue
            if _KSM in line and _MEANT.search(line) and not line.startswith(b"#"):
                self._unreadable(row, line)
                continue
            for name, value in self._format.header(line).items():
                if name in _ADDED_UP:
                    self.account.told[name] = self.account.told.get(name, 0) + value
                else:
                    self.account.told[name] = value
                if name == "overwritten" and value:
                    overwritten.append((row, value))
        return overwritten

    def _unreadable(self, row: int, line: bytes) -> None:
        account = self.account
        account.unreadable += 1
        number = account.lines + row + 1
        if account.first_unreadable is None or number < account.first_unreadable[0]:
            account.first_unreadable = number, line[:200].decode(errors="replace").strip()

    def _look_at(self, events: EventBatch) -> None:
        if not len(events):
            return
        account = self.account
        ts = events["ts"].astype(np.int64)
        if account.first_ns is None:
            account.first_ns = account.earliest_ns = account.latest_ns = int(ts[0])
            self._before = int(ts[0])
        account.backwards += int((np.diff(ts, prepend=self._before) < 0).sum())
        self._before = int(ts[-1])
        account.earliest_ns = min(account.earliest_ns, int(ts.min()))
        account.latest_ns = max(account.latest_ns, int(ts.max()))


def _times(part: Part, rows: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Nanoseconds of some rows that are events; ticks of a counter as they are."""
    seconds, fractions, ticks = (
        [part[name][row] for row in rows] for name in ("seconds", "fraction", "ticks")
    )
    lengths = set(map(len, fractions))
    if len(lengths) == 1 and (digits := lengths.pop()):
        whole = np.fromiter(map(int, map(bytes.__add__, seconds, fractions)), np.uint64, len(rows))
        return whole * np.uint64(10 ** (9 - digits))
    return np.fromiter(
        (
            int(tick or second + fraction.ljust(9, b"0"))
            for second, fraction, tick in zip(seconds, fractions, ticks, strict=True)
        ),
        np.uint64,
        len(rows),
    )
