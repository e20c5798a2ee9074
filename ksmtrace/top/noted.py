"""What of a stream is worth a word: merges that stood, breaks, scans, decisions, losses.

Live sums and recordings take it from here, so that both show the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from ksmtrace.capture.sums import StreamSums
from ksmtrace.events.batch import EventBatch, of_kind
from ksmtrace.events.registry import (
    COW_BREAK,
    KINDS,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    KSM_REMOVE_KSM_PAGE,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
    RANGE_LEFT,
    VIA_EXEC,
)
from ksmtrace.timeline.merging import Merges
from ksmtrace.top.attached import Attachments
from ksmtrace.top.state import MERGES, ROUTINE, WHATS, Burst, Decision, What

NOTED: np.dtype[np.void] = np.dtype(
    [
        ("ts", "<u8"),
        ("what", "u1"),
        ("tgid", "<u4"),
        ("count", "<i8"),
        ("number", "<i8"),
        ("seconds", "<f8"),
    ]
)
"""A thing that happened, or `count` of them. what: its place in WHATS; else as `Burst`."""

Noted = npt.NDArray[np.void]
CODES: dict[What, int] = {what: code for code, what in enumerate(WHATS)}
_OF_NOBODY = 255
_MOST_LOST = np.uint64(1 << 40)
"""What is said to be lost at once, at the most: any number may stand in a damaged recording."""
BUCKETS = 64
"""Stretches of time that are remembered: such with routine things in them, and with others."""
_MOST_TOLD = 3
_MOST_EXECED = 1 << 16
_MOST_NAMED = 3
"""Processes of one kind of thing in one second that get a line each."""


def _what_of_kind() -> npt.NDArray[np.uint8]:
    # The last one is for kinds that a later ksmtrace may know.
    table = np.full(max(kind.id for kind in KINDS) + 2, _OF_NOBODY, np.uint8)
    for kind, what in (
        (KSM_ENTER, "entered"),
        (KSM_EXIT, "exited"),
        (KSM_STOP_SCAN, "scanned"),
        (KSM_ADVISOR, "decided"),
        (KSM_REMOVE_KSM_PAGE, "died"),
        (COW_BREAK, "broke"),
        (RANGE_LEFT, "left"),
        (LOST, "lost"),
    ):
        table[kind.id] = CODES[what]  # type: ignore[index]  # each is a What
    return table


_WHAT = _what_of_kind()
_HAS_OWNER = np.array([
    what in (*MERGES, "failed", "broke", "entered", "exited", "left") for what in WHATS
])  # fmt: skip
_SCANNED, _DECIDED, _LOST = CODES["scanned"], CODES["decided"], CODES["lost"]


class Noter(StreamSums):
    """Notes a stream. scan: start (ns), number and items of the scan under way, if one is known.

    last_s: how long the last whole scan took. attachments: which merges are new. pages: how many
    KSM pages these may remember.
    """

    def __init__(self, pages: int) -> None:
        super().__init__()
        self.attachments = Attachments(pages)
        self._execed: dict[int, int] = {}
        self.scan: tuple[int, int, int] | None = None
        self.last_s: float | None = None

    def _count(self, batch: EventBatch) -> None:
        what = _WHAT[np.minimum(batch["kind"], len(_WHAT) - 1)]
        borders = of_kind(batch, KSM_START_SCAN, KSM_STOP_SCAN)
        times = self._scans(batch[borders]) if borders.any() else {}
        losing = of_kind(batch, LOST)
        self.attachments.entered(batch[of_kind(batch, KSM_ENTER)])
        what[self._execs(batch)] = _OF_NOBODY
        if losing.any():
            self.attachments.lost(batch["ts"][losing])
        rows = np.flatnonzero(what != _OF_NOBODY)
        if not len(rows):
            return
        events = batch[rows]
        noted = _noted(events, what[rows])
        at = noted["what"]
        noted["number"][at == _DECIDED] = events["addr"][at == _DECIDED]
        noted["count"][at == _LOST] = np.minimum(events["addr"][at == _LOST], _MOST_LOST)
        scanned = np.flatnonzero(at == _SCANNED)
        if len(scanned):
            noted["number"][scanned] = events["addr"][scanned]
            noted["seconds"][scanned] = [
                times.get(ts, np.nan) for ts in events["ts"][scanned].tolist()
            ]
        if (at == _DECIDED).any():
            self._decide(decisions_of(events[at == _DECIDED]))
        self._note(noted)

    def _merge(self, events: EventBatch, merges: Merges) -> None:
        what = np.full(len(events), _OF_NOBODY, np.uint8)
        what[merges.stood] = self.attachments.told(events, merges)[merges.stood]
        what[merges.zero & ~merges.failed] = CODES["zero"]
        what[merges.failed] = CODES["failed"]
        told = np.flatnonzero(what != _OF_NOBODY)
        self._note(_noted(events[told], what[told]))

    def _execs(self, batch: EventBatch) -> list[int]:
        """Exits of address spaces whose process has gone on in another one, by exec."""
        rows = np.flatnonzero(
            of_kind(batch, KSM_EXIT) | (of_kind(batch, KSM_ENTER) & (batch["arg"] == VIA_EXEC))
        )
        if len(self._execed) > _MOST_EXECED:
            self._execed.clear()
        left = []
        columns = (batch[c][rows].tolist() for c in ("kind", "tgid", "mm"))
        for row, kind, tgid, mm in zip(rows.tolist(), *columns, strict=True):
            if kind == KSM_ENTER.id:
                self._execed[tgid] = mm
            elif tgid in self._execed:
                if self._execed[tgid] == mm:
                    del self._execed[tgid]
                else:
                    left.append(row)
        return left

    def _scans(self, borders: EventBatch) -> dict[int, float]:
        """Follow the scans; how long each took that ended, by its end."""
        took: dict[int, float] = {}
        columns = (borders[c].tolist() for c in ("kind", "ts", "addr", "arg"))
        for kind, ts, seq, items in zip(*columns, strict=True):
            if kind == KSM_START_SCAN.id:
                self.scan = ts, seq, items
                self._begin(ts, seq, items)
                continue
            # Of another number: the start, or this one's, was lost or before our time.
            if self.scan is not None and self.scan[1] == seq:
                took[ts] = self.last_s = (ts - self.scan[0]) / 1e9
            self._end(ts, seq)
            self.scan = None
        return took

    def _begin(self, ts: int, seq: int, items: int) -> None:
        """A scan begins."""

    def _end(self, ts: int, seq: int) -> None:
        """A scan ended."""

    @abstractmethod
    def _decide(self, decisions: Sequence[Decision]) -> None:
        """Take the advisor's decisions."""

    @abstractmethod
    def _note(self, noted: Noted) -> None:
        """Take what was noted. Merges come a little later than what happened beside them."""


