"""The one line that says how long work is going; only on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ksmtrace.capture.session import Progress

_WIDTH = 79
_PAUSE_S = 0.05
"""No eye reads faster, and a terminal is slow."""


class StatusLine:
    """Overwrites one line of a terminal; does nothing where there is none."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._shown = 0.0

    def progress(self, progress: Progress) -> None:
        """Show a recording's state."""
        lost = f"  LOST {progress.lost:,}" if progress.lost else ""
        breaks = f"  {progress.breaks:,} breaks" if progress.breaks else ""
        self._show(
            f"{progress.seconds:7.1f} s  {progress.events:,} events{breaks}"
            f"  {progress.scans:,} scans  {progress.known_processes:,} processes{lost}"
            "  (Ctrl-C ends it)"
        )

    def reading(self, share: float | None, events: int) -> None:
        """Show how far a file was read, and the events found in it."""
        done = "reading" if share is None else f"reading {share:4.0%}"
        self._show(f"{done}  {events:,} events")

    def sealing(self, share: float) -> None:
        """Show how far sealing is."""
        self._show(f"sealing {share:4.0%}")

    def sharing(self, share: float) -> None:
        """Show how far a copy without names is."""
        self._show(f"leaving names out {share:4.0%}")

    def exporting(self, share: float) -> None:
        """Show how far writing an export is."""
        self._show(f"writing {share:4.0%}")

    def working(self, words: str) -> None:
        """Show what is being done."""
        self._show(words)

    def clear(self) -> None:
        """Leave an empty line for what follows."""
        if self._live:
            self._out.write("\r" + " " * _WIDTH + "\r")
            self._out.flush()

    def _show(self, text: str) -> None:
        now = time.monotonic()
        if self._live and now - self._shown >= _PAUSE_S:
            self._shown = now
            self._out.write("\r" + text[:_WIDTH].ljust(_WIDTH))
            self._out.flush()
