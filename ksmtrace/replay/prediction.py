"""Predicting a recorded stream from what the pages held: check (b) for `record --contents`.

Before each scan the simulated memory is made to hold what the real one held, then the reference
scanner scans, and its events and counters must be those recorded. Nothing is claimed for a scan in
which memory moved, nor for the one after it, because a page's last checksum is not known then.
What contents can't tell ends the claim: a page that somebody held, a huge page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ksmtrace.events.batch import EventBatch, concatenate, of_kind
from ksmtrace.events.registry import (
    COW_BREAK,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
    RANGE_LEFT,
    VIA_EXEC,
    VIA_FORK,
)
from ksmtrace.kernel.releases import Profile
from ksmtrace.kernel.sysfs import KNOBS
from ksmtrace.lab.matching import EventMatcher
from ksmtrace.lab.notation import Teller
from ksmtrace.model.clock import Clock
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.memory import Memory, Mm, Vma
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.mirror import Mirror, contents_by_digest

_COMPARED = (
    "full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile",
    "stable_node_chains", "stable_node_dups",
)  # fmt: skip
_SINCE_START = ("pages_scanned", "pages_skipped")
_NOT_READ_YET = [(PAGE_SIZE, 2 * PAGE_SIZE)]
"""A process that entered just now has some region, or ksmd would drop it."""
_DRIVEN = ("run", "pages_to_scan", "sleep_millisecs")


@dataclass(frozen=True)
class Unpredicted:
    """The first thing that was not predicted. index: the event's, in the whole stream."""

    index: int
    seq: int
    message: str
    state: tuple[str, ...]


@dataclass
class Prediction:
    """How it went. predicted, moved: numbers of scans. events: how many were predicted.

    stopped: why nothing is claimed from some scan on, or "".
    """

    predicted: int = 0
    moved: int = 0
    events: int = 0
    unpredicted: Unpredicted | None = None
    stopped: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class _Snapshot:
    """Rows of `contents`. rows: (tgid, addr) -> (digest or None, pfn)."""

    rows: dict[tuple[int, int], tuple[int | None, int]] = field(default_factory=dict)


def has_contents(recording: StoredRecording) -> bool:
    """Whether a recording holds what pages contained."""
    return any(batch.num_rows for batch in recording.record_batches("contents"))


def predict_from_contents(recording: StoredRecording, profile: Profile) -> Prediction:
    """Predict every scan of a recording with contents. Raises KsmtraceError (bad recording)."""
    return _Predictor(recording, profile).run()