def decisions_of(events: EventBatch) -> list[Decision]:
    """The advisor's decisions among events that are all of them."""
    columns = (events[c].tolist() for c in ("ts", "addr", "err", "arg"))
    return [Decision(*row) for row in zip(*columns, strict=True)]


def _noted(events: EventBatch, what: npt.NDArray[np.uint8]) -> Noted:
    noted = np.zeros(len(events), NOTED)
    noted["ts"] = events["ts"]
    noted["what"] = what
    noted["tgid"] = np.where(_HAS_OWNER[what], events["tgid"], 0)
    noted["count"] = 1
    noted["seconds"] = np.nan
    return noted


def reduced(noted: Noted) -> Noted:
    """One row for each kind of thing and process: counts are summed, of the rest the last one."""
    if len(noted) < 2:
        return noted
    key = noted["what"].astype(np.uint64) << np.uint64(32) | noted["tgid"].astype(np.uint64)
    order = np.argsort(key, kind="stable")
    key = key[order]
    begins = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    ends = np.append(begins[1:], len(key)) - 1
    sums: Noted = noted[order[ends]]
    sums["count"] = np.add.reduceat(noted["count"][order], begins)
    sums["ts"] = np.maximum.reduceat(noted["ts"][order], begins)
    return sums


def parted(noted: Noted) -> tuple[Noted, Noted]:
    """What comes again and again, ends of scans and decisions, and all else."""
    routine = np.isin(noted["what"], [CODES[what] for what in ROUTINE])
    return noted[routine], noted[~routine]


def recent_of(parts: Iterable[Iterable[Sequence[Burst]]], most: int) -> list[Burst]:
    """The last things that happened, of both that are `parted`: as buckets, the newest first.

    What comes again and again is told a few times only, so that it does not hide all else.
    """
    told: Counter[What] = Counter()
    recent: list[Burst] = []
    for buckets in parts:
        for bursts in islice(buckets, most):
            for burst in bursts:
                told[burst.what] += 1
                if burst.what not in ROUTINE or told[burst.what] <= _MOST_TOLD:
                    recent.append(burst)
    return sorted(recent, key=lambda burst: -burst.ns)[:most]


def bursts_of(noted: Noted) -> list[Burst]:
    """What to say of one bucket of time, the newest first; noted: `reduced`.

    Of each kind the few processes with most are told, and the others in one.
    """
    order = np.lexsort((noted["tgid"], -noted["count"], noted["what"]))
    noted = noted[order]
    begins = np.flatnonzero(np.diff(noted["what"].astype(np.int16), prepend=-1))
    bursts = []
    for begin, end in zip(begins, np.append(begins[1:], len(noted)), strict=True):
        named = min(end, begin + _MOST_NAMED)
        if end - named == 1:
            named = end
        bursts += [_burst(row) for row in noted[begin:named].tolist()]
        if named < end:
            rest = noted[named:end]
            bursts.append(
                Burst(
                    ns=int(rest["ts"].max()),
                    what=WHATS[int(rest["what"][0])],
                    count=int(rest["count"].sum()),
                    processes=len(rest),
                )
            )
    return sorted(bursts, key=lambda burst: -burst.ns)


def _burst(row: tuple[int, int, int, int, int, float]) -> Burst:
    ts, what, tgid, count, number, seconds = row
    known = None if np.isnan(seconds) else seconds
    return Burst(ts, WHATS[what], count, tgid, number=number, seconds=known)
