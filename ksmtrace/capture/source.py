"""What every source of events looks like: live backends and recordings alike."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar, Protocol

from ksmtrace.errors import Obstacle
from ksmtrace.events.batch import EventBatch

DEFAULT_RING_BYTES = 64 << 20
"""Holds a million events: a third of a second of the largest burst seen (3 M events/s)."""


class EventStream(Protocol):
    """An open source."""

    exhausted: bool
    """True once no further event can come (a recording at its end; never for a live source)."""

    def read(self) -> EventBatch:
        """The events that arrived since the last call, in order; possibly none. Never waits."""
        ...

    def fileno(self) -> int | None:
        """A descriptor that becomes readable when events ask to be read soon, or None."""
        ...

    def stop(self) -> None:
        """Stop the producers.

        What came until then is still to be read, until `read` gives nothing; losses that no event
        could tell of come last.
        """
        ...


class Source(Protocol):
    """A way to get events."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line: what it needs and what it gives."""
    fields_unknown: ClassVar[tuple[str, ...]]
    """Slots of the record that this source can never fill (see docs/events.md)."""

    def check(self) -> list[Obstacle]:
        """Everything that keeps it from working here; empty means it works."""
        ...

    def open(self, *, ring_bytes: int) -> AbstractContextManager[EventStream]:
        """Attach. Raises KsmtraceError where the host refuses after all."""
        ...
