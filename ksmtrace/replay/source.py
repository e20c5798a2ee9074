"""A recording as a source: the same protocol as the live ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ksmtrace.errors import KsmtraceError, Obstacle
from ksmtrace.events.batch import EventBatch, empty
from ksmtrace.recording.reader import StoredRecording


class RecordingStream:
    """An open recording's events: each read is one stored chunk."""

    def __init__(self, batches: Iterator[EventBatch]) -> None:
        self._batches = batches
        self.exhausted = False

    def read(self) -> EventBatch:
        """See `EventStream.read`."""
        batch = next(self._batches, None)
        if batch is None:
            self.exhausted = True
            return empty()
        return batch

    def fileno(self) -> int | None:
        """See `EventStream.fileno`: there is nothing to wait for."""
        return None

    def final(self) -> EventBatch:
        """See `EventStream.final`: what was not read is given up."""
        return empty()


class RecordingSource:
    """Plays a recording's events. Raises KsmtraceError (exit code 4) if it is none."""

    name: ClassVar[str] = "recording"
    summary: ClassVar[str] = "a recording made before"
    fields_unknown: tuple[str, ...]

    def __init__(self, path: Path | str) -> None:
        self.recording = StoredRecording(path)
        self.fields_unknown = tuple(self.recording.manifest.get("fields_unknown", ()))

    def check(self) -> list[Obstacle]:
        """See `Source.check`: a damaged table is an obstacle."""
        try:
            for _ in self.recording.record_batches("events"):
                break
        except KsmtraceError as error:
            return [Obstacle(error.message, error.hint or "record again")]
        return []

    @contextmanager
    def open(self, *, ring_bytes: int = 0) -> Iterator[RecordingStream]:  # noqa: ARG002 the protocol's
        """See `Source.open`; a recording needs no ring."""
        yield RecordingStream(self.recording.event_batches())
