"""A recording's events and samples, in the order in which they are to be judged."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from ksmtrace.events.batch import EventBatch
from ksmtrace.kernel.sysfs import COUNTERS, KNOBS
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.conformance_stream import Conformance

FOREVER = (1 << 63) - 1
_STEP = "step"
_ATTACHING_NS = 60_000_000_000
"""Attaching to a kernel's events takes less."""
_COUNTERS = tuple(dict.fromkeys(counter.name for counter in COUNTERS))
_KNOBS = tuple(knob.name for knob in KNOBS)


@dataclass(frozen=True)
class Reading:
    """A row of counters.

    begin, until: when it was read, in nanoseconds; until None: while ksmd stood still. tgid: None
    for the host. knobs: those that stay as they are until the host's next row, None for others;
    run: as it was. last: nothing was recorded after it.
    """

    begin: int
    until: int | None
    tgid: int | None
    values: Mapping[str, int]
    knobs: Mapping[str, str | None] = field(default_factory=dict)
    last: bool = False


def readings(recording: StoredRecording) -> list[Reading]:
    """The samples in the order in which they began."""
    rows = sorted(recording.table("counters").to_pylist(), key=lambda row: int(row["ts"]))
    hosts = [row for row in rows if row["tgid"] is None]
    following = {id(row): after for row, after in pairwise(hosts)}
    found = []
    for number, row in enumerate(rows):
        of_host = row["tgid"] is None
        begin, until = _when(rows, number)
        found.append(
            Reading(
                begin,
                until,
                row["tgid"],
                {name: row[name] for name in _COUNTERS if row[name] is not None},
                _lasting(row, following.get(id(row), {})) if of_host else {},
                last=of_host and row["reason"] == "end",
            )
        )
    return sorted(found, key=lambda reading: reading.begin)


def _when(rows: list[dict[str, Any]], number: int) -> tuple[int, int | None]:
    """When a row was read: a host's bears the time before it was, a process's that after it."""
    row = rows[number]
    ts = int(row["ts"])
    if row["reason"] == _STEP:
        return ts, None
    if row["tgid"] is None:
        later = (int(after["ts"]) for after in rows[number + 1 :] if after["ts"] > ts)
        return ts, next(later, FOREVER)
    earlier = (int(before["ts"]) for before in rows[number::-1] if before["ts"] < ts)
    return next(earlier, ts), ts


def _lasting(row: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str | None]:
    """The knobs that two neighbouring samples show with one value; `run` as it was."""
    values = {name: row[f"knob_{name}"] for name in _KNOBS}
    same = {name: v if after.get(f"knob_{name}") == v else None for name, v in values.items()}
    return same | {"run": values["run"]}


def trusted_time(recording: StoredRecording, samples: Sequence[Reading]) -> tuple[int, int]:
    """From when to when every event was recorded.

    Programs are attached one after the other before that, and detached after it.
    """
    attached = int(recording.manifest["clock"]["monotonic_ns"])
    first = next((int(batch["ts"][0]) for batch in recording.event_batches() if len(batch)), 0)
    # Events of long before weren't made on that clock: a simulation's, or another tool's.
    begin = attached if first > attached - _ATTACHING_NS else 0
    last = [sample.begin for sample in samples if sample.last]
    return begin, last[-1] if last and not recording.cut else FOREVER


def judge(
    conformance: Conformance,
    batches: Iterable[EventBatch],
    samples: Sequence[Reading],
    time: tuple[int, int] = (0, FOREVER),
) -> int:
    """Feed events and samples in the order of time, to the end. Returns how many events.

    samples: in the order in which they began. time: what lies outside is only counted.
    """
    feeder = _Feeder(conformance, samples, *time)
    with _no_garbage():
        for batch in batches:
            feeder.events(batch)
        feeder.finish()
    return feeder.judged


@contextmanager
def _no_garbage() -> Iterator[None]:
    """What is known grows to the end: to look for garbage in it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Feeder:
    def __init__(
        self, conformance: Conformance, samples: Sequence[Reading], begin: int, end: int
    ) -> None:
        self._conformance = conformance
        self._samples = samples
        self._next = 0
        self._begin = begin
        self._end = end
        self.judged = 0

    def events(self, batch: EventBatch) -> None:
        # Late events of other tasks don't change which side of a sample ksmd's are on.
        latest = np.maximum.accumulate(batch["ts"])
        done = 0
        while self._next < len(self._samples):
            at = int(np.searchsorted(latest, self._samples[self._next].begin))
            if at == len(batch):
                break
            self._feed(batch[done:at])
            done = max(done, at)
            self._sample()
        self._feed(batch[done:])

    def _feed(self, batch: EventBatch) -> None:
        early = batch["ts"] < self._begin
        trusted = batch[~early & (batch["ts"] <= self._end)]
        self._conformance.skip(int(early.sum()))
        self._conformance.events(trusted)
        self.judged += len(trusted)

    def _sample(self) -> None:
        sample = self._samples[self._next]
        self._next += 1
        self._conformance.counters(
            sample.begin, sample.values, tgid=sample.tgid, until=sample.until
        )
        if sample.knobs:
            self._conformance.knobs(sample.knobs)

    def finish(self) -> None:
        while self._next < len(self._samples):
            self._sample()
        self._conformance.finish()