class _Predictor:
    def __init__(self, recording: StoredRecording, profile: Profile) -> None:
        self._prediction = Prediction()
        events = concatenate(list(recording.event_batches()))
        # What processes do beside KSM is not predicted.
        self._events = events[~of_kind(events, COW_BREAK, RANGE_LEFT)]
        self._snapshots = _snapshots(recording)
        self._regions = _regions(recording)
        self._samples = _samples(recording)
        start = self._samples.get("start", {})
        knobs = {
            knob.name: start[f"knob_{knob.name}"]
            for knob in KNOBS
            if knob.name not in _DRIVEN
            and profile.has(knob.since)
            and start.get(f"knob_{knob.name}") is not None
        }
        self._start = start
        self._memory = Memory()
        self._clock = Clock()
        self._scanner = KsmScanner(
            self._memory, kernel=profile, knobs={**knobs, "pages_to_scan": 1 << 31},
            clock=self._clock,
        )  # fmt: skip
        contents = contents_by_digest(recording)
        self._mirror = Mirror(self._memory, contents)
        self._ranked = all(
            digest is None or digest in contents
            for snapshot in self._snapshots.values()
            for digest, _pfn in snapshot.rows.values()
        )
        self._mms: dict[int, Mm] = {}
        self._nameless: list[int] = []
        self._gone: set[int] = set()
        self._matcher = EventMatcher({}, {}, recording.manifest["fields_unknown"])
        self._model_teller = Teller(self._process_of_model, _page)
        self._teller = Teller(self._process_of, _page)
        self._settled = True

    def run(self) -> Prediction:
        events = self._events
        if (events["kind"] == LOST.id).any():
            self._prediction.stopped = "events were lost"
            return self._prediction
        if not self._ranked:
            self._prediction.stopped = "it was cut before the order of its contents was written"
            return self._prediction
        kinds = events["kind"]
        starts = np.flatnonzero(kinds == KSM_START_SCAN.id).tolist()
        at = 0
        for start in starts:
            self._between(events[at:start])
            stops = np.flatnonzero(kinds[start:] == KSM_STOP_SCAN.id)
            if not len(stops):
                break
            at = start + int(stops[0]) + 1
            if not self._scan(start, events[start:at]):
                break
        return self._prediction

    # Between scans.

    def _between(self, events: EventBatch) -> None:
        """Follow who enters and leaves ksmd's list."""
        for event in events[np.isin(events["kind"], (KSM_ENTER.id, KSM_EXIT.id))]:
            number = int(event["mm"])
            if event["kind"] == KSM_EXIT.id:
                mm = self._mms.pop(number, None)
                if mm is not None and mm.users:
                    self._gone.add(mm.tgid)
                    self._memory.exit(mm)
                continue
            mm = self._memory.spawn(int(event["tgid"]))
            self._gone.discard(mm.tgid)
            self._mms[number] = mm
            via = int(event["arg"])
            if via == VIA_FORK or not mm.tgid:
                self._nameless.append(number)
            self._scanner.enter(mm, exec_=via == VIA_EXEC)
        self._scanner.take_events()

    def _known(self, snapshot: _Snapshot) -> dict[int, Mm]:
        """Each process's address space; those that were there before enter now."""
        present = sorted(
            ({tgid for tgid, _ in snapshot.rows} | set(self._regions_now())) - self._gone
        )
        by_tgid = {mm.tgid: mm for mm in self._mms.values() if mm.tgid and mm.users}
        newcomers = [tgid for tgid in present if tgid not in by_tgid]
        waiting = [number for number in self._nameless if number in self._mms]
        for number, tgid in zip(waiting, list(newcomers), strict=False):
            self._mms[number].tgid = tgid
            by_tgid[tgid] = self._mms[number]
            newcomers.remove(tgid)
            self._nameless.remove(number)
        for tgid in newcomers:
            mm = self._memory.spawn(tgid)
            by_tgid[tgid] = self._mms[-tgid] = mm
            self._scanner.enter(mm)
            note = "processes registered before the recording are taken in order of their ids"
            if note not in self._prediction.notes:
                self._prediction.notes.append(note)
        self._scanner.take_events()
        return by_tgid

    def _regions_now(self) -> Mapping[int, list[tuple[int, int]]]:
        now = self._clock.now_ns
        return {tgid: regions for ts, tgid, regions in self._regions if ts <= now}

    # One scan.

    def _scan(self, index: int, recorded: EventBatch) -> bool:
        """Predict a scan; False if there is no use in going on."""
        seq = int(recorded[0]["addr"])
        before = self._snapshots.get((seq, "before"))
        prediction = self._prediction
        self._clock.now_ns = int(recorded[0]["ts"])
        if before is None and not self._snapshots:
            prediction.stopped = "the recording holds no contents"
            return False
        by_tgid = self._known(before or _Snapshot())
        regions = self._regions_now()
        for tgid, mm in by_tgid.items():
            known = regions.get(tgid, _NOT_READ_YET)
            vmas = [Vma(start, end, mergeable=True) for start, end in known]
            mm.set_vmas(vmas)
        self._mirror.follow(by_tgid, (before or _Snapshot()).rows)
        model = self._scanner.scan()
        moved = self._moved(seq, recorded)
        after = self._snapshots.get((seq, "after"))
        if after is not None:
            self._mirror.follow(by_tgid, after.rows)
        claimed = not moved and self._settled
        self._settled = not moved
        found = self._matcher.first_difference(recorded, model)
        told = self._teller.tell(recorded), self._model_teller.tell(model)
        wrong = self._wrong_counters(seq) if found is None else []
        if not claimed:
            prediction.moved += 1
            if found is not None or wrong:
                prediction.stopped = (
                    f"memory moved while ksmd worked, in or before scan {seq}, and what ksmd saw"
                    " of it can't be told"
                )
            return not prediction.stopped
        if found is not None:
            return self._not_predicted(index, seq, recorded, found, told)
        if wrong:
            prediction.unpredicted = Unpredicted(
                index + len(recorded) - 1, seq, f"after scan {seq} {wrong[0]}", tuple(wrong)
            )
            return False
        prediction.predicted += 1
        prediction.events += len(recorded)
        return True

    def _moved(self, seq: int, recorded: EventBatch) -> bool:
        """Whether pages or processes changed while ksmd worked."""
        if np.isin(recorded["kind"], (KSM_ENTER.id, KSM_EXIT.id)).any():
            return True
        after = self._snapshots.get((seq, "after"))
        if after is None:
            return False
        zero = recorded[(recorded["kind"] == KSM_MERGE_ONE_PAGE.id) & (recorded["err"] == 0)]
        to_zero = {(int(event["tgid"]), int(event["addr"])) for event in zero}
        for key, (digest, _pfn) in after.rows.items():
            if digest is None and key in to_zero:
                continue
            if digest != self._mirror.digest_at(key):
                return True
        return False

    def _not_predicted(
        self,
        index: int,
        seq: int,
        recorded: EventBatch,
        found: tuple[int, str],
        told: tuple[list[str], list[str]],
    ) -> bool:
        at, why = found
        prediction = self._prediction
        failed = at < len(recorded) and recorded[at]["err"] != 0
        if failed and recorded[at]["kind"] in (KSM_MERGE_ONE_PAGE.id, KSM_MERGE_WITH_KSM_PAGE.id):
            prediction.stopped = (
                f"in scan {seq} ksmd could not merge a page that somebody held"
                f" ({told[0][at]}); contents don't tell who holds pages"
            )
            return False
        mine = told[0][at] if at < len(told[0]) else "the scan's end"
        model = told[1][at] if at < len(told[1]) else "the scan's end"
        before = ", ".join(told[0][max(0, at - 3) : at])
        prediction.unpredicted = Unpredicted(
            index + at,
            seq,
            f"event {index + at}, in scan {seq}: recorded is {mine}, predicted was {model}",
            (f"they differ in: {why}", f"before it: {before}", *self._counters_in_words()),
        )
        return False

    def _counters_in_words(self) -> Iterator[str]:
        counters = self._scanner.counters
        shown = {name: counters[name] for name in _COMPARED if name in counters}
        yield "the model then: " + ", ".join(f"{name} {value}" for name, value in shown.items())

    def _wrong_counters(self, seq: int) -> list[str]:
        sample = self._samples.get(seq)
        if sample is None:
            return []
        counters = self._scanner.counters
        wrong = []
        for name in (*_COMPARED, *_SINCE_START):
            value = sample.get(name)
            if value is None or name not in counters:
                continue
            if name in _SINCE_START:
                value -= self._start.get(name) or 0
            if value != counters[name]:
                wrong.append(f"{name} is {value}, predicted was {counters[name]}")
        return wrong

    def _process_of(self, mm: int, tgid: int) -> str:
        return str(tgid or getattr(self._mms.get(mm), "tgid", 0) or "?")

    def _process_of_model(self, _mm: int, tgid: int) -> str:
        return str(tgid or "?")


