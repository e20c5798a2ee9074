"""ksmtrace: see what Linux Kernel Samepage Merging does.

import ksmtrace
recording = ksmtrace.open("a.ksm")
recording.events.groupby("kind").size()
recording.pages.query("how == 'created'")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ksmtrace.frames import Recording

__version__ = "0.1.0"


def open(path: Path | str) -> Recording:  # noqa: A001 ksmtrace.open reads well
    """Open a recording. Only its manifest is read; each table is when first asked for.

    Raises KsmtraceError (exit code 4) for anything that is not a whole recording.
    """
    from ksmtrace.frames import Recording

    return Recording(path)
