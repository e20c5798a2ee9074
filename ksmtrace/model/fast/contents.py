"""What pages hold, by number: contents as bytes, or numbers that stand for themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ksmtrace.model.content import ZERO
from ksmtrace.model.fast.tables import CONTENT, Rows

_LEAST = 64


class ByteContents:
    """Contents that are bytes, numbered as they come; `tables` has their ranks and checksums."""

    def __init__(self, checksum: Callable[[bytes], int]) -> None:
        self._checksum = checksum
        self._bytes: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self._checksums = np.zeros(_LEAST, np.uint32)
        self._ranked = 0
        self._table = np.zeros(0, CONTENT)
        self.zero = self.number_of(ZERO)

    def __len__(self) -> int:
        return len(self._bytes)

    def number_of(self, content: bytes) -> int:
        """The number of a content, a new one if it is new."""
        number = self._numbers.get(content)
        if number is None:
            number = self._numbers[content] = len(self._bytes)
            self._bytes.append(content)
            if number == len(self._checksums):
                self._checksums = np.concatenate([self._checksums, np.zeros_like(self._checksums)])
            self._checksums[number] = self._checksum(content)
        return number

    def bytes_of(self, number: int) -> bytes:
        """The content."""
        return self._bytes[number]

    def tables(self) -> Rows:
        """Ranks and checksums of all contents there are."""
        if self._ranked != len(self._bytes):
            self._ranked = len(self._bytes)
            self._table = np.zeros(self._ranked, CONTENT)
            order = sorted(range(self._ranked), key=self._bytes.__getitem__)
            self._table["order"][order] = np.arange(self._ranked, dtype=np.uint32)
            self._table["checksum"] = self._checksums[: self._ranked]
        return self._table

    @property
    def zero_checksum(self) -> int:
        """Of the zero page."""
        return int(self._checksums[self.zero])


class NumberedContents:
    """Contents that are nothing but numbers, ordered as these; 0 is the zero page.

    For hosts with more pages than anybody could write down. No two checksums are equal.
    """

    zero = 0
    zero_checksum = 1

    def __init__(self, number: int) -> None:
        self._number = number
        self._none = np.zeros(0, CONTENT)

    def __len__(self) -> int:
        return self._number

    def number_of(self, content: bytes) -> int:
        """The number of a content, as `bytes_of` writes it."""
        number = int.from_bytes(content.ljust(8, b"\0"), "big")
        if len(content) > 8 or number >= self._number:
            raise ValueError(f"there are {self._number} contents, and {content!r} is none of them")
        return number

    def bytes_of(self, number: int) -> bytes:
        """A content that is ordered as its number is."""
        return number.to_bytes(8, "big").rstrip(b"\0")

    def tables(self) -> Rows:
        """Nothing: ranks and checksums follow the number."""
        return self._none
