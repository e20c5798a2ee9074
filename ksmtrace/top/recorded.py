"""A recording as a source: what it was like at any moment, by whatever way one comes there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ksmtrace.events.batch import empty
from ksmtrace.kernel.releases import fork_counts_afresh
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.context import Context
from ksmtrace.top.attached import first_sight_known
from ksmtrace.top.host import CELLS
from ksmtrace.top.lives import U64
from ksmtrace.top.noted import CODES, NOTED, Noted, Noter, bursts_of, parted, recent_of, reduced
from ksmtrace.top.past import Past
from ksmtrace.top.people import People
from ksmtrace.top.state import (
    MERGES,
    WHATS,
    Burst,
    Decision,
    Moment,
    Place,
    Scan,
    Series,
    TopState,
)
from ksmtrace.top.table import Floats, Numbers
from ksmtrace.top.ui import Jump

_RECENT, _DECISIONS = 48, 32
_PAGES = 1 << 20
_STEPS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_CELLS_OF_ALL = 60
_RATE_CELLS = 5
_COPIED = "a forked process's ksm_stat begins with its parent's numbers on this kernel"


class _Everything(Noter):
    """Keeps all that is noted."""

    def __init__(self) -> None:
        super().__init__(_PAGES)
        self.parts: list[Noted] = []
        self.begun: list[tuple[int, int, int]] = []
        self.ended: list[tuple[int, int]] = []
        self.decided: list[Decision] = []
        self.last_ns = 0

    def _begin(self, ts: int, seq: int, items: int) -> None:
        self.begun.append((ts, seq, items))

    def _end(self, ts: int, seq: int) -> None:
        self.ended.append((ts, seq))

    def _decide(self, decisions: Sequence[Decision]) -> None:
        self.decided += decisions

    def _note(self, noted: Noted) -> None:
        self.parts.append(noted)

    def sorted(self) -> Noted:
        """In time's order."""
        every: Noted = np.concatenate([*self.parts, np.empty(0, NOTED)])
        return every[np.argsort(every["ts"], kind="stable")]


