"""A trace as viewers know it: processes, their tracks, and points in time on them.

What KSM did is laid out on tracks once (`tracks`); each format only writes this down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Kind = Literal["slice", "instant", "counter"]
Unit = Literal["count", "bytes", "percent"]

_AT_ONCE = 1 << 16
"""Points encoded together: a few megabytes whatever the length of the trace."""


@dataclass(frozen=True)
class Process:
    """A group of tracks. pid: unique in the trace. labels: more that is known of it."""

    pid: int
    name: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Track:
    """A row of the picture. process: its position among the trace's. unit: of a counter."""

    process: int
    name: str
    kind: Kind
    unit: Unit = "count"


@dataclass(frozen=True)
class Arg:
    """One detail of each of some points.

    values: numbers or booleans, or with `words` positions in those. known: None if all are.
    """

    name: str
    values: npt.NDArray[Any]
    known: Mask | None = None
    words: tuple[str, ...] | None = None
    address: bool = False

    def part(self, rows: slice) -> Arg:
        """The same of some of the points."""
        known = None if self.known is None else self.known[rows]
        return replace(self, values=self.values[rows], known=known)


@dataclass(frozen=True)
class Points:
    """Points of one kind, in the order of their times on each track.

    track: positions among the trace's tracks. ts: nanoseconds of the recording's clock. name:
    positions in `names`. duration_ns: of slices. value: of counters, whole or not.
    """

    kind: Kind
    track: npt.NDArray[np.int32]
    ts: Ints
    names: tuple[str, ...] = ()
    name: npt.NDArray[np.int32] | None = None
    duration_ns: Ints | None = None
    value: npt.NDArray[Any] | None = None
    args: tuple[Arg, ...] = ()

    def __len__(self) -> int:
        return len(self.ts)

    def parts(self) -> Iterator[Points]:
        """The same, a bounded number at a time."""
        for first in range(0, len(self), _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            yield replace(
                self,
                track=self.track[rows],
                ts=self.ts[rows],
                name=None if self.name is None else self.name[rows],
                duration_ns=None if self.duration_ns is None else self.duration_ns[rows],
                value=None if self.value is None else self.value[rows],
                args=tuple(arg.part(rows) for arg in self.args),
            )


@dataclass(frozen=True)
class Trace:
    """All there is to show. begin_ns: the recording's start, at or before every point.

    wall_ns: nanoseconds of the epoch at that moment, None if not known. notes: what a person must
    know to read it right.
    """

    begin_ns: int
    wall_ns: int | None
    processes: Sequence[Process]
    tracks: Sequence[Track]
    points: Sequence[Points] = ()
    notes: Sequence[str] = field(default=())

    def __len__(self) -> int:
        return sum(len(points) for points in self.points)
