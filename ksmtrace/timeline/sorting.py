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


def in_order(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Values sorted; such as are already, as moments in a stream are, without copying."""
    return values if (values[1:] >= values[:-1]).all() else np.sort(values)


def rows_of(mask: Mask) -> slice | Indices:
    """The rows that a mask chooses; if that is all, without a list and without copying."""
    return slice(None) if mask.all() else np.flatnonzero(mask)


def distinct(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The distinct keys, sorted. np.unique hashes, which is many times slower on such keys."""
    keys = np.sort(keys)
    fresh = np.concatenate((np.ones(min(1, len(keys)), bool), keys[1:] != keys[:-1]))
    found: npt.NDArray[np.uint64] = keys[fresh]
    return found


class SortedKeys:
    """A set of keys that grows: sorted blocks, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._blocks: list[npt.NDArray[np.uint64]] = []

    def add(self, keys: npt.NDArray[np.uint64]) -> None:
        """Put keys in; they may be there already."""
        if not len(keys):
            return
        self._blocks.append(distinct(keys))
        while len(self._blocks) > 1 and 2 * len(self._blocks[-1]) > len(self._blocks[-2]):
            last, before = self._blocks.pop(), self._blocks.pop()
            self._blocks.append(distinct(np.concatenate((before, last))))

    def contains(self, keys: npt.NDArray[np.uint64]) -> Mask:
        """Which of some keys are in."""
        found = np.zeros(len(keys), bool)
        for block in self._blocks:
            at = np.minimum(np.searchsorted(block, keys), len(block) - 1)
            found |= block[at] == keys
        return found


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
