"""Tables that grow by millions of rows without being copied: memory first, files beyond."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

IN_MEMORY_ROWS = 1 << 25
"""More rows than this are kept in unlinked temporary files, so that memory stays bounded."""
_FIRST = 1 << 10
_GROWTH = 32


class GrowingTable:
    """Columns of one length that rows are appended to. dtypes: by column name.

    in_memory_rows: from how many rows on they live in files.
    """

    def __init__(
        self, dtypes: Mapping[str, npt.DTypeLike], in_memory_rows: int = IN_MEMORY_ROWS
    ) -> None:
        self._in_memory_rows = in_memory_rows
        self._columns: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(_FIRST, dtype) for name, dtype in dtypes.items()
        }
        self._files: dict[str, IO[bytes]] = {}
        self.rows = 0

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A column's rows: a view, which a later `extend` may leave behind."""
        return self._columns[name][: self.rows]

    def extend(self, **columns: Any) -> None:
        """Append rows; arrays of one length, or scalars beside at least one array."""
        count = max(np.size(values) for values in columns.values() if np.ndim(values))
        first, self.rows = self.rows, self.rows + count
        self._reserve(self.rows)
        for name, values in columns.items():
            self._columns[name][first : self.rows] = values

    def _reserve(self, rows: int) -> None:
        capacity = len(next(iter(self._columns.values())))
        if rows <= capacity:
            return
        for name, old in self._columns.items():
            if rows <= self._in_memory_rows:
                # Zeros take no memory before they are written: room for long, rarely copied.
                room = min(self._in_memory_rows, max(rows, capacity * _GROWTH))
                fresh = np.zeros(room, old.dtype)
                fresh[:capacity] = old
            else:
                fresh = self._in_file(name, old, max(rows, capacity + capacity // 2))
            self._columns[name] = fresh

    def _in_file(self, name: str, old: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
        if name not in self._files:
            self._files[name] = tempfile.TemporaryFile(prefix="ksmtrace-")  # noqa: SIM115 kept
            self._files[name].write(old.data)
            self._files[name].flush()
        # Growing a file keeps what is in it: nothing is copied.
        self._files[name].truncate(rows * old.dtype.itemsize)
        return np.memmap(self._files[name], old.dtype, "r+", shape=(rows,))
