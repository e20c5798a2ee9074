"""What a page holds, as a small value that compares as the page itself would.

A content is the page's bytes without trailing zeros: the zero page is b"". Comparing two contents
then gives what memcmp() gives for the two pages, and most pages need a few bytes only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import xxhash

PAGE_SIZE = 4096
ZERO = b""

_U32 = 0xFFFFFFFF
_WORD = 8
_JHASH_INITIAL = 0xDEADBEEF
_JHASH_INITVAL = 17


def content_of(page: bytes) -> bytes:
    """The content of a page's bytes; shorter ones are taken as filled up with zeros."""
    return page.rstrip(b"\0")


def page_of(content: bytes) -> bytes:
    """A content's whole page."""
    return content.ljust(PAGE_SIZE, b"\0")


def overwritten(content: bytes, offset: int, data: bytes) -> bytes:
    """A content after `data` was written at `offset` of its page. Raises ValueError outside."""
    if offset < 0 or offset + len(data) > PAGE_SIZE:
        raise ValueError("the write leaves the page")
    page = bytearray(page_of(content))
    page[offset : offset + len(data)] = data
    return content_of(bytes(page))


def compared_bytes(one: bytes, other: bytes) -> int:
    """How much of two pages memcmp() reads: whole words up to the first that differs."""
    if one[:_WORD].ljust(_WORD, b"\0") != other[:_WORD].ljust(_WORD, b"\0"):
        return _WORD
    if one == other:
        return PAGE_SIZE
    short, long = sorted((one, other), key=len)
    if long.startswith(short):
        # What the shorter one lacks are zeros.
        rest = long[len(short) :]
        same = len(long) - len(rest.lstrip(b"\0"))
    else:
        same, differ = 0, len(short)
        while differ - same > 1:
            middle = (same + differ) // 2
            if one[same:middle] == other[same:middle]:
                same = middle
            else:
                differ = middle
    return same // _WORD * _WORD + _WORD


def xxhash_checksum(content: bytes) -> int:
    """The low 32 bits of XXH64 with seed 0: rmap_item.oldchecksum on 64-bit kernels since 5.0."""
    return xxhash.xxh64_intdigest(page_of(content)) & _U32


@lru_cache(maxsize=1 << 16)
def jhash2_checksum(content: bytes) -> int:
    """jhash2 over the page's 1024 native words with initval 17: oldchecksum before 5.0."""
    words = struct.unpack("<1024I", page_of(content))
    a = b = c = (_JHASH_INITIAL + (len(words) << 2) + _JHASH_INITVAL) & _U32
    # The last word is left for the final mixing: 1024 = 341 * 3 + 1.
    for at in range(0, len(words) - 1, 3):
        a, b, c = _mix(
            (a + words[at]) & _U32, (b + words[at + 1]) & _U32, (c + words[at + 2]) & _U32
        )
    return _final((a + words[-1]) & _U32, b, c)


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _U32


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = ((a - c) & _U32) ^ _rotate(c, 4)
    c = (c + b) & _U32
    b = ((b - a) & _U32) ^ _rotate(a, 6)
    a = (a + c) & _U32
    c = ((c - b) & _U32) ^ _rotate(b, 8)
    b = (b + a) & _U32
    a = ((a - c) & _U32) ^ _rotate(c, 16)
    c = (c + b) & _U32
    b = ((b - a) & _U32) ^ _rotate(a, 19)
    a = (a + c) & _U32
    c = ((c - b) & _U32) ^ _rotate(b, 4)
    b = (b + a) & _U32
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _rotate(b, 14)) & _U32
    a = ((a ^ c) - _rotate(c, 11)) & _U32
    b = ((b ^ a) - _rotate(a, 25)) & _U32
    c = ((c ^ b) - _rotate(b, 16)) & _U32
    a = ((a ^ c) - _rotate(c, 4)) & _U32
    b = ((b ^ a) - _rotate(a, 14)) & _U32
    return ((c ^ b) - _rotate(b, 24)) & _U32


CHECKSUMS: dict[Literal["jhash2", "xxhash"], Callable[[bytes], int]] = {
    "jhash2": jhash2_checksum,
    "xxhash": xxhash_checksum,
}
