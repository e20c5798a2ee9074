"""A host as operators have them, simulated in numbers alone.

Virtual machines with zero, equal, unique and volatile
pages: what bench/scale.py and the tests of the fast engine run on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.fast.contents import NumberedContents
from ksmtrace.model.fast.memory import FastMemory
from ksmtrace.model.fast.scanner import FastScanner
from ksmtrace.model.fast.space import FastMm

_START = 0x7000_0000_0000
_MOST_IN_ONE = 1 << 20
_STRIDE = 7919


@dataclass(frozen=True)
class Mix:
    """Parts of all pages.

    copies: how many pages a content of the equal ones has, on the average;
    they are spread as a power law, so that a few contents have thousands.
    """

    zero: float = 0.12
    equal: float = 0.38
    volatile: float = 0.15
    copies: int = 6


class SimulatedHost:
    """So many pages in virtual machines of 4 GiB at most, all registered with KSM."""

    def __init__(
        self,
        pages: int,
        *,
        mix: Mix | None = None,
        knobs: Mapping[str, object] | None = None,
        kernel: str = "6.18",
        progress: Callable[[str], None] = lambda _words: None,
        on_progress: Callable[..., None] | None = None,
    ) -> None:
        mix = mix or Mix()
        self.dice = np.random.default_rng(1)
        self.pages = pages
        shared = max(1, int(pages * mix.equal) // mix.copies)
        unique = int(pages * (1 - mix.zero - mix.equal - mix.volatile)) + _MOST_IN_ONE
        volatile = int(pages * mix.volatile) + _MOST_IN_ONE
        # One content more for each page that is written after it was merged.
        self._fresh = 1 + shared + unique + volatile
        contents = self._fresh + pages // 50
        self.memory = FastMemory(contents=NumberedContents(contents))
        self.scanner = FastScanner(
            self.memory,
            kernel=kernel,
            knobs={"pages_to_scan": 4_000_000_000, "use_zero_pages": 1, **(knobs or {})},
            events="count",
            on_progress=on_progress,
        )
        self.memory.reserve(
            places=pages + 64, frames=pages + pages // 25, nodes=int(shared * 1.1) + (1 << 20)
        )
        self._volatile: list[npt.NDArray[np.int64]] = []
        self._turn = 0
        self._first_volatile = 1 + shared + unique
        next_unique, next_volatile = 1 + shared, self._first_volatile
        left = pages
        while left:
            number = min(left, _MOST_IN_ONE)
            left -= number
            progress(f"{pages - left:,} of {pages:,} pages made")
            kinds = self.dice.random(number)
            drawn = np.zeros(number, np.uint32)
            equal = (kinds >= mix.zero) & (kinds < mix.zero + mix.equal)
            popular = self.dice.random(int(equal.sum())) ** 3
            drawn[equal] = 1 + (popular * shared).astype(np.uint32)
            changing = kinds >= 1 - mix.volatile
            how_many = int(changing.sum())
            drawn[changing] = next_volatile + np.arange(how_many, dtype=np.uint32)
            next_volatile += how_many
            alone = ~equal & ~changing & (kinds >= mix.zero)
            how_many = int(alone.sum())
            drawn[alone] = next_unique + np.arange(how_many, dtype=np.uint32)
            next_unique += how_many
            mm = self.memory.spawn(1000 + len(self.memory.rows))
            assert isinstance(mm, FastMm)
            self.memory.map(mm, _START, number)
            self.memory.madvise_mergeable(mm, _START, _START + number * PAGE_SIZE)
            self.memory.fill(mm, _START, drawn)
            self._volatile.append(np.flatnonzero(changing) + mm.place_of(_START))

    def change_volatile(self) -> None:
        """Every volatile page gets another content, which no other page has now."""
        self._turn += 1
        number = sum(len(places) for places in self._volatile)
        at = self._turn * _STRIDE
        for places in self._volatile:
            drawn = self._first_volatile + (at + np.arange(len(places))) % number
            self.memory.rewrite(places, drawn.astype(np.uint32))
            at += len(places)

    def write_merged(self, part: float) -> int:
        """Overwrite a part of all merged pages with contents of their own. Returns how many."""
        table = self.memory.tables.place
        chosen: list[npt.NDArray[np.int64]] = []
        for mm in self.memory.rows:
            for start, end, base in mm.segments():
                merged = np.flatnonzero(table["head"][base : base + (end - start) // PAGE_SIZE])
                lot = self.dice.random(len(merged)) < part
                chosen.append(merged[lot] + base)
        places = np.concatenate(chosen)
        contents = self._fresh + np.arange(len(places), dtype=np.uint32)
        self._fresh += len(places)
        self.memory.rewrite(places, contents.astype(np.uint32))
        return len(places)
