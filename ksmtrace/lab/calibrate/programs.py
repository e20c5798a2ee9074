"""Compiled programs that do, in user space, what kernels other than this host's would do.

Import it late: it needs numba, which takes a second.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.fast.compiled import compiled, entry

Words = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int64]

_WORDS = PAGE_SIZE // 4
_NODE_WORDS = 8
"""A tree's node fills a cache line, as the kernel's do: key, left, right."""


@compiled
def _rotated(value: np.uint32, bits: int) -> np.uint32:
    return np.uint32((value << bits) | (value >> (32 - bits)))


@entry
def uksm_hashes(pages: Words, visits: Numbers, order: Numbers, strength: int) -> int:
    """The sum of UKSM's hashes of the pages visited. order: of their words; strength: to 1024."""
    total = np.int64(0)
    for page in visits:
        value = np.uint32(0xDEADBEEF)
        for step in range(strength):
            value = np.uint32(value + pages[page, order[step]])
            value = np.uint32(value + np.uint32(value << 8))
            value = np.uint32(value ^ (value >> 12))
        total += value
    return int(total)


@entry
def jhash2_hashes(pages: Words, visits: Numbers) -> int:
    """The sum of the pages' checksums as kernels before 5.0 take them (model.content)."""
    total = np.int64(0)
    for page in visits:
        a = b = c = np.uint32(0xDEADBEEF + PAGE_SIZE + 17)
        for at in range(0, _WORDS - 1, 3):
            a = np.uint32(a + pages[page, at])
            b = np.uint32(b + pages[page, at + 1])
            c = np.uint32(c + pages[page, at + 2])
            a = np.uint32(np.uint32(a - c) ^ _rotated(c, 4))
            c = np.uint32(c + b)
            b = np.uint32(np.uint32(b - a) ^ _rotated(a, 6))
            a = np.uint32(a + c)
            c = np.uint32(np.uint32(c - b) ^ _rotated(b, 8))
            b = np.uint32(b + a)
            a = np.uint32(np.uint32(a - c) ^ _rotated(c, 16))
            c = np.uint32(c + b)
            b = np.uint32(np.uint32(b - a) ^ _rotated(a, 19))
            a = np.uint32(a + c)
            c = np.uint32(np.uint32(c - b) ^ _rotated(b, 4))
            b = np.uint32(b + a)
        a = np.uint32(a + pages[page, _WORDS - 1])
        c = np.uint32((c ^ b) - _rotated(b, 14))
        a = np.uint32((a ^ c) - _rotated(c, 11))
        b = np.uint32((b ^ a) - _rotated(a, 25))
        c = np.uint32((c ^ b) - _rotated(b, 16))
        a = np.uint32((a ^ c) - _rotated(c, 4))
        b = np.uint32((b ^ a) - _rotated(a, 14))
        c = np.uint32((c ^ b) - _rotated(b, 24))
        total += c
    return int(total)


@entry
def binary_tree(keys: Numbers) -> Numbers:
    """A tree of distinct numbers, put in as they come; node 1 is its root, 0 means none."""
    nodes = np.zeros((len(keys) + 1, _NODE_WORDS), np.int64)
    nodes[1, 0] = keys[0]
    for number in range(1, len(keys)):
        at = 1
        side = 1 if keys[number] < nodes[at, 0] else 2
        while nodes[at, side] != 0:
            at = nodes[at, side]
            side = 1 if keys[number] < nodes[at, 0] else 2
        nodes[at, side] = number + 1
        nodes[number + 1, 0] = keys[number]
    return nodes


@entry
def searches(nodes: Numbers, keys: Numbers) -> int:
    """Search for all keys, which must be there; returns how many nodes that passed."""
    passed = 0
    for key in keys:
        at = 1
        passed += 1
        while nodes[at, 0] != key:
            at = nodes[at, 1 if key < nodes[at, 0] else 2]
            passed += 1
    return passed
