"""What was read of the memory of chosen processes: digests by page, and what was not read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from ksmtrace.processes.identity import Identity

Digests = npt.NDArray[np.uint64]
Frames = npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
Kinds = npt.NDArray[np.uint8]

IS_KSM, IS_HUGE = 1, 2
"""What a page is, bits of Kinds: a KSM page; part of a huge page of any size, which is found out of
zero-filled pages and where KSM pages are only."""


@dataclass
class Tally:
    """Pages of a region, by what they are. Each page is in exactly one.

    candidates: present and private, what ksmd would look at. file: of a file, not written here.
    kernel_zero: mappings of the kernel's zero page. unread: candidates that could not be read.
    barred: of a region that KSM passes over. unregistered: of one that nobody registered, where
    only registered ones count. watched: of a region with userfaultfd. late: not looked at because
    the time for its process was over, or it went away.
    """

    candidates: int = 0
    absent: int = 0
    swapped: int = 0
    file: int = 0
    kernel_zero: int = 0
    barred: int = 0
    unregistered: int = 0
    watched: int = 0
    unread: int = 0
    late: int = 0

    def add(self, other: Tally) -> None:
        """Count another one in."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    @property
    def pages(self) -> int:
        """All together."""
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass
class SampledRegion:
    """One region. process: position in MemorySample.processes. bar: why KSM passes over it.

    changed: sampled pages that were written, moved or lost between the two samples; they are not
    among the digests. moving: their page numbers, in pieces; only where numbers are kept. ksm:
    sampled pages that are KSM pages now.
    """

    process: int
    start: int
    end: int
    name: str
    mergeable: bool
    bar: str | None = None
    tally: Tally = field(default_factory=Tally)
    changed: int = 0
    ksm: int = 0
    moving: list[npt.NDArray[np.int64]] = field(default_factory=list)


@dataclass
class SampledProcess:
    """One process. trouble: why it was not read wholly, or None.

    seconds: spent reading it the first time. ksm_zero_pages: those that ksmd has placed before;
    None where the kernel doesn't count them.
    """

    identity: Identity
    trouble: str | None = None
    seconds: float = 0.0
    ksm_merging_pages: int | None = None
    ksm_zero_pages: int | None = None


@dataclass
class MemorySample:
    """Everything that was read. Pages lie in the order of regions, then addresses.

    digests: of every sampled page that held still. frames: their frames, None where the kernel
    hides them; kinds, IS_..., are 0 then. numbers: page numbers, None unless asked for. bounds:
    region r's pages are bounds[r]:bounds[r + 1]. fraction: of contents that were sampled, 0..1;
    zero-filled pages are always among them. interval: seconds between the two samples of a page, 0
    if there was one.
    """

    processes: list[SampledProcess]
    regions: list[SampledRegion]
    digests: Digests
    frames: Frames | None
    kinds: Kinds
    numbers: npt.NDArray[np.int64] | None
    bounds: npt.NDArray[np.int64]
    fraction: float = 1.0
    interval: float = 0.0
    bytes_read: int = 0
    seconds: float = 0.0

    def tally(self) -> Tally:
        """The pages of all regions, by what they are."""
        total = Tally()
        for region in self.regions:
            total.add(region.tally)
        return total
