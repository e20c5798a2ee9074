"""The question put to a running host: what would KSM save? Read, reckon, say what is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.inspect.estimate.cost import Cost, Pages, cost, pace_of
from ksmtrace.inspect.estimate.read import HowToRead, Progress, read_memory
from ksmtrace.inspect.estimate.sample import MemorySample, Tally
from ksmtrace.inspect.estimate.savings import Savings, Terms, reckon
from ksmtrace.kernel.btf import rmap_item_bytes
from ksmtrace.kernel.costs import host_costs
from ksmtrace.kernel.host import PAGE_BYTES, has_uksm
from ksmtrace.kernel.knobs import in_order
from ksmtrace.kernel.releases import running_profile
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME, HostSampler
from ksmtrace.model import KnobRefused, KsmScanner, Memory
from ksmtrace.processes.selection import Selection

_USUAL_RMAP_ITEM_BYTES = 64


@dataclass
class Answer:
    """What was found. merged_now: pages of these processes that are mapped to KSM pages already.

    missing: process id -> why it was not read. interval, fraction: as in MemorySample.
    """

    savings: Savings
    cost: Cost
    tally: Tally
    merged_now: int | None
    fraction: float
    interval: float
    bytes_read: int
    seconds: float
    missing: dict[int, str]
    notes: list[str]

    @property
    def bytes_per_second(self) -> float:
        """How fast memory was read and digested, the first time."""
        spent = sum(process.process.seconds for process in self.savings.processes)
        return self.bytes_read / spent if spent else 0.0


def estimate(
    selection: Selection,
    how: HowToRead,
    knobs: dict[str, str],
    progress: Progress = lambda _words: None,
) -> tuple[Answer, MemorySample]:
    """What KSM would save in these processes. knobs: instead of the host's own.

    Raises KsmtraceError where none of the processes could be read, or for knobs that can't be.
    """
    told = _as_the_kernel_tells(knobs)
    if not selection.processes:
        raise _nothing_read(selection.missing)
    sampler = HostSampler()
    now = sampler.knobs()
    sampler.close()
    settings = now | told
    sample = read_memory(selection.processes, how, progress)
    missing = selection.missing | {
        p.identity.tgid: p.trouble for p in sample.processes if p.trouble is not None
    }
    if not sample.bytes_read and missing:
        raise _nothing_read(missing)
    progress("sorting contents")
    limit = settings.get("max_page_sharing")
    item_bytes = rmap_item_bytes()
    terms = Terms(
        use_zero_pages=settings.get("use_zero_pages") == "1",
        max_page_sharing=None if limit is None else int(limit),
        rmap_item_bytes=item_bytes or _USUAL_RMAP_ITEM_BYTES,
        page_bytes=PAGE_BYTES,
        splits_off_zeroes=running_profile().behaviour.huge_page_split_maps_zero_pages,
    )
    savings = reckon(sample, terms)
    leaving = savings.split_off + (savings.zero if terms.use_zero_pages else 0)
    pages = Pages(
        candidates=savings.candidates,
        merging=savings.saved - savings.placed_zero + savings.ksm_pages + savings.split_off,
        leaving=min(leaving, savings.zero),
        ksm_pages=savings.ksm_pages,
    )
    merging = [p.ksm_merging_pages for p in sample.processes if p.trouble is None]
    answer = Answer(
        savings=savings,
        cost=cost(pages, pace_of(settings), host_costs().costs),
        tally=sample.tally(),
        merged_now=None if any(m is None for m in merging) else sum(m or 0 for m in merging),
        fraction=sample.fraction,
        interval=sample.interval,
        bytes_read=sample.bytes_read,
        seconds=sample.seconds,
        missing=missing,
        notes=_notes(sample, missing, settings, item_bytes),
    )
    return answer, sample


def _nothing_read(missing: dict[int, str]) -> KsmtraceError:
    tgid, why = next(iter(missing.items()))
    words = f"no memory could be read: process {tgid} {why}"
    if why != "may not be read":
        return KsmtraceError(words, "check the process id")
    hint = "run with sudo" if os.geteuid() else "it is protected even from root here"
    return KsmtraceError(words, hint, Exit.HOST_CANNOT)


def _as_the_kernel_tells(knobs: dict[str, str]) -> dict[str, str]:
    """Values as they would be read afterwards: `on` is 1.

    Raises KsmtraceError (usage) for those that the kernel would refuse.
    """
    if "run" in knobs:
        raise KsmtraceError(
            "an estimate is of a ksmd that runs, whatever run is now", "leave run out", Exit.USAGE
        )
    scanner = KsmScanner(Memory(), kernel=running_profile())
    for name in in_order(knobs):
        try:
            scanner.set_knob(name, knobs[name])
        except KnobRefused:
            raise KsmtraceError(
                f"the kernel would refuse {name}={knobs[name]}",
                f"{name}: {KNOBS_BY_NAME[name].meaning}",
                Exit.USAGE,
            ) from None
    return {name: scanner.knobs[name] for name in knobs}


def _notes(
    sample: MemorySample, missing: dict[int, str], settings: dict[str, str], item_bytes: int | None
) -> list[str]:
    notes = []
    if has_uksm():
        notes.append(
            "this kernel has UKSM in place of KSM: reckoned as KSM of its release would do it, with"
            " KSM's defaults; UKSM merges such pages without their being registered"
        )
    some = list(missing.items())
    notes += [f"process {tgid} {why}" for tgid, why in some[:5]]
    if len(some) > 5:
        notes.append(f"{len(some) - 5:,} more processes are missing (--json names them)")
    if sample.frames is None:
        notes.append(
            "without root the zero page's mappings can't be told from pages full of zeroes,"
            " which may be too many here"
        )
    if settings.get("merge_across_nodes") == "0":
        notes.append("merge_across_nodes=0: pages of different NUMA nodes are counted as mergeable")
    if settings.get("advisor_mode", "none") != "none":
        notes.append("the advisor sets pages_to_scan as it goes; the time is for its value now")
    if item_bytes is None:
        notes.append(
            f"the kernel doesn't tell sizeof(rmap_item): {_USUAL_RMAP_ITEM_BYTES} bytes are assumed"
        )
    return notes
