"""What was found out about a host, before anything is concluded from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ksmtrace.inspect.advise.advice import SharedBy

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Process:
    """A registered process; its numbers are its ksm_stat's (docs of `kernel.sysfs`), None: unknown.

    merge_any: opted in as a whole, by prctl. breaks: writes to its merged pages that were seen.
    """

    tgid: int
    comm: str | None = None
    vm: str | None = None
    cgroup: str | None = None
    rmap_items: int | None = None
    merging_pages: int | None = None
    zero_pages: int | None = None
    profit_bytes: int | None = None
    merge_any: bool | None = None
    breaks: int | None = None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.vm or self.comm or 'process'} ({self.tgid})"


@dataclass(frozen=True)
class Writer:
    """Code that wrote to merged pages: a file with an offset, or a function."""

    tgid: int
    comm: str | None
    where: str | None
    breaks: int


@dataclass(frozen=True)
class Series:
    """The host's counters in time. at_s: seconds, ascending; counters: as long, NaN: not known."""

    at_s: Floats = field(default_factory=lambda: np.empty(0))
    counters: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def span_s(self) -> float:
        """Seconds from the first sample to the last."""
        return float(self.at_s[-1] - self.at_s[0]) if len(self.at_s) else 0.0

    def values(self, name: str) -> Floats:
        """A counter at each sample; all NaN if it is not known at all."""
        return self.counters.get(name, np.full(len(self.at_s), np.nan))


@dataclass(frozen=True)
class Facts:
    """A host, watched for a while or recorded. None: not known, which is never 0.

    processes: the registered ones. knobs: as they stood last. stepped: ksmd was driven scan by
    scan, so that rates mean nothing. scan_s: seconds of a full scan, measured; scans: how many
    ended. merges: pages that came to share by themselves, not by a fork.
    copies_by_order: run=2 was written meanwhile. zero_filled: pages of zeros that ksmd could put
    onto the zero page. mergeable_bytes: the size of all opted-in mappings. nodes: NUMA nodes.
    unknown: what can't be told, each a sentence.
    """

    source: str
    kernel: str
    live: bool
    series: Series
    knobs: Mapping[str, str]
    kernel_build: str = ""
    page_bytes: int = 4096
    rmap_item_bytes: int | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    observed_s: float = 0.0
    stepped: bool = False
    copies_by_order: bool = False
    processes: tuple[Process, ...] | None = None
    scan_s: float | None = None
    scans: int | None = None
    merges: int | None = None
    writers: tuple[Writer, ...] | None = None
    zero_filled: int | None = None
    mergeable_bytes: int | None = None
    nodes: int | None = None
    mem_available_bytes: int | None = None
    swap_free_bytes: int | None = None
    shared: tuple[SharedBy, ...] | None = None
    unknown: tuple[str, ...] = ()
