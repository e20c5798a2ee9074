"""Tables that grow by millions of rows without being copied: memory first, files beyond."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

IN_MEMORY_ROWS = 1 << 24
"""More rows than this are kept in unlinked temporary files, so that memory stays bounded."""
_FIRST = 1 << 10
_GROWTH = 32


class _File:
    """An unlinked temporary file that columns are mapped from; closed with its last user."""

    def __init__(self) -> None:
        self._fd, name = tempfile.mkstemp(prefix="ksmtrace-")
        Path(name).unlink()
        weakref.finalize(self, os.close, self._fd)

    def mapped(self, dtype: np.dtype[Any], rows: int) -> npt.NDArray[Any]:
        """Its content as rows; growing it keeps what is in it: nothing is copied."""
        os.ftruncate(self._fd, rows * dtype.itemsize)
        return np.frombuffer(mmap.mmap(self._fd, rows * dtype.itemsize), dtype)


def column(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy of a column that may be changed: in memory, or in a file if it is long."""
    if len(values) <= IN_MEMORY_ROWS:
        return values.copy()
    copy = _File().mapped(values.dtype, len(values))
    copy[:] = values
    return copy


class GrowingTable:
    """Columns of one length that rows are appended to. dtypes: by column name.

    With more than IN_MEMORY_ROWS they live in files.
    """

    def __init__(self, dtypes: Mapping[str, npt.DTypeLike]) -> None:
        self._columns: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(_FIRST, dtype) for name, dtype in dtypes.items()
        }
        self._files: dict[str, _File] = {}
        self.rows = 0

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A column's rows: a view, which a later `extend` may leave behind."""
        return self._columns[name][: self.rows]

    @property
    def in_files(self) -> bool:
        """Whether the columns live in files."""
        return bool(self._files)

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
            if rows <= IN_MEMORY_ROWS:
                # Zeros take no memory before they are written: room for long, rarely copied.
                room = min(IN_MEMORY_ROWS, max(rows, capacity * _GROWTH))
                fresh = np.zeros(room, old.dtype)
                fresh[:capacity] = old
            else:
                fresh = self._in_file(name, old, max(rows, capacity + capacity // 2))
            self._columns[name] = fresh

    def _in_file(self, name: str, old: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
        if name in self._files:
            return self._files[name].mapped(old.dtype, rows)
        self._files[name] = _File()
        fresh = self._files[name].mapped(old.dtype, rows)
        fresh[: len(old)] = old
        return fresh
