"""What a live capture adds up to for `top`: bounded, however long it goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ksmtrace.top.noted import (
    BUCKETS,
    CODES,
    Noted,
    Noter,
    bursts_of,
    parted,
    recent_of,
    reduced,
)
from ksmtrace.top.state import MERGES, WHATS, Burst, Decision

BUCKET_NS = 1_000_000_000
_DECISIONS = 32
_PAGES = 1 << 16
_MERGES = [CODES[what] for what in MERGES]
_MOST_PROCESSES = 1 << 16
"""Processes whose merges are told apart; those beyond count in the sum."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Totals:
    """Sums since the capture began. kinds: by the place in WHATS. merges, breaks: by process."""

    kinds: Counts
    merges: dict[int, int] = field(default_factory=dict)
    breaks: dict[int, int] = field(default_factory=dict)

    def of(self, *whats: str) -> int:
        """How many of these things."""
        return int(sum(self.kinds[WHATS.index(what)] for what in whats))


class TopSums(Noter):
    """Takes a capture's batches; may be asked from other threads. bucket_ns: a burst's length."""

    def __init__(self, bucket_ns: int = BUCKET_NS) -> None:
        super().__init__(_PAGES)
        self._bucket_ns = bucket_ns
        self._kinds = np.zeros(len(WHATS), np.int64)
        self._merges: dict[int, int] = {}
        self._breaks: dict[int, int] = {}
        self._buckets: tuple[dict[int, Noted], ...] = ({}, {})
        self._decisions: deque[Decision] = deque(maxlen=_DECISIONS)

    def totals(self) -> Totals:
        """The sums so far, a copy."""
        with self._lock:
            return Totals(self._kinds.copy(), dict(self._merges), dict(self._breaks))

    def decisions(self) -> list[Decision]:
        """The advisor's last decisions, the newest first."""
        with self._lock:
            return list(reversed(self._decisions))

    def scans(self) -> tuple[tuple[int, int, int] | None, float | None]:
        """Start, number and items of the scan under way; seconds of the last."""
        with self._lock:
            return self.scan, self.last_s

    def recent(self, most: int) -> list[Burst]:
        """The last things that happened, the newest first."""
        with self._lock:
            parts = [sorted(buckets.items(), reverse=True) for buckets in self._buckets]
        return recent_of(((bursts_of(noted) for _, noted in part) for part in parts), most)

    def _decide(self, decisions: Sequence[Decision]) -> None:
        self._decisions.extend(decisions)

    def _note(self, noted: Noted) -> None:
        if not len(noted):
            return
        self._kinds += np.bincount(noted["what"], noted["count"], len(WHATS)).astype(np.int64)
        self._of_processes(reduced(noted))
        for part, buckets in zip(parted(noted), self._buckets, strict=True):
            self._remember(part, buckets)

    def _remember(self, noted: Noted, buckets: dict[int, Noted]) -> None:
        if not len(noted):
            return
        bucket = noted["ts"] // np.uint64(self._bucket_ns)
        begins = np.flatnonzero(np.concatenate(([True], bucket[1:] != bucket[:-1])))
        for begin, end in zip(begins, np.append(begins[1:], len(noted)), strict=True):
            sums = reduced(noted[begin:end])
            number = int(bucket[begin])
            before = buckets.get(number)
            both = sums if before is None else reduced(np.concatenate((before, sums)))
            buckets[number] = both
        while len(buckets) > BUCKETS:
            del buckets[min(buckets)]

    def _of_processes(self, sums: Noted) -> None:
        columns = (sums[c].tolist() for c in ("what", "tgid", "count"))
        for what, tgid, count in zip(*columns, strict=True):
            if not tgid:
                continue
            if what in _MERGES:
                _add(self._merges, tgid, count)
            elif what == CODES["broke"]:
                _add(self._breaks, tgid, count)
            elif what == CODES["exited"]:
                self._merges.pop(tgid, None)
                self._breaks.pop(tgid, None)


def _add(counts: dict[int, int], tgid: int, count: int) -> None:
    if tgid in counts or len(counts) < _MOST_PROCESSES:
        counts[tgid] = counts.get(tgid, 0) + count
