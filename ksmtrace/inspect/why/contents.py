"""Why pages that could be merged are not: from what all registered memory holds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ksmtrace.inspect.estimate.sample import MemorySample
from ksmtrace.inspect.why.host import HostFacts
from ksmtrace.kernel.nodes import Span, nodes_of
from ksmtrace.kernel.scanning import SCANS_PAST_SKIPPING, SCANS_TO_MERGE
from ksmtrace.kernel.sysfs import PROC
from ksmtrace.processes.page_tables import (
    KPF_KSM,
    PRESENT,
    PageTables,
    Words,
    frames_of,
    ksm_flag_tells,
    words_of_frames,
)

_NAMES = ("merged", "unique", "forked", "numa", "sharing_limit", "pending")
_MERGED, _UNIQUE, _FORKED, _NUMA, _LIMIT, _PENDING = range(len(_NAMES))

_PAGES_AT_ONCE = 1 << 16

Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int8]


@dataclass
class Registered:
    """All registered memory that held still: pages by position. merged: KSM pages.

    mappings: of each page's frame, in the whole host. pending: why pages with equals wait.
    """

    sample: MemorySample
    merged: Flags
    mappings: Words
    codes: Codes
    pending: str

    def cause_at(self, position: int) -> str:
        """The cause of one page."""
        name = _NAMES[self.codes[position]]
        return self.pending if name == "pending" else name

    def position_of(self, process: int, address_page: int) -> int | None:
        """Where a page is; None if it is not among those that held still."""
        assert self.sample.numbers is not None
        for number, region in enumerate(self.sample.regions):
            begin, end = (int(n) for n in self.sample.bounds[number : number + 2])
            if region.process == process and begin < end:
                at = int(begin + np.searchsorted(self.sample.numbers[begin:end], address_page))
                if at < end and self.sample.numbers[at] == address_page:
                    return at
        return None

    def equals_of(self, position: int) -> npt.NDArray[np.intp]:
        """Positions of all other pages with the same content."""
        same: npt.NDArray[np.intp] = np.flatnonzero(
            self.sample.digests == self.sample.digests[position]
        )
        return np.setdiff1d(same, [position])

    def region_of(self, position: int) -> int:
        """Which region of the sample a page is in."""
        return int(np.searchsorted(self.sample.bounds, position, side="right")) - 1

    def causes_in(self, region: int) -> Counter[str]:
        """A region's pages by cause, the changing ones included."""
        begin, end = self.sample.bounds[region : region + 2].tolist()
        numbers = np.bincount(self.codes[begin:end], minlength=len(_NAMES)).tolist()
        causes = Counter(dict(zip(_NAMES, numbers, strict=True)))
        causes[self.pending] += causes.pop("pending")
        causes["changing"] = self.sample.regions[region].changed
        return Counter({cause: n for cause, n in causes.items() if n})


def sort_out(
    sample: MemorySample, facts: HostFacts, spans: Sequence[Span], proc: Path = PROC
) -> Registered:
    """Tell the pages of a sample apart. sample: of all registered memory, with frames.

    facts: first seen before the sample was taken, and again after it. Raises OSError where frames'
    flags can't be read.
    """
    frames = _frames_now(sample, proc)
    if ksm_flag_tells():
        merged = (_of_frames(frames, proc / "kpageflags") & KPF_KSM) != 0
    else:
        merged = _at_several_addresses(sample, frames)
    mappings = _of_frames(frames, proc / "kpagecount")
    codes = _codes(sample.digests, frames, merged, mappings, facts, spans)
    return Registered(sample, merged, mappings, codes, why_pending(facts))


def why_pending(facts: HostFacts) -> str:
    """Why a page waits that has equals it could be merged with."""
    if facts.knobs.get("run") != "1":
        return "stopped"
    scans = facts.grown("full_scans")
    if scans < SCANS_TO_MERGE:
        return "not_reached"
    if facts.knobs.get("smart_scan") == "1" and scans < SCANS_PAST_SKIPPING:
        return "smart_scan"
    return "held"


