"""Full scans: which one an event belongs to, and what each one did."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.aggregator import Aggregator

Numbers = npt.NDArray[np.int64]
IN_TRANSIT_NS = 10_000_000
"""A sample is no instant: events this near to one taken while ksmd scans count either way."""


@dataclass
class Scan:
    """A full scan, or the part of one that was recorded. Times in ns; None: not recorded."""

    number: int
    begin_ns: int
    seq: int | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    items_before: int | None = None
    items_after: int | None = None


@dataclass
class Scans:
    """The scans of a stream. of_segment: the scan of what follows each number of borders.

    What ksmd's list or run=2 did between two scans counts to the one before.
    """

    scans: list[Scan] = field(default_factory=list)
    of_segment: Numbers = field(default_factory=lambda: np.zeros(1, np.int64))

    def at(self, ts: npt.NDArray[np.uint64]) -> Numbers:
        """The scan under way, or the last before, at each moment."""
        begins = np.array([scan.begin_ns for scan in self.scans], np.uint64)
        numbers: Numbers = np.maximum(np.searchsorted(begins, ts, "right") - 1, 0)
        return numbers

    @property
    def completed(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Starts and ends of the full scans recorded from start to end."""
        whole = [(s.start_ns, s.end_ns) for s in self.scans if s.start_ns and s.end_ns]
        starts = np.array([start for start, _ in whole], np.uint64)
        ends = np.array([end for _, end in whole], np.uint64)
        return starts, ends


def scans_of(stream: Aggregator) -> Scans:
    """The scans of a stream; number 0 is what was under way when it began."""
    borders = stream.borders
    found = [Scan(0, 0)]
    segments = [0]
    columns = ("ts", "start", "seq", "items")
    for ts, start, seq, items in zip(*(borders[c].tolist() for c in columns), strict=True):
        last = found[-1]
        if start:
            found.append(Scan(len(found), ts, seq, ts, items_before=items))
        else:
            if last.number == 0 and last.end_ns is None:
                last.seq = seq
            elif last.end_ns is not None or last.seq != seq:
                # Its start was lost: it can have begun when the one before ended.
                found.append(Scan(len(found), last.end_ns or last.begin_ns, seq))
                segments[-1] = found[-1].number
            found[-1].end_ns, found[-1].items_after = ts, items
        segments.append(found[-1].number)
    return Scans(found, np.array(segments, np.int64))


def begun_in(stream: Aggregator, scans: Scans) -> Numbers:
    """The scan in which each life was first told of: it began then, or before the recording."""
    lives = len(stream.lives.table)
    borders = np.minimum(stream.borders["lives"], lives)
    numbers: Numbers = np.repeat(scans.of_segment, np.diff(borders, prepend=0, append=lives))
    return numbers
