"""UKSM's hash: how much of a page it reads is its strength.

A strength of s reads s of the page's 1024 words, in an order drawn at boot; what is beyond 1024
reads the first ones again. So pages that differ only in words that are not read have one hash.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random
from typing import Literal, Protocol

import xxhash

from ksmtrace.model.content import PAGE_SIZE, page_of
from ksmtrace.model.uksm.governors import FULL_STRENGTH, MOST_STRENGTH

WORDS = PAGE_SIZE // 4
INITIAL = 0xDEADBEEF
LONGEST_NAME = 64
"""Of a content that stands for a page: the bytes before its first zero byte."""

Contents = Literal["names", "pages"]

_U32 = 0xFFFFFFFF
_REMEMBERED = 1 << 21
"""Contents whose hashes are kept; volatile memory would fill a host's with them."""
_LINES = 64
_WORDS_OF_LINE = 16
# What undoes `h += h << 8`, a multiplication by 257: the inverse of that modulo 2^32.
_INVERSE_OF_257 = pow(257, -1, 1 << 32)


def permutation(dice: Random) -> list[int]:
    """The order in which words are read."""
    order = list(range(WORDS))
    dice.shuffle(order)
    return order


def place(step: int) -> int:
    """Which word of the order a step of the hash reads, counting from 0."""
    return step if step < WORDS else step - WORDS


def extend(value: int, words: Sequence[int], start: int, end: int) -> int:
    """A hash of strength `start` made one of strength `end`. words: the page's, in hash's order."""
    for step in range(start, end):
        value = (value + words[place(step)]) & _U32
        value = (value + (value << 8)) & _U32
        value ^= value >> 12
    return value


def undo(value: int, words: Sequence[int], start: int, end: int) -> int:
    """A hash of strength `start` brought back to the lower strength `end`."""
    for step in range(start - 1, end - 1, -1):
        value ^= (value >> 12) ^ (value >> 24)
        value = value * _INVERSE_OF_257 & _U32
        value = (value - words[place(step)]) & _U32
    return value


def moved(value: int, words: Sequence[int], start: int, end: int) -> int:
    """A hash of one strength made one of another."""
    step = extend if end >= start else undo
    return step(value, words, start, end)


def lines_read(strength: int) -> float:
    """How many of a page's 64 cache lines a hash touches, its words lying anywhere."""
    unread = 1 - min(strength, WORDS) / WORDS
    return float(_LINES * (1 - unread**_WORDS_OF_LINE))


class Hasher(Protocol):
    """Hashes of contents."""

    def at(self, content: bytes, strength: int) -> int:
        """H(page, strength)."""
        ...


class PageHasher:
    """The hash of the very bytes."""

    def __init__(self, order: Sequence[int]) -> None:
        self._order = order

    def words(self, content: bytes) -> list[int]:
        """A page's words in the hash's order."""
        words = struct.unpack(f"<{WORDS}I", page_of(content))
        return [words[at] for at in self._order]

    def at(self, content: bytes, strength: int) -> int:
        """See `Hasher`."""
        words = struct.unpack(f"<{WORDS}I", page_of(content))
        order = self._order
        value = INITIAL
        for step in range(strength):
            value = (value + words[order[step if step < WORDS else step - WORDS]]) & _U32
            value = (value + (value << 8)) & _U32
            value ^= value >> 12
        return value


class NameHasher:
    """The hash of the page that a content stands for, which a program would have filled.

    Simulated contents are short: a name, and nothing else in the page. Real pages are full. So a
    name (the bytes before the first zero byte) stands for a page full of words that nothing else
    has, and what is written behind the name differs from that page in those words alone. The hash
    is one of the name, and of those differing words that the strength reads: two contents
    have different hashes exactly if the pages they stand for do, but for accidents of 32 bits, and
    cost no thousand steps. A content without a name is a page of zeros but for the words written.
    """

    def __init__(self, order: Sequence[int]) -> None:
        self._rank = [0] * WORDS
        for rank, word in enumerate(order):
            self._rank[word] = rank
        self._parts: dict[bytes, tuple[bytes, list[tuple[int, int]]]] = {}

    def at(self, content: bytes, strength: int) -> int:
        """See `Hasher`."""
        name = content
        differences: list[tuple[int, int]] = []
        if b"\0" in content or len(content) > LONGEST_NAME:
            name, differences = self._split(content)
        if differences:
            read = [one for one in differences if one[0] < strength]
            if read:
                written = b"".join(struct.pack("<2I", *one) for one in read)
                return xxhash.xxh32_intdigest(name + b"\0" + written, strength)
        return xxhash.xxh32_intdigest(name, strength)

    def _split(self, content: bytes) -> tuple[bytes, list[tuple[int, int]]]:
        """A content's name, and rank and value of the words behind it."""
        found = self._parts.get(content)
        if found is None:
            if len(self._parts) >= _REMEMBERED:
                self._parts.clear()
            name = content[:LONGEST_NAME].split(b"\0", 1)[0]
            rest = page_of(b"\0" * len(name) + content[len(name) :])
            words = struct.unpack(f"<{WORDS}I", rest)
            ranked = sorted((self._rank[at], word) for at, word in enumerate(words) if word)
            found = self._parts[content] = name, ranked
        return found


class Hashes:
    """The hashes of what is in memory, remembered. strength: the one in use.

    full: of strength 1034, where 0 is taken as 1, so that 0 can mean unknown.
    """

    def __init__(self, hasher: Hasher, strength: int) -> None:
        self._hasher = hasher
        self._full: dict[bytes, int] = {}
        self.now: dict[bytes, int] = {}
        """At the strength in use, by content, as far as they were asked for."""
        self.set_strength(strength)

    def set_strength(self, strength: int) -> None:
        """Use another strength."""
        self.strength = strength
        self.now.clear()
        self.zero = self.at(b"") if strength < MOST_STRENGTH else None
        """That of a page of zeros; at 1034 the kernel has none in its table."""

    def at(self, content: bytes) -> int:
        """H(page, strength in use)."""
        value = self.now.get(content)
        if value is None:
            if len(self.now) >= _REMEMBERED:
                self.now.clear()
            value = self.now[content] = self._hasher.at(content, self.strength)
        return value

    def full(self, content: bytes) -> int:
        """`hmax`."""
        value = self._full.get(content)
        if value is None:
            if len(self._full) >= _REMEMBERED:
                self._full.clear()
            value = self._full[content] = self._hasher.at(content, MOST_STRENGTH) or 1
        return value


def hasher_for(contents: Contents, order: Sequence[int]) -> Hasher:
    """What hashes contents of that kind."""
    return NameHasher(order) if contents == "names" else PageHasher(order)


def words_saved(strength: int) -> int:
    """What a hash of that strength spares against one of the whole page."""
    return max(0, FULL_STRENGTH - strength)