def _frames_now(sample: MemorySample, proc: Path) -> Words:
    """Each page's frame after the second reading: ksmd may have merged it meanwhile."""
    assert sample.numbers is not None
    frames = np.zeros(len(sample.numbers), np.uint64)
    for number, region in enumerate(sample.regions):
        begin, end = (int(n) for n in sample.bounds[number : number + 2])
        if begin == end:
            continue
        numbers = sample.numbers[begin:end]
        try:
            with PageTables(sample.processes[region.process].identity.tgid, proc) as tables:
                for first, entries in tables.entries(region.start, region.end, _PAGES_AT_ONCE):
                    some = slice(*np.searchsorted(numbers, (first, first + len(entries))).tolist())
                    now = entries[numbers[some] - first]
                    frames[begin:end][some] = np.where(now & PRESENT, frames_of(now), 0)
        except OSError:
            continue
    return frames


def _at_several_addresses(sample: MemorySample, frames: Words) -> Flags:
    """Pages whose frame is mapped at different addresses: fork alone never does that.

    For kernels whose flags don't tell. A KSM page that all map at one address is missed.
    """
    assert sample.numbers is not None
    found = np.zeros(len(frames), np.bool_)
    order = np.lexsort((sample.numbers, frames))
    one, next_ = order[:-1], order[1:]
    apart = (frames[one] == frames[next_]) & (sample.numbers[one] != sample.numbers[next_])
    several = np.unique(frames[one][apart])
    found[np.isin(frames, several[several != 0])] = True
    return found


def _of_frames(frames: Words, path: Path) -> Words:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return words_of_frames(file, frames)
    finally:
        os.close(file)


def _codes(
    digests: Words, frames: Words, merged: Flags, mappings: Words,
    facts: HostFacts, spans: Sequence[Span],
) -> Codes:  # fmt: skip
    """Each page's cause, as a position in _NAMES."""
    codes = np.full(len(digests), _PENDING, np.int8)
    if not len(digests):
        return codes
    content = np.unique(digests, return_inverse=True)[1]
    pages, distinct = _in_groups(content, frames)
    group = content
    if facts.knobs.get("merge_across_nodes") == "0":
        nodes = nodes_of(frames, list(spans))
        group = np.unique(content * (nodes.max() + 2) + nodes + 1, return_inverse=True)[1]
        codes[_in_groups(group, frames)[1] == 1] = _NUMA
    codes[(codes == _PENDING) & ~_has_partner(group, frames, merged, mappings, facts)] = _LIMIT
    codes[distinct == 1] = _FORKED
    codes[pages == 1] = _UNIQUE
    codes[merged] = _MERGED
    return codes


def _in_groups(
    group: npt.NDArray[np.intp], frames: Words
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(pages in each page's group, distinct frames in it)."""
    pages = np.bincount(group)
    first = _first_of_frame(group, frames)
    distinct = np.bincount(group[first], minlength=len(pages))
    return pages[group], distinct[group]


def _first_of_frame(group: npt.NDArray[np.intp], frames: Words) -> npt.NDArray[np.intp]:
    """One position for each frame of each group."""
    order = np.lexsort((frames, group))
    new = np.ones(len(order), np.bool_)
    one, next_ = order[:-1], order[1:]
    new[1:] = (group[one] != group[next_]) | (frames[one] != frames[next_])
    return order[new]


def _has_partner(
    group: npt.NDArray[np.intp], frames: Words, merged: Flags, mappings: Words, facts: HostFacts
) -> Flags:
    """Whether there is something to merge with: another unmerged page, or room in a KSM page."""
    limit = facts.number("max_page_sharing")
    first = _first_of_frame(group, frames)
    groups = int(group.max()) + 1
    unmerged = np.bincount(group[first][~merged[first]], minlength=groups)
    roomy = merged[first] & (mappings[first] < np.uint64(limit or 1 << 62))
    room = np.bincount(group[first][roomy], minlength=groups)
    found: Flags = (unmerged[group] > 1) | (room[group] > 0)
    return found
