"""Pseudonyms for kernel addresses and page frame numbers: keyed, without a table.

A number is a block (the page an object lies in, or 512 frames) and a place in it. The block goes
through a Feistel permutation whose secret key dies with the recorder; the place is masked with a
number that depends on the block. So equal stays equal, different stays different, and neighbours
in a block stay neighbours, which is what lets columns compress. Zero (unknown) stays zero.

This hides where things lie from whoever reads the recording. It is no encryption: somebody who
knows the real address of some objects can learn which of the others share their blocks.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
_ROUNDS = 4
_AT_ONCE = 1 << 13
"""Numbers permuted together: few enough for a CPU's cache."""
_BLOCK_BITS = {"pfn": 9, "address": 12}
_KEPT_BITS = {"pfn": 53, "address": 64}


class Namer(Protocol):
    """Turns a column of numbers into the column that is stored."""

    def pfns(self, values: U64) -> U64:
        """Page frame numbers."""
        ...

    def addresses(self, values: U64) -> U64:
        """Kernel addresses."""
        ...


def with_named_ips(rows: Sequence[Mapping[str, Any]], namer: Namer) -> list[dict[str, Any]]:
    """Rows of the table `code`, their real ip as events store it."""
    ips = namer.addresses(np.array([row["ip"] for row in rows], np.uint64))
    return [{**row, "ip": ip} for row, ip in zip(rows, ips.tolist(), strict=True)]


class RawPointers:
    """Keeps everything as it is (`--raw-pointers`)."""

    def pfns(self, values: U64) -> U64:
        """See `Namer.pfns`."""
        return values

    def addresses(self, values: U64) -> U64:
        """See `Namer.addresses`."""
        return values


class Pseudonyms:
    """One recording's permutations. key: secret bytes; 32 new ones by default."""

    def __init__(self, key: bytes | None = None) -> None:
        secret = secrets.token_bytes(32) if key is None else key
        shape = (len(_BLOCK_BITS), _ROUNDS + 1, 2)
        digest = hashlib.shake_256(secret).digest(int(np.prod(shape)) * 8)
        numbers = np.frombuffer(digest, "<u8").reshape(shape)
        self._keys = dict(zip(_BLOCK_BITS, numbers | np.uint64(1), strict=True))

    def pfns(self, values: U64) -> U64:
        """See `Namer.pfns`."""
        return self._rename(values, "pfn")

    def addresses(self, values: U64) -> U64:
        """See `Namer.addresses`."""
        return self._rename(values, "address")

    def _rename(self, values: U64, what: str) -> U64:
        if not len(values):
            return values
        # Neighbouring events often name the same object: permute each run once.
        starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
        if len(starts) * 2 < len(values):
            lengths = np.diff(np.append(starts, len(values)))
            return np.repeat(self._permute(values[starts], what), lengths)
        parts = range(0, len(values), _AT_ONCE)
        return np.concatenate([self._permute(values[at : at + _AT_ONCE], what) for at in parts])

    def _permute(self, values: U64, what: str) -> U64:
        place_bits = np.uint64(_BLOCK_BITS[what])
        half = np.uint64((_KEPT_BITS[what] - _BLOCK_BITS[what]) // 2)
        half_mask = np.uint64((1 << int(half)) - 1)
        place_mask = np.uint64((1 << int(place_bits)) - 1)
        keys = self._keys[what]
        block = values >> place_bits
        left, right = block >> half, block & half_mask
        for add, multiply in keys[:_ROUNDS]:
            mixed = right ^ add
            mixed *= multiply
            mixed ^= mixed >> np.uint64(29)
            mixed *= multiply
            mixed >>= np.uint64(64) - half
            mixed ^= left
            left, right = right, mixed
        block = (left << half) | right
        add, multiply = keys[_ROUNDS]
        mask = ((block ^ add) * multiply) >> (np.uint64(64) - place_bits)
        renamed: U64 = (block << place_bits) | ((values & place_mask) ^ mask)
        renamed[values == 0] = 0
        return renamed
