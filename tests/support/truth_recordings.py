"""Recordings of scenarios whose truth is known, as a real recorder would have made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import LOST
from ksmtrace.lab import operations as op
from ksmtrace.processes.census import CENSUS
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.writer import RecordingWriter
from tests.support.batches import batch_of, event
from tests.support.recordings import FACTS, FINAL, open_writer
from tests.support.truth import CensusRow, Region, StepSeen, Truth

_END_NS = 1_000_000
SAMPLED_LAST_NS = 2 * _END_NS
"""From the last step to the last sample of the counters."""
_START_TICKS = 1_000
_COW = {
    "seen_by": ["page_fault_user", "page_fault_kernel"],
    "obstacles": [],
    "unchecked": 0,
    "locations_left_out": 0,
}


@dataclass(frozen=True)
class Variant:
    """How a recording is made of a truth.

    census: at its start and end. cow: with what `record --cow` sees. since: the number of steps
    that were over when it began; None: it saw everything. lost: the first event of those that are
    missing, and how many.
    """

    census: bool = True
    cow: bool = False
    since: int | None = None
    lost: tuple[int, int] | None = None

    def begin(self, truth: Truth) -> StepSeen:
        """The state in which it began."""
        return truth.steps[self.since - 1] if self.since else truth.begin

    def steps(self, truth: Truth) -> Sequence[StepSeen]:
        """The steps that it saw."""
        return truth.steps[self.since or 0 :]

    def events(self, truth: Truth) -> EventBatch:
        """Its stream."""
        events = truth.events_with_marks() if self.cow else truth.events
        events = events[events["ts"] > self.begin(truth).ns]
        if self.lost is None:
            return events
        first, count = self.lost
        ts = int(events["ts"][min(first + count, len(events)) - 1])
        gap = batch_of([event(LOST, ts, addr=len(events[first : first + count]))])
        return np.concatenate((events[:first], gap, events[first + count :]))

    def lost_ns(self, truth: Truth) -> tuple[int, int] | None:
        """Between which moments events are missing."""
        if self.lost is None:
            return None
        whole = Variant(self.census, self.cow, self.since).events(truth)
        first, count = self.lost
        last = min(first + count, len(whole)) - 1
        return int(whole["ts"][first]), int(whole["ts"][last])


def record(truth: Truth, path: Path, variant: Variant) -> StoredRecording:
    """A sealed recording."""
    begin = variant.begin(truth)
    facts = {
        **FACTS,
        "kernel": ".".join(map(str, truth.profile.version)),
        "clock": {"monotonic_ns": begin.ns, "wall_ns": FACTS["clock"]["wall_ns"]},
        "knobs": dict(begin.knobs),
        "cow": _COW if variant.cow else None,
    }
    writer = open_writer(path, facts=facts)
    _Context(writer, truth, variant).write(begin)
    writer.events(variant.events(truth))
    notes = [] if variant.census else ["no census: /proc/kpageflags can't be read"]
    last = variant.steps(truth)[-1] if variant.steps(truth) else begin
    at = last.ns + _END_NS
    tgids = sorted(tgid for tgid, _ in last.known) if variant.census else []
    read = {"reason": "end", "begin_ns": at, "end_ns": at, "tgids": tgids}
    censuses = [read] if variant.census else []
    writer.finish("duration", {**FINAL, "notes": notes, "censuses": censuses})
    return StoredRecording(path)


class _Context:
    """Everything but the events."""

    def __init__(self, writer: RecordingWriter, truth: Truth, variant: Variant) -> None:
        self._writer = writer
        self._truth = truth
        self._variant = variant
        self._known: dict[int, str] = {}
        self._regions: dict[int, list[Region]] = {}

    def write(self, begin: StepSeen) -> None:
        self._host(begin.ns, "start", begin)
        self._meet(begin.ns, begin, "present")
        self._processes(begin.ns, "start", begin)
        self._note_regions(begin.ns, begin)
        self._census(begin.ns, "start", begin.mappings)
        last = begin
        for step in self._variant.steps(self._truth):
            self._meet(step.ns, step, "fork" if isinstance(step.operation, op.Fork) else "enter")
            self._note_regions(step.ns, step)
            if step.full_scans:
                seq = step.full_scans - 1
                self._host(step.ns, "scan", step, seq)
                self._processes(step.ns, "scan", step, seq)
            self._host(step.ns, "step", step)
            self._processes(step.ns, "step", step)
            last = step
        self._processes(last.ns + _END_NS, "end", last)
        self._census(last.ns + _END_NS, "end", last.mappings)
        self._host(last.ns + SAMPLED_LAST_NS, "end", last)

    def _host(self, ts: int, reason: str, seen: StepSeen, seq: int | None = None) -> None:
        knobs = {f"knob_{name}": value for name, value in seen.knobs.items()}
        row = {"ts": ts, "reason": reason, "seq": seq, **seen.counters, **knobs}
        self._writer.table("counters", [row])

    def _processes(self, ts: int, reason: str, seen: StepSeen, seq: int | None = None) -> None:
        rows = [
            {"ts": ts, "reason": reason, "seq": seq, "tgid": tgid, **values}
            for tgid, values in seen.processes.items()
        ]
        self._writer.table("counters", rows)

    def _meet(self, ts: int, seen: StepSeen, what: str) -> None:
        now = dict(seen.known)
        gone = "exec" if isinstance(seen.operation, op.Exec) else "exit"
        rows = [
            self._identity(ts, gone, tgid, self._known[tgid]) for tgid in self._known.keys() - now
        ]
        rows += [self._identity(ts, what, tgid, now[tgid]) for tgid in now.keys() - self._known]
        self._known = now
        self._writer.table("identities", rows)

    def _identity(self, ts: int, what: str, tgid: int, comm: str) -> Mapping[str, Any]:
        return {
            "ts": ts,
            "what": what,
            "tgid": tgid,
            "parent_tgid": self._truth.parents.get(tgid, 1),
            "start_ticks": _START_TICKS + tgid,
            "comm": comm,
            "cgroup": f"/lab/{comm}",
        }

    def _note_regions(self, ts: int, seen: StepSeen) -> None:
        by_process: dict[int, list[Region]] = {}
        for region in seen.regions:
            by_process.setdefault(region.tgid, []).append(region)
        for tgid, regions in by_process.items():
            if self._regions.get(tgid) != regions:
                self._writer.table("regions", [{"ts": ts, **_region_row(r)} for r in regions])
        self._regions = by_process

    def _census(self, ts: int, reason: str, mappings: Sequence[CensusRow]) -> None:
        if self._variant.census:
            rows = np.array([(m.tgid, m.addr, m.pfn) for m in mappings], CENSUS)
            self._writer.census(ts, reason, rows)


def _region_row(region: Region) -> Mapping[str, Any]:
    return {
        "tgid": region.tgid,
        "start": region.start,
        "end": region.end,
        "permissions": "rw-p",
        "name": "",
        "mergeable": region.mergeable,
    }
