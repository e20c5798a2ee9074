"""Samples as they come: rows of numbers, thinned out when they become very many."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.context import Samples

_MOST_ROWS = 1 << 18


class Series:
    """Rows of numbers by name, each with its moment (ns of CLOCK_MONOTONIC); absent ones are NaN.

    Past 262,144 rows every second one is given up, and so on; `thinned` says how often.
    """

    def __init__(self, names: Sequence[str], most_rows: int = _MOST_ROWS) -> None:
        self._names = tuple(names)
        self._most = most_rows
        self._ts = array("Q")
        self._rows = array("d")
        self.thinned = 0

    def __len__(self) -> int:
        return len(self._ts)

    def add(self, ts: int, values: Mapping[str, float]) -> None:
        """Append a row."""
        if len(self._ts) >= self._most:
            table = self._table()[::2]
            self._ts = self._ts[::2]
            self._rows = array("d", table.tobytes())
            self.thinned += 1
        self._ts.append(ts)
        self._rows.extend(values.get(name, math.nan) for name in self._names)

    def _table(self) -> npt.NDArray[np.float64]:
        return np.array(self._rows).reshape(-1, len(self._names))

    @property
    def ts(self) -> npt.NDArray[np.uint64]:
        """The moments."""
        return np.array(self._ts, np.uint64)

    def columns(self) -> dict[str, npt.NDArray[np.float64]]:
        """The numbers, by name."""
        return dict(zip(self._names, self._table().T, strict=True))

    def samples(self) -> Samples:
        """The rows as samples of a host."""
        empty = np.empty(0, np.object_)
        return Samples(self.ts, empty, np.empty(0, np.uint64), self.columns(), {})
