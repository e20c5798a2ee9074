"""Playing a recording in its own time, or faster, to whoever consumes live events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ksmtrace.events.batch import EventBatch, counts_by_kind
from ksmtrace.events.registry import KINDS
from ksmtrace.replay.source import RecordingSource, played
from ksmtrace.timeline.aggregator import SLOTS
from ksmtrace.timeline.build import Timeline, stream_of
from ksmtrace.timeline.summary import summarise
from ksmtrace.views.events import event_lines

_SLICE_NS = 20_000_000
"""Of the time at which it is played: how much is handed on at once."""


@dataclass(frozen=True)
class Played:
    """What was played. totals: the report's, from the same consumers. kinds: events of each.

    lost: None if that is not known.
    """

    events: int
    lost: int | None
    kinds: dict[str, int]
    seconds_recorded: float
    seconds_taken: float
    totals: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """With stable names."""
        return asdict(self)


def in_time(
    batches: Iterator[EventBatch],
    speed: float,
    *,
    now_ns: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[EventBatch]:
    """Batches again, each when its time has come. speed: 2 is twice as fast as it was."""
    begin = now_ns()
    first: int | None = None
    for batch in batches:
        if not len(batch):
            continue
        if first is None:
            first = int(batch["ts"][0])
        due = (np.maximum(batch["ts"], np.uint64(first)) - np.uint64(first)).astype(np.float64)
        slices = np.maximum.accumulate((due / speed) // _SLICE_NS)
        borders = np.flatnonzero(np.diff(slices)) + 1
        for part in np.split(np.arange(len(batch)), borders):
            wait = slices[part[0]] * _SLICE_NS - (now_ns() - begin)
            if wait > 0:
                sleep(wait / 1e9)
            yield batch[part[0] : part[-1] + 1]


def play(
    path: Path | str, speed: float | None, *, tell: Callable[[str], None] | None = None
) -> Played:
    """Play a recording. speed: None is as fast as possible. tell: takes a line for each event.

    Raises KsmtraceError (bad recording).
    """
    source = RecordingSource(path)
    begin = time.monotonic()
    counts = np.zeros(len(KINDS) + 1, np.int64)
    first = last = 0

    def stream() -> Iterator[EventBatch]:
        nonlocal counts, first, last
        batches = played(source)
        for batch in batches if speed is None else in_time(batches, speed):
            if not len(batch):
                continue
            counts = counts + counts_by_kind(batch)
            first = first or int(batch["ts"][0])
            last = int(batch["ts"][-1])
            if tell is not None:
                for line in event_lines(batch, first):
                    tell(line)
            yield batch

    columns = ({name: batch[name] for name in SLOTS} for batch in stream())
    timeline = Timeline(source.recording, stream_of(source.recording, columns))
    summary = summarise(timeline).as_dict()
    return Played(
        events=int(counts.sum()),
        lost=summary["lost"],
        kinds={kind.name: int(counts[kind.id]) for kind in KINDS if counts[kind.id]},
        seconds_recorded=(last - first) / 1e9,
        seconds_taken=time.monotonic() - begin,
        totals=summary["totals"],
    )
