"""A file's or a pipe's text as chunks of whole lines."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ksmtrace.capture.session import Signals
from ksmtrace.replay.foreign.detect import LONGEST_LINE

_CHUNK = 1 << 20
_START = 16


@dataclass
class Reading:
    """How far it went.

    start: the first bytes. stopped: why it ends before the text's end, in words. interrupted: the
    name of the signal that ended it.
    """

    bytes_read: int = 0
    start: bytes = b""
    stopped: str | None = None
    interrupted: str | None = None


def whole_lines(
    descriptor: int, reading: Reading, signals: Signals | None = None
) -> Iterator[bytes]:
    """Chunks that each end with a line's end; what is behind the last one is left out.

    A text that stops in the middle of a line was cut: that line can't be trusted, for its last
    number may be shorter than it was. signals: for a pipe, whose writer may never end: a signal
    ends it once everything that is there has been read, a second one at once.
    """
    rest = b""
    while signals is None or _goes_on(descriptor, reading, signals):
        try:
            part = os.read(descriptor, _CHUNK)
        except OSError as error:
            reading.stopped = f"it can't be read any further ({error.strerror})"
            return
        reading.start = reading.start or part[:_START]
        reading.bytes_read += len(part)
        if not part:
            if rest:
                reading.stopped = "the text ends in the middle of that line"
            return
        rest += part
        end = rest.rfind(b"\n") + 1
        if end:
            yield rest[:end]
            rest = rest[end:]
        if len(rest) > LONGEST_LINE:
            reading.stopped = "a line has no end there: that is no text"
            return


def _goes_on(descriptor: int, reading: Reading, signals: Signals) -> bool:
    """Wait for something to read; False if a signal came instead."""
    if not signals.caught:
        select.select([descriptor, signals.fileno()], [], [])
    if not signals.caught:
        return True
    more = bool(select.select([descriptor], [], [], 0)[0]) and len(signals.caught) == 1
    reading.interrupted = signals.caught[0]
    return more


def is_endless(descriptor: int) -> bool:
    """Whether only its writer knows its end: no plain file, or one of the kernel's (trace_pipe)."""
    about = os.fstat(descriptor)
    return not stat.S_ISREG(about.st_mode) or about.st_size == 0


def share_done(descriptor: int, reading: Reading) -> Callable[[], float | None]:
    """How much of a file was read, 0 to 1; None for a pipe."""
    size = os.fstat(descriptor).st_size
    return lambda: min(1.0, reading.bytes_read / size) if size else None
