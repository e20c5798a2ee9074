"""One error type, one table of exit codes, one way to say why something can't run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """What a ksmtrace command's exit status means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    HOST_CANNOT = 3
    BAD_RECORDING = 4
    EVENTS_LOST = 5
    DIFFERENCES = 6
    INTERRUPTED = 130


@dataclass(frozen=True)
class Obstacle:
    """One thing that keeps a source from running here, and what to do about it.

    what: a clause without a full stop. remedy: what a person can type or change.
    """

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


class KsmtraceError(Exception):
    """An error a person can act on; printed once, by the command line, without a traceback.

    message: what is wrong, one sentence. hint: what to do, one sentence, or None.
    exit_code: the status of the whole command.
    """

    def __init__(
        self, message: str, hint: str | None = None, exit_code: Exit = Exit.FAILED
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


def host_cannot(obstacles: list[Obstacle], doing: str) -> KsmtraceError:
    """The error for a host on which `doing` is impossible, with every obstacle and its remedy."""
    lines = "\n".join(f"  - {obstacle}" for obstacle in obstacles)
    return KsmtraceError(f"this host can't {doing}:\n{lines}", exit_code=Exit.HOST_CANNOT)
