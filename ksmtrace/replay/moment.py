"""What ksmd would make of a moment: a snapshot of contents, scanned by the reference scanner.

A snapshot is a recording whose contents were read once (`ksmtrace estimate --save`). Nothing moves
in it: every page holds still for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.knobs import in_order
from ksmtrace.kernel.releases import Profile
from ksmtrace.kernel.scanning import SCANS_PAST_SKIPPING
from ksmtrace.kernel.stepper import ALL_PAGES
from ksmtrace.kernel.sysfs import KNOBS
from ksmtrace.model.clock import Clock
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.ksm import KnobRefused, KsmScanner
from ksmtrace.model.memory import Memory, Mm, Vma
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.mirror import Mirror, contents_by_digest

_STILL = 3
_DRIVEN = ("run", "sleep_millisecs", "pages_to_scan", "advisor_mode")


@dataclass
class MomentRun:
    """How a scanner went over it. scans: the counters after each full scan.

    converged: nothing more was saved; if not, the limit of scans was reached.
    """

    on: str
    pages: int
    processes: int
    scans: list[dict[str, int]] = field(default_factory=list)
    converged: bool = False


@dataclass(frozen=True)
class Moment:
    """A stored moment. pages: (process, address) -> (digest, frame)."""

    pages: Mapping[tuple[int, int], tuple[int | None, int]]
    regions: Mapping[int, list[tuple[int, int]]]
    contents: Mapping[int, bytes]
    knobs: Mapping[str, str]


def read_moment(recording: StoredRecording) -> Moment:
    """The contents of a snapshot. Raises KsmtraceError (bad recording) where it has none."""
    recording.need_events()
    pages: dict[tuple[int, int], tuple[int | None, int]] = {}
    moments = set()
    for batch in recording.record_batches("contents"):
        columns = [
            batch.column(n).to_pylist() for n in ("seq", "phase", "tgid", "addr", "digest", "pfn")
        ]
        for seq, phase, tgid, addr, digest, pfn in zip(*columns, strict=True):
            moments.add((seq, phase))
            pages[tgid, addr] = (digest, pfn or 0)
    contents = contents_by_digest(recording)
    if len(moments) != 1 or any(digest not in contents for digest, _pfn in pages.values()):
        raise KsmtraceError(
            f"{recording.path} holds no single moment's contents",
            "ksmtrace estimate --save DIR makes such a snapshot; `replay --check` predicts others",
            Exit.BAD_RECORDING,
        )
    regions: dict[int, list[tuple[int, int]]] = {}
    for batch in recording.record_batches("regions"):
        columns = [batch.column(n).to_pylist() for n in ("tgid", "start", "end")]
        for tgid, start, end in zip(*columns, strict=True):
            regions.setdefault(tgid, []).append((start, end))
    starts = [row for row in recording.table("counters").to_pylist() if row["tgid"] is None][:1]
    knobs = {
        knob.name: starts[0][f"knob_{knob.name}"]
        for knob in KNOBS
        if starts and starts[0].get(f"knob_{knob.name}") is not None
    }
    return Moment(pages, regions, contents, knobs)


def scan_moment(
    moment: Moment, profile: Profile, on: str, knobs: Mapping[str, str], most_scans: int
) -> MomentRun:
    """Scan it until nothing more is saved. knobs: instead of the snapshot's own.

    Raises KsmtraceError (usage) for a knob that this kernel lacks or refuses.
    """
    memory = Memory()
    own = {
        knob.name: moment.knobs[knob.name]
        for knob in KNOBS
        if knob.name in moment.knobs and knob.name not in _DRIVEN and profile.has(knob.since)
    }
    if "run" in knobs:
        raise KsmtraceError("a snapshot is scanned by a running ksmd", "leave run out", Exit.USAGE)
    scanner = KsmScanner(
        memory, kernel=profile, knobs={**own, "pages_to_scan": ALL_PAGES}, clock=Clock()
    )
    for name in in_order(knobs):
        try:
            scanner.set_knob(name, knobs[name])
        except KnobRefused as refused:
            raise KsmtraceError(
                f"{on} refuses {name}={knobs[name]}: {refused}",
                "ksmtrace kernels tells what each kernel has",
                Exit.USAGE,
            ) from None
    mms: dict[int, Mm] = {}
    for tgid in sorted(moment.regions):
        mms[tgid] = memory.spawn(tgid)
        scanner.enter(mms[tgid])
        ranges = sorted(moment.regions[tgid])
        mms[tgid].set_vmas(
            [Vma(start // PAGE_SIZE * PAGE_SIZE, end, mergeable=True) for start, end in ranges]
        )
    Mirror(memory, moment.contents).follow(mms, moment.pages)
    run = MomentRun(on, len(moment.pages), len(mms))
    still = 0
    skips = scanner.knobs.get("smart_scan") == "1"
    enough = SCANS_PAST_SKIPPING if skips else _STILL
    while mms and len(run.scans) < most_scans and not run.converged:
        scanner.scan()
        run.scans.append(dict(scanner.counters))
        same = len(run.scans) > 1 and _state(run.scans[-1]) == _state(run.scans[-2])
        still = still + 1 if same else 0
        run.converged = still >= enough
    return run


def _state(counters: Mapping[str, int]) -> tuple[int | None, ...]:
    return tuple(counters.get(name) for name in ("pages_shared", "pages_sharing", "ksm_zero_pages"))


def saved(counters: Mapping[str, int]) -> int:
    """Pages saved, as the kernel counts: where it counts no zero pages, there are none."""
    return counters["pages_sharing"] + counters.get("ksm_zero_pages", 0)


def report_of(runs: Sequence[MomentRun], page_bytes: int) -> dict[str, Any]:
    """What `ksmtrace simulate SNAPSHOT --json` prints; saved: pages, after each scan."""
    return {
        "page_bytes": page_bytes,
        "on": [
            {
                "on": run.on,
                "pages": run.pages,
                "processes": run.processes,
                "converged": run.converged,
                "pages_saved": saved(run.scans[-1]) if run.scans else 0,
                "saved": [saved(counters) for counters in run.scans],
                "scans": run.scans,
            }
            for run in runs
        ],
    }
