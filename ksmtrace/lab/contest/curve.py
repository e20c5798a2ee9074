"""What a scanner had saved by when, and for how much CPU time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Steps: from each moment on so much was saved, until the next. All three of one length.

    time_s: simulated, ascending, from 0. cpu_s: CPU time of the scanner until then. pages: saved.
    """

    time_s: Floats
    cpu_s: Floats
    pages: Floats

    def time_to(self, pages: float) -> float | None:
        """When so many pages were saved for the first time, in seconds; None: never."""
        return self._first(self.time_s, pages)

    def cpu_to(self, pages: float) -> float | None:
        """The CPU time after which so many were saved for the first time; None: never."""
        return self._first(self.cpu_s, pages)

    def _first(self, axis: Floats, pages: float) -> float | None:
        reached = np.flatnonzero(self.pages >= pages)
        return float(axis[reached[0]]) if len(reached) else None

    @property
    def last(self) -> float:
        """What was saved at the end."""
        return float(self.pages[-1])

    @property
    def mean(self) -> float:
        """What was saved on average over the time."""
        spans = np.diff(self.time_s)
        if not spans.sum():
            return self.last
        return float((self.pages[:-1] * spans).sum() / spans.sum())

    def less(self, ground: Curve) -> Curve:
        """This curve without what was saved anyway at the time."""
        at = np.searchsorted(ground.time_s, self.time_s, side="right") - 1
        return Curve(self.time_s, self.cpu_s, self.pages - ground.pages[np.maximum(at, 0)])


def curve_of(rows: Sequence[tuple[float, float, float]]) -> Curve:
    """A curve of (seconds, CPU seconds, pages) rows; at least one."""
    table = np.array(rows, np.float64)
    return Curve(table[:, 0], table[:, 1], table[:, 2])
