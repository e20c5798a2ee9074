"""The `uksm` backend: a kernel with UKSM, whose counters are all that can be had.

UKSM has no tracepoints, and no function of KSM's for another backend to stand on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from ksmtrace.capture.choose import Choice
from ksmtrace.errors import Exit, KsmtraceError, Obstacle, host_cannot
from ksmtrace.events.batch import EventBatch, empty
from ksmtrace.kernel import host

NO_EVENTS = "UKSM has no tracepoints: counters only, no event tells of a merge or a process"


class NoEvents:
    """A stream without events that lasts until somebody ends it."""

    exhausted = False

    def read(self) -> EventBatch:
        """See `EventStream.read`."""
        return empty()

    def fileno(self) -> int | None:
        """See `EventStream.fileno`: there is nothing to wait for."""
        return None

    def stop(self) -> None:
        """See `EventStream.stop`: nothing produces here."""


class UksmSource:
    """No events; what is beside them is UKSM's counters."""

    name: ClassVar[str] = "uksm"
    summary: ClassVar[str] = "UKSM's counters and knobs, no events"
    fields_unknown: ClassVar[tuple[str, ...]] = ()

    def check(self) -> list[Obstacle]:
        """See `Source.check`."""
        if host.has_uksm():
            return []
        return [Obstacle(f"this kernel has no UKSM ({host.UKSM} is missing)", "use --backend auto")]

    @contextmanager
    def open(self, *, ring_bytes: int) -> Iterator[NoEvents]:  # noqa: ARG002 the protocol's
        """See `Source.open`; nothing is attached."""
        yield NoEvents()


def choose_uksm(name: str) -> Choice | None:
    """The choice of `uksm` by its name, or by "auto" on a kernel that has it; None: of another.

    Raises KsmtraceError (HOST_CANNOT) where it is asked for on a kernel without UKSM.
    """
    source = UksmSource()
    if name == source.name:
        if obstacles := source.check():
            raise host_cannot(obstacles, "record UKSM")
        return Choice((source,), asked_for=True)
    if name == "auto" and host.has_uksm():
        why = "this kernel has UKSM in place of KSM, and UKSM has no tracepoints: counters only"
        return Choice((source,), (why,))
    return None


def refused(options: dict[str, bool]) -> KsmtraceError | None:
    """The error (usage) for options of `record` that mean nothing with UKSM; None: there are none.

    options: whether each is given.
    """
    given = [name for name, is_given in options.items() if is_given]
    if not given:
        return None
    return KsmtraceError(
        f"{' and '.join(given)} can't be had with UKSM, which gives counters only",
        "leave it out; --duration, --interval and -- CMD work",
        Exit.USAGE,
    )
