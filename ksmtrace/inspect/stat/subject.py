"""What a run is about: a command of its own, a process that is there, or the whole host."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.sysfs import PROC
from ksmtrace.processes.identity import Identity, identify, stands_as


@contextmanager
def attached(pid: int, proc: Path = PROC) -> Iterator[tuple[int, Identity]]:
    """A process held fast, so that a later one of the same id is not taken for it.

    Gives a descriptor that becomes readable when it ends, and who it is. Raises KsmtraceError where
    there is no such process, or one without memory of its own.
    """
    before = identify(pid, proc)
    standing = stands_as(pid, proc)
    if before is None or standing == "gone":
        raise KsmtraceError(f"there is no process {pid}", "see: ps -e")
    if standing != "process":
        raise KsmtraceError(f"{pid} is a {standing} and has no memory of its own", "see: ps -e")
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            raise KsmtraceError(
                f"{pid} is a thread of another process", "give the process's id", Exit.USAGE
            ) from None
        raise KsmtraceError(f"process {pid} has just ended", "see: ps -e") from None
    try:
        after = identify(pid, proc)
        if after is None or after.start_ticks != before.start_ticks:
            raise KsmtraceError(f"process {pid} has just ended", "see: ps -e")
        yield fd, after
    finally:
        os.close(fd)