class RecordedSource:
    """A recording, read. begin_ns, end_ns: its bounds.

    Rates and cells are shorter in a short recording: a cell is the first of 1, 2, 5 ms ... 1 s of
    which it has at most a hundred and twenty, and a rate is of five cells.
    Raises KsmtraceError (bad recording).
    """

    def __init__(self, path: Path | str) -> None:
        self.recording = recording = StoredRecording(path)
        recording.need_events()
        noter = _Everything()
        noter.attachments.first_sight_known = first_sight_known(
            recording.manifest["fields_unknown"], recording.manifest["kernel"]
        )
        for batch in recording.event_batches():
            noter.last_ns = max(noter.last_ns, int(batch["ts"].max()) if len(batch) else 0)
            noter.take(batch)
        noter.take(empty())
        self._noter = noter
        self._noted = noter.sorted()
        # A column of its own: one that lies between others is copied at each search.
        self._ts: U64 = np.ascontiguousarray(self._noted["ts"])
        self._times: dict[str, U64] = {
            what: self._ts[self._noted["what"] == CODES[what]] for what in WHATS
        }
        self._lost = np.cumsum(self._noted["count"][self._noted["what"] == CODES["lost"]])
        self._context = Context(recording)
        self._bounds()
        self._past = Past(self._context.host, self._context.page_bytes, recording.manifest["cpus"])
        self._begun = np.array([ts for ts, _, _ in noter.begun], np.uint64)
        self._ended = np.array([ts for ts, _ in noter.ended], np.uint64)
        self._decided = np.array([d.ns for d in noter.decided], np.uint64)
        self._people = People(recording, self._context, self._noted)
        self._parts = parted(self._noted)
        self._parts_ts = [np.ascontiguousarray(part["ts"]) for part in self._parts]
        self._bursts = lru_cache(4096)(self._bursts_of_bucket)

    def _bounds(self) -> None:
        manifest, host = self.recording.manifest, self._context.host
        self.begin_ns = self._context.begin_ns
        first = int(self._noted["ts"][0]) if len(self._noted) else self.begin_ns
        # An imported text has clocks of its own.
        self.begin_ns = min(self.begin_ns, first, *(host.ts[:1].tolist()))
        lasted = int((manifest.get("duration_s") or 0) * 1e9)
        last = int(host.ts[-1]) if len(host) else 0
        self.end_ns = max(self.begin_ns + lasted, self._noter.last_ns, last, self.begin_ns + 1)
        length = (self.end_ns - self.begin_ns) / 1e9
        step = next((s for s in _STEPS_S if length / s <= 2 * _CELLS_OF_ALL), _STEPS_S[-1])
        self.cell_ns = int(step * 1e9)

    @property
    def cow(self) -> bool:
        """Whether breaks were seen as they happened."""
        return bool(self.recording.manifest.get("cow"))

    def moment(self, seconds: float) -> int:
        """A moment by seconds from the beginning, within the recording."""
        return min(max(self.begin_ns + round(seconds * 1e9), self.begin_ns), self.end_ns)

    def jumped(self, ns: int, jump: Jump) -> int:
        """Where a jump leads to."""
        if jump.to_begin or jump.to_end:
            return self.begin_ns if jump.to_begin else self.end_ns
        if jump.scans > 0:
            after = self._ended[self._ended > ns]
            return int(after[0]) if len(after) else self.end_ns
        if jump.scans < 0:
            before = self._ended[self._ended < ns]
            return int(before[-1]) if len(before) else self.begin_ns
        return min(max(ns + round(jump.seconds * 1e9), self.begin_ns), self.end_ns)

    def state(self, ns: int) -> TopState:
        """What it was like at a moment."""
        manifest = self.recording.manifest
        cpus, backend = manifest.get("cpus"), manifest["backend"]
        place = Place(
            "recording",
            manifest["kernel"],
            self._context.page_bytes,
            cpus,
            backend,
            self.recording.path.name,
            self.cow,
        )
        since = max(ns - _RATE_CELLS * self.cell_ns, self.begin_ns)
        merges = self._between(since, ns, *MERGES)
        breaks = self._between(since, ns, "broke") if self.cow else None
        sampled = self._past.at(ns, since, merges, breaks)
        decided = int(np.searchsorted(self._decided, np.uint64(ns), "right"))
        return TopState(
            place=place,
            moment=Moment(ns, self.begin_ns, self.end_ns),
            figures=sampled.figures,
            knobs=sampled.knobs,
            scan=self._scan(ns),
            series=self._series(ns),
            decisions=self._noter.decided[max(decided - _DECISIONS, 0) : decided][::-1],
            rows=self._people.rows(ns, since),
            recent=self._recent(ns),
            notes=self._notes(ns),
            lost=self._lost_until(ns),
        )

    def _count(self, what: str, ns: int) -> int:
        return int(np.searchsorted(self._times[what], np.uint64(max(ns, 0)), "right"))

    def _between(self, since: int, ns: int, *whats: str) -> int:
        return sum(self._count(what, ns) - self._count(what, since) for what in whats)

    def _lost_until(self, ns: int) -> int | None:
        here = self._count("lost", ns)
        if not here:
            return None if self.recording.manifest.get("loss_known") is False else 0
        return int(self._lost[here - 1])

    def _notes(self, ns: int) -> list[str]:
        manifest = self.recording.manifest
        notes = []
        if lost := self._lost_until(ns):
            notes.append(f"{lost:,} events were lost up to here, so merges are too few")
        if self.recording.cut:
            notes.append("it was cut: its end is missing")
        if not self._people.known:
            notes.append("it tells nothing of processes")
        elif self._people.forked and not fork_counts_afresh(manifest["kernel"]):
            notes.append(_COPIED)
        return notes

    def _scan(self, ns: int) -> Scan:
        at = int(np.searchsorted(self._begun, np.uint64(ns), "right")) - 1
        over = int(np.searchsorted(self._ended, np.uint64(ns), "right")) - 1
        last_s = self._took(over)
        if at < 0 or (over >= 0 and self._ended[over] >= self._begun[at]):
            seq = self._noter.ended[over][1] if over >= 0 else None
            why = "between two" if at >= 0 and at + 1 < len(self._begun) else "none begins"
            return Scan(None if seq is None else seq + 1, last_s=last_s, basis=why)
        start, seq, items = self._noter.begun[at]
        elapsed = (ns - start) / 1e9
        following = int(np.searchsorted(self._ended, np.uint64(ns), "right"))
        if following < len(self._ended) and self._noter.ended[following][1] == seq:
            left = (int(self._ended[following]) - ns) / 1e9
            return Scan(
                seq,
                under_way=True,
                elapsed_s=elapsed,
                expected_pages=items,
                fraction=elapsed / (elapsed + left) if elapsed + left else 1.0,
                ends_in_s=left,
                last_s=last_s,
                basis="of its time, as recorded",
            )
        return Scan(
            seq,
            under_way=True,
            elapsed_s=elapsed,
            expected_pages=items,
            last_s=last_s,
            basis="its end was not recorded",
        )

    def _took(self, over: int) -> float | None:
        if over < 0:
            return None
        end, seq = self._noter.ended[over]
        at = int(np.searchsorted(self._begun, np.uint64(end), "left")) - 1
        seen = at >= 0 and self._noter.begun[at][1] == seq
        return (end - self._noter.begun[at][0]) / 1e9 if seen else None

    def _series(self, ns: int) -> Series:
        whole = (ns - self.begin_ns) // self.cell_ns
        cells = min(int(whole), CELLS)
        first = self.begin_ns + (int(whole) - cells) * self.cell_ns
        edges = first + np.arange(cells + 1, dtype=np.int64) * self.cell_ns
        seconds = self.cell_ns / 1e9
        merges = np.sum([self._per_cell(edges, what) for what in MERGES], axis=0)
        values = self._past.cells(edges, ns)
        values["merges_per_s"] = (merges / seconds).tolist()
        if self.cow:
            values["breaks_per_s"] = (self._per_cell(edges, "broke") / seconds).tolist()
        return Series(seconds, values)

    def _per_cell(self, edges: Numbers, what: str) -> Floats:
        counted = np.searchsorted(self._times[what], edges.astype(np.uint64), "right")
        cells: Floats = np.diff(counted).astype(np.float64)
        return cells

    def _recent(self, ns: int) -> list[Burst]:
        parts = (self._buckets(part, ns) for part in range(len(self._parts)))
        return self._people.named(recent_of(parts, _RECENT), ns)

    def _buckets(self, part: int, ns: int) -> Iterator[list[Burst]]:
        """The bursts of each stretch of a part up to a moment, the newest first."""
        times = self._parts_ts[part]
        end = int(np.searchsorted(times, np.uint64(ns), "right"))
        while end > 0:
            border = int(times[end - 1]) // self.cell_ns * self.cell_ns
            begin = int(np.searchsorted(times, np.uint64(border), "left"))
            yield self._bursts(part, begin, end)
            end = begin

    def _bursts_of_bucket(self, part: int, begin: int, end: int) -> list[Burst]:
        return bursts_of(reduced(self._parts[part][begin:end]))
