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

    def stop(self) -> None:
        """See `EventStream.stop`: nothing produces here."""


class RecordingSource:
    """Plays a recording's events. Raises KsmtraceError (exit code 4) if it is none, or has none."""

    name: ClassVar[str] = "recording"
    summary: ClassVar[str] = "a recording made before"

    def __init__(self, path: Path | str) -> None:
        self.recording = StoredRecording(path)
        self.recording.need_events()
        self.fields_unknown = tuple(self.recording.manifest["fields_unknown"])

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


def played(source: RecordingSource) -> Iterator[EventBatch]:
    """All batches of a recording, from the first to the last."""
    with source.open() as stream:
        while not stream.exhausted:
            yield stream.read()