def _page(process: str, address: int) -> str:
    return f"{process}:{address:#x}"


def _snapshots(recording: StoredRecording) -> dict[tuple[int, str], _Snapshot]:
    snapshots: dict[tuple[int, str], _Snapshot] = {}
    for batch in recording.record_batches("contents"):
        columns = [
            batch.column(n).to_pylist() for n in ("seq", "phase", "tgid", "addr", "digest", "pfn")
        ]
        for seq, phase, tgid, addr, digest, pfn in zip(*columns, strict=True):
            rows = snapshots.setdefault((seq, phase), _Snapshot()).rows
            rows[tgid, addr] = (digest, pfn or 0)
    return snapshots


def _regions(recording: StoredRecording) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """(ts, tgid, its mergeable regions from then on), in order of time."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for batch in recording.record_batches("regions"):
        columns = [batch.column(n).to_pylist() for n in ("ts", "tgid", "start", "end", "mergeable")]
        for ts, tgid, start, end, mergeable in zip(*columns, strict=True):
            regions = found.setdefault((ts, tgid), [])
            if mergeable:
                regions.append((start // PAGE_SIZE * PAGE_SIZE, end))
    return [(ts, tgid, regions) for (ts, tgid), regions in sorted(found.items())]


def _samples(recording: StoredRecording) -> dict[int | str, dict[str, Any]]:
    """The host's counters: at the start, and after each scan by its number."""
    samples: dict[int | str, dict[str, Any]] = {}
    for row in recording.table("counters").to_pylist():
        if row["tgid"] is not None:
            continue
        if row["reason"] == "start":
            samples["start"] = row
        elif row["reason"] == "scan" and row["full_scans"] == row["seq"] + 1:
            samples[row["seq"]] = row
    return samples
