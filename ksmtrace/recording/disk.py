"""What a disk refuses, in words."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ksmtrace.errors import KsmtraceError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Tell what keeps `path` from being written. Raises KsmtraceError in place of OSError.

    A reader of ours that went away is none.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise KsmtraceError(
                f"no space left for {path}", "free some space or choose another disk with -o"
            ) from error
        why = os.strerror(error.errno) if error.errno else str(error)
        raise KsmtraceError(
            f"{path} can't be written: {why}", "choose another name with -o"
        ) from error
