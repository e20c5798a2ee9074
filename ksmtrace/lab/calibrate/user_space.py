"""What no kernel here has, measured as a program: UKSM's hash, jhash2, uncached lines, a tree."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from ksmtrace.model.uksm.hashing import WORDS, lines_read

_BYTES_OF_WORD = 4
_POOL_PAGES = 60_000
"""234 MiB: more than any cache holds."""
_VISITS = 20_000
_WARM_HASHES = 5_000
_NODES = 1 << 16
_STRENGTHS = (16, 64)

MEASURED: Mapping[str, str] = MappingProxyType(
    {
        "uksm_byte_ns": "UKSM's hash of 1,024 words of a cached page",
        "line_ns": "the same of 16 and of 64 words of pages not cached",
        "jhash2_byte_ns": "jhash2 of pages one after another",
        "level_ns": f"searches in a binary tree of {_NODES:,} numbers",
    }
)
"""What is measured here, and how, by constant."""


class UserSpace:
    """The programs, compiled, and the memory they work on. clock: seconds of CPU time."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        from ksmtrace.lab.calibrate import programs

        self._clock = clock
        self._programs = programs
        dice = np.random.default_rng(1)
        self._pages = dice.integers(0, 1 << 32, (_POOL_PAGES, WORDS), dtype=np.uint32)
        self._order = dice.permutation(WORDS).astype(np.int64)
        self._visits = dice.permutation(_POOL_PAGES)[: 2 * _VISITS].astype(np.int64)
        self._keys = dice.permutation(_NODES).astype(np.int64)
        self._tree = programs.binary_tree(self._keys)
        # The first call of each compiles it.
        programs.uksm_hashes(self._pages, self._visits[:2], self._order, 1)
        programs.jhash2_hashes(self._pages, self._visits[:2])
        programs.searches(self._tree, self._keys[:2])

    def measure(self) -> dict[str, float]:
        """One measurement of each of MEASURED, in nanoseconds."""
        programs, pages, order = self._programs, self._pages, self._order
        same = np.zeros(_WARM_HASHES, np.int64)
        word = self._ns(programs.uksm_hashes, pages, same, order, WORDS) / _WARM_HASHES / WORDS
        lines = []
        for turn, strength in enumerate(_STRENGTHS):
            visits = self._visits[turn * _VISITS : (turn + 1) * _VISITS]
            page = self._ns(programs.uksm_hashes, pages, visits, order, strength) / _VISITS
            lines.append(max(0.0, page - strength * word) / lines_read(strength))
        in_order = np.arange(_VISITS, dtype=np.int64)
        jhash2 = self._ns(programs.jhash2_hashes, pages, in_order)
        begin = self._clock()
        passed = programs.searches(self._tree, self._keys)
        return {
            "uksm_byte_ns": word / _BYTES_OF_WORD,
            "line_ns": sum(lines) / len(lines),
            "jhash2_byte_ns": jhash2 / (_VISITS * WORDS * _BYTES_OF_WORD),
            "level_ns": (self._clock() - begin) * 1e9 / passed,
        }

    def _ns(self, program: Callable[..., object], *arguments: object) -> float:
        begin = self._clock()
        program(*arguments)
        return (self._clock() - begin) * 1e9
