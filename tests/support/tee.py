"""A recording's writer with a live timeline beside it: both take the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ksmtrace.events.batch import EventBatch
from ksmtrace.recording.pseudonyms import Namer
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.target import Target
from ksmtrace.recording.writer import RecordingWriter
from ksmtrace.timeline.build import Timeline, timeline_of
from ksmtrace.timeline.live import LiveTimeline
from ksmtrace.timeline.tables import TABLES


class Tee:
    """Stands for a RecordingWriter."""

    def __init__(self, target: Target, facts: Mapping[str, Any], namer: Namer) -> None:
        self.writer = RecordingWriter(target, facts, namer)
        self.live = LiveTimeline(self.writer.manifest, namer)
        self.folder = self.writer.folder
        self.manifest = self.writer.manifest
        self.rows = self.writer.rows
        self.flush_if_due = self.writer.flush_if_due
        self.finish = self.writer.finish
        self.abandon = self.writer.abandon

    def events(self, batch: EventBatch) -> None:
        """As a consumer of a session."""
        self.writer.events(batch)
        self.live.events(batch)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """As a context's sink, like all that follow."""
        self.writer.table(name, rows)
        self.live.table(name, rows)

    def census(self, ts: int, reason: str, rows: np.ndarray[Any, np.dtype[np.void]]) -> None:
        """See `table`."""
        self.writer.census(ts, reason, rows)
        self.live.census(ts, reason, rows)

    def code(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """See `table`."""
        self.writer.code(rows)
        self.live.code(rows)

    def same_timeline(self) -> Timeline:
        """The live timeline, once the recording is sealed; each table is as the recording's."""
        live, stored = self.live.finish(), timeline_of(StoredRecording(self.folder))
        for name in TABLES:
            pd.testing.assert_frame_equal(getattr(live, name), getattr(stored, name), obj=name)
        return live
