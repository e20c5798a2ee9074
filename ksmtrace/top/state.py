"""What `ksmtrace top` shows at one moment: the same for a live host and for a recording.

Numbers are None where they can't be told. Nothing here, and nothing that is imported, costs time
before the first screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.int64]

Group = Literal["process", "cgroup", "vm"]
GROUPS: tuple[Group, ...] = ("process", "cgroup", "vm")
Origin = Literal["capture", "counters", "recording"]
What = Literal[
    "merged", "attached", "inherited", "zero", "failed", "broke", "entered", "exited", "scanned",
    "decided", "died", "left", "lost",
]  # fmt: skip
WHATS: tuple[What, ...] = (
    "lost", "decided", "scanned", "failed", "broke", "merged", "attached", "inherited", "zero",
    "left", "died", "entered", "exited",
)  # fmt: skip
"""What a thing that happened can be, the most telling first.

merged: newly shared. inherited: found on a KSM page where a fork had put it already. attached: one
of the two, which of them can't be told.
"""
MERGES: tuple[What, ...] = ("merged", "attached", "inherited", "zero")
"""What the kernel calls a merge."""
ROUTINE: tuple[What, ...] = ("scanned", "decided")
"""What comes again and again, whatever else happens."""

RATE_NS = 5_000_000_000
"""A rate is of the five seconds before, or of as many as there are."""


@dataclass(frozen=True)
class Place:
    """Where it looks. kernel, backend, page_bytes, cpus: of the host that is or was traced.

    name: the recording's. cow: breaks are seen as they happen.
    """

    origin: Origin
    kernel: str
    page_bytes: int
    cpus: int | None
    backend: str | None = None
    name: str | None = None
    cow: bool = False


@dataclass(frozen=True)
class Moment:
    """When. ns: CLOCK_MONOTONIC. begin_ns: of the recording, or when `top` began. end_ns: its end.

    speed: seconds of the recording a second; None live. paused: it stands still.
    """

    ns: int
    begin_ns: int
    end_ns: int | None = None
    speed: float | None = None
    paused: bool = False


@dataclass(frozen=True)
class Scan:
    """The full scan under way. seq: its number. fraction: done of it, 0 to 1.

    basis: what the fraction is of, or why there is none. last_s: how long the one before took.
    """

    seq: int | None = None
    under_way: bool = False
    elapsed_s: float | None = None
    visited_pages: int | None = None
    expected_pages: int | None = None
    fraction: float | None = None
    ends_in_s: float | None = None
    last_s: float | None = None
    basis: str = ""


@dataclass(frozen=True)
class Decision:
    """One of the advisor's. scan_s: how long the scan took; cpu_percent: of one core in it."""

    ns: int
    pages_to_scan: int
    scan_s: int
    cpu_percent: int


@dataclass(frozen=True)
class Burst:
    """Things of one kind that happened within a second. ns: the last one.

    tgid, name: whose; tgid 0: of nobody, or not known. processes: how many others are summed
    here. number: the scan's, or the pages_to_scan decided; seconds: how long a scan took.
    """

    ns: int
    what: What
    count: int
    tgid: int = 0
    name: str | None = None
    processes: int = 0
    number: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Labels:
    """A name for each of many rows. codes: the row's place in `words`, -1: it has none."""

    codes: Numbers
    words: Sequence[str]

    def at(self, row: int) -> str | None:
        """The name of a row; None if it has none, or for row -1."""
        code = int(self.codes[row]) if row >= 0 else -1
        return self.words[code] if code >= 0 else None


@dataclass(frozen=True)
class Rows:
    """The processes, a column each; NaN: not known. columns: by name, as `table.COLUMNS`.

    tgid: of each. labels: comm, cgroup and vm of each. unreadable: processes that may be
    registered too, which can't be read.
    """

    tgid: Numbers
    columns: Mapping[str, Floats]
    labels: Mapping[str, Labels]
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.tgid)


@dataclass(frozen=True)
class Series:
    """Numbers over time, oldest first, one a cell; None: not known. cell_s: seconds of a cell."""

    cell_s: float
    values: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class TopState:
    """All that a screen shows. figures: by name, as `figures.FIGURES`. knobs: by name.

    recent: the newest first. notes: what to know of all this, in words. loading: what is waited
    for, if anything. lost: None where that can't be known.
    """

    place: Place
    moment: Moment
    figures: Mapping[str, float | None] = field(default_factory=dict)
    knobs: Mapping[str, str] = field(default_factory=dict)
    scan: Scan = field(default_factory=Scan)
    series: Series | None = None
    decisions: Sequence[Decision] = ()
    rows: Rows | None = None
    recent: Sequence[Burst] = ()
    notes: Sequence[str] = ()
    loading: str | None = None
    lost: int | None = None
