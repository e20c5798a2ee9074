"""Protocol buffers' wire format, for many messages of one shape at once.

A message's fields are columns: `Rows` holds a piece of each message, and pieces stand side by side.
Everything stays in numpy, so a million small messages take a second or two, and nothing has to be
installed for it. What it writes is checked with Google's library, in the tests only.

Format: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_LONGEST = 10
_FIRSTS = np.array([1 << (7 * n) for n in range(1, _LONGEST)], np.uint64)
"""The first numbers that take 2, 3 ... 10 bytes."""


@dataclass(frozen=True)
class Rows:
    """A piece of each of n messages. data, used: n x width; only used bytes count."""

    data: Bytes
    used: Mask

    @property
    def lengths(self) -> npt.NDArray[np.uint64]:
        """How many bytes each row has."""
        counted: npt.NDArray[np.uint64] = self.used.sum(axis=1, dtype=np.uint64)
        return counted

    def only(self, known: Mask | None) -> Rows:
        """The same, but no bytes at all where not known."""
        return self if known is None else Rows(self.data, self.used & known[:, None])

    def to_bytes(self) -> bytes:
        """The rows, one behind the other."""
        return self.data[self.used].tobytes()


def message(*pieces: Rows) -> Rows:
    """Pieces side by side, in this order. At least one."""
    return Rows(
        np.concatenate([piece.data for piece in pieces], axis=1),
        np.concatenate([piece.used for piece in pieces], axis=1),
    )


def varints(values: npt.NDArray[Any]) -> Rows:
    """Whole numbers or booleans; a negative one takes ten bytes, as the format has it."""
    whole = np.asarray(values)
    numbers = whole.astype(np.int64).view(np.uint64) if whole.dtype.kind != "u" else whole
    numbers = numbers.astype(np.uint64, copy=False)
    lengths = 1 + np.searchsorted(_FIRSTS, numbers, side="right")
    width = int(lengths.max()) if len(lengths) else 1
    places = np.arange(width, dtype=np.uint64)
    data = ((numbers[:, None] >> (places * np.uint64(7))) & np.uint64(0x7F)).astype(np.uint8)
    data |= (places < lengths[:, None] - 1).astype(np.uint8) << np.uint8(7)
    return Rows(data, places < lengths[:, None])


def _key(number: int, wire_type: int, rows: int) -> Rows:
    key = varints(np.array([number << 3 | wire_type], np.uint64))
    return Rows(np.repeat(key.data, rows, axis=0), np.repeat(key.used, rows, axis=0))


def whole(number: int, values: npt.NDArray[Any], known: Mask | None = None) -> Rows:
    """A field of type int32, int64, uint32, uint64, bool or enum."""
    return message(_key(number, _VARINT, len(values)), varints(values)).only(known)


def double(number: int, values: npt.NDArray[Any], known: Mask | None = None) -> Rows:
    """A field of type double."""
    data = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(len(values), 8)
    rows = Rows(data, np.ones(data.shape, bool))
    return message(_key(number, _FIXED64, len(values)), rows).only(known)


def nested(number: int, content: Rows, known: Mask | None = None) -> Rows:
    """A field that holds a message, or bytes."""
    head = message(_key(number, _LENGTH, len(content.data)), varints(content.lengths))
    return message(head, content).only(known)


def texts(number: int, values: Sequence[str]) -> Rows:
    """A field of type string. An unpaired surrogate, which UTF-8 lacks, becomes a `?`."""
    raw = [value.encode(errors="replace") for value in values]
    lengths = np.array([len(text) for text in raw], np.intp)
    used = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    data = np.zeros(used.shape, np.uint8)
    data[used] = np.frombuffer(b"".join(raw), np.uint8)
    return nested(number, Rows(data, used))
