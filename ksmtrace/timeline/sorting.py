"""Grouping millions of rows by a key, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def stable_order(keys: npt.NDArray[np.uint64]) -> Indices:
    """Indices that sort `keys`, equal ones in their order. Fewer than 2^32 keys.

    numpy's vectorised sorts are not stable and its stable one is a merge sort, several times
    slower: so the unstable result is put in order within its groups by a second, cheap sort.
    """
    order = np.argsort(keys)
    in_order = keys[order]
    packed = np.empty(len(keys), np.uint64)
    if len(keys):
        packed[0] = 0
        np.cumsum(in_order[1:] != in_order[:-1], out=packed[1:])
    packed <<= np.uint64(32)
    packed |= order.astype(np.uint64)
    packed.sort()
    packed &= np.uint64(0xFFFFFFFF)
    return packed.view(np.int64)


def run_starts(values: npt.NDArray[Any]) -> Indices:
    """Where a run of equal neighbours begins."""
    if not len(values):
        return np.empty(0, np.int64)
    borders = np.flatnonzero(values[1:] != values[:-1])
    borders += 1
    return np.concatenate(([0], borders))


def codes_of(values: npt.NDArray[np.uint64]) -> tuple[Indices, npt.NDArray[np.uint64]]:
    """Each value's index in the distinct values, and these, in order of appearance.

    Fast where neighbours are often equal, as address spaces in a stream are.
    """
    import pandas as pd

    starts = run_starts(values)
    codes, distinct = pd.factorize(values[starts])
    lengths = np.diff(np.append(starts, len(values)))
    return np.repeat(codes.astype(np.int64), lengths), np.asarray(distinct, np.uint64)


def group_starts(in_order: npt.NDArray[np.uint64]) -> Indices:
    """For each row of sorted keys the row at which its group begins."""
    starts = run_starts(in_order)
    lengths = np.diff(np.append(starts, len(in_order)))
    return np.repeat(starts, lengths)
