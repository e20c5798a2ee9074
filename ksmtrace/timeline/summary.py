"""A recording in numbers: totals, scans, processes, advisor decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.events.registry import BY_ID, KSM_ADVISOR, KSM_REMOVE_KSM_PAGE
from ksmtrace.kernel.sysfs import COUNTERS
from ksmtrace.recording.reader import is_cut
from ksmtrace.timeline.process_tables import COPIED_BY_FORK, holds_parents_counts
from ksmtrace.timeline.scan_table import count_by, merge_counts
from ksmtrace.timeline.tables import HOW

if TYPE_CHECKING:
    from ksmtrace.timeline.aggregator import Aggregator
    from ksmtrace.timeline.build import Timeline

Counters = dict[str, int | None]
Row = dict[str, Any]
Numbers = npt.NDArray[np.int64]
_T = TypeVar("_T", bound="Tally")
_SAMPLED = ("ksm_rmap_items", "ksm_merging_pages", "ksm_zero_pages", "ksm_process_profit")
"""What a process's own ksm_stat says."""
_COPIED = (
    "on this kernel the ksm_stat of a forked process begins with its parent's numbers, so what it"
    " has merged now is not known from there; `timeline --process` tells from the events"
)


@dataclass
class Tally:
    """Merges of the whole recording, a scan or a process. inherited: None if it can't be told."""

    merges: int = 0
    zero_merges: int = 0
    inherited: int | None = 0
    failed_merges: int = 0
    stable_pages_created: int = 0


@dataclass
class Scan(Tally):
    """A full scan, or the part of one that was recorded: then start_ns or end_ns is None.

    duration_s, merges_per_s: None for a part. pages_saved: change of pages_sharing plus
    ksm_zero_pages up to the sample after its end, None if none was taken.
    """

    seq: int = 0
    start_ns: int | None = None
    end_ns: int | None = None
    rmap_items: int | None = None
    pages_saved: int | None = None

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to end."""
        if self.start_ns is None or self.end_ns is None:
            return None
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def merges_per_s(self) -> float | None:
        """Merges, of zero pages too, a second of scanning."""
        seconds = self.duration_s
        return (self.merges + self.zero_merges) / seconds if seconds else None


@dataclass
class ProcessSummary(Tally):
    """A process. tgid 0: events whose owner is not known. The rest: its last ksm_stat sample.

    counts_of_parent: that sample also holds what its parent had merged; what can't be told is None.
    """

    tgid: int = 0
    comm: str | None = None
    vm: str | None = None
    cgroup: str | None = None
    ksm_rmap_items: int | None = None
    ksm_merging_pages: int | None = None
    ksm_zero_pages: int | None = None
    ksm_process_profit: int | None = None
    counts_of_parent: bool = False

    def saved_bytes(self, page_bytes: int) -> int | None:
        """Memory of its pages that are mapped to KSM or zero pages.

        Over all processes this is more than the host saves: each KSM page has one mapping that
        saves nothing.
        """
        if self.ksm_merging_pages is None:
            return None
        return (self.ksm_merging_pages + (self.ksm_zero_pages or 0)) * page_bytes


@dataclass
class Summary:
    """What `ksmtrace report` says."""

    manifest: Mapping[str, Any]
    ended: str
    duration_s: float
    events: int = 0
    events_by_kind: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    totals: Tally = field(default_factory=Tally)
    stable_pages_removed: int = 0
    failures: dict[str, dict[int, int]] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)
    processes: list[ProcessSummary] = field(default_factory=list)
    advisor: list[dict[str, int]] = field(default_factory=list)
    counters_first: Counters = field(default_factory=dict)
    counters_last: Counters = field(default_factory=dict)
    census_pages: int = 0
    sampled_s: float = 0.0
    saved_pages_last: int | None = None
    saved_pages_peak: int | None = None

    @property
    def page_bytes(self) -> int:
        """The host's page size."""
        return int(self.manifest.get("page_bytes", 4096))

    @property
    def loss_known(self) -> bool:
        """Whether `lost` is all that was lost; an imported text may not tell."""
        return self.manifest.get("loss_known") is not False

    @property
    def notes(self) -> list[str]:
        """What to know of it: as recorded, and of the kernel."""
        copied = any(process.counts_of_parent for process in self.processes)
        return [*(self.manifest.get("notes") or []), *([_COPIED] if copied else [])]

    @property
    def ksmd_cpu_s(self) -> float | None:
        """Ksmd's CPU time between the first and the last sample."""
        return seconds_grown(self.counters_first, self.counters_last, "ksmd_cpu_ns")

    @property
    def ksmd_percent_of_one_core(self) -> float | None:
        """Ksmd's share of one core between the first and the last sample."""
        cpu = self.ksmd_cpu_s
        return 100 * cpu / self.sampled_s if cpu is not None and self.sampled_s else None

    @property
    def ksmd_percent_of_host(self) -> float | None:
        """Ksmd's share of all cores between the first and the last sample."""
        share = self.ksmd_percent_of_one_core
        return None if share is None else share / max(1, self.manifest["cpus"])

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; units are in the names."""
        return {
            **{
                key: self.manifest.get(key)
                for key in ("kernel", "backend", "backend_why", "fields_unknown", "started")
            },
            "duration_s": self.duration_s,
            "events": self.events,
            "events_by_kind": self.events_by_kind,
            "lost": self.lost if self.lost or self.loss_known else None,
            "ended": self.ended,
            "command": self.manifest.get("command"),
            "command_status": self.manifest.get("command_status"),
            "totals": {**asdict(self.totals), "stable_pages_removed": self.stable_pages_removed},
            "saved_bytes_last": _times(self.saved_pages_last, self.page_bytes),
            "saved_bytes_peak": _times(self.saved_pages_peak, self.page_bytes),
            "failures_by_errno": self.failures,
            "scans": [
                {**asdict(s), "duration_s": s.duration_s, "merges_per_s": s.merges_per_s}
                for s in self.scans
            ],
            "processes": [
                {**asdict(p), "saved_bytes": p.saved_bytes(self.page_bytes)} for p in self.processes
            ],
            "advisor": self.advisor,
            "ksmd": {
                "cpu_s": self.ksmd_cpu_s,
                "percent_of_one_core": self.ksmd_percent_of_one_core,
                "percent_of_host": self.ksmd_percent_of_host,
            },
            "counters_first": self.counters_first,
            "counters_last": self.counters_last,
            "census_pages": self.census_pages,
            "knobs": self.manifest.get("knobs", {}),
            "knobs_set": self.manifest.get("knobs_set", {}),
            "only_pids": self.manifest.get("only_pids"),
            "notes": self.notes,
        }


def seconds_grown(first: Counters, last: Counters, name: str) -> float | None:
    """By how much a counter of ns grew; None if either sample lacks it."""
    before, after = first.get(name), last.get(name)
    return (after - before) / 1e9 if before is not None and after is not None else None


def summarise(timeline: Timeline) -> Summary:
    """Sum a recording up.

    Raises KsmtraceError (exit code 4) where a table is damaged.
    """
    stream, manifest = timeline.stream, timeline.recording.manifest
    counters = timeline.recording.table("counters").to_pylist()
    host = [row for row in counters if row["tgid"] is None]
    tgids, tallies = _by_tgid(stream)
    summary = Summary(
        manifest=manifest,
        ended="cut" if is_cut(manifest) else manifest["ended"],
        duration_s=_duration(timeline, host),
        events=stream.orders,
        events_by_kind={
            BY_ID[kind].name if kind in BY_ID else str(kind): count
            for kind, count in sorted(stream.by_kind.items())
        },
        lost=int(stream.losses["count"].sum()),
        totals=_counted(Tally(), _rows(tallies.sum(axis=0, keepdims=True))[0]),
        stable_pages_removed=stream.by_kind[KSM_REMOVE_KSM_PAGE.id],
        failures={BY_ID[kind].name: dict(e) for kind, e in stream.failures.items() if e},
        scans=_scans(timeline, host),
        processes=_processes(timeline, tgids, tallies, counters),
        advisor=_decisions(stream),
        census_pages=timeline.recording.table("census").num_rows,
    )
    if host:
        _add_counters(summary, host)
    return summary


def _duration(timeline: Timeline, host: list[Row]) -> float:
    """Seconds it lasted; of a recording without an end, to the last that is known of it."""
    manifest, stream = timeline.recording.manifest, timeline.stream
    if (told := manifest.get("duration_s")) is not None:
        return float(told)
    events = (stream.last_ts - timeline.context.begin_ns) / 1e9 if stream.orders else 0.0
    return max(0.0, events, _sampled_s(host))


def _sampled_s(host: list[Row]) -> float:
    return (host[-1]["ts"] - host[0]["ts"]) / 1e9 if host else 0.0


def _by_tgid(stream: Aggregator) -> tuple[list[int], Numbers]:
    """Each process id, and how many of its pages merged in each way; failures in a last column.

    After an exec, and where a pid was used again, it is the sum over its address spaces.
    """
    tgids, of_space = np.unique(stream.spaces.table["tgid"], return_inverse=True)
    lives = stream.lives.table
    how = count_by(of_space[lives["space"]], lives["how"], len(tgids))
    failed = np.zeros(len(tgids), np.int64)
    np.add.at(failed, of_space[: len(stream.failed_by_space)], stream.failed_by_space)
    return tgids.tolist(), np.column_stack((how, failed))


def _rows(tallies: Numbers) -> Sequence[Mapping[Any, Any]]:
    """Rows with the columns about merging as the derived tables have them."""
    how = tallies[:, :-1]
    columns = {
        **merge_counts(how),
        "failed_merges": tallies[:, -1],
        "ksm_pages_new": how[:, HOW.index("created")],
    }
    return pd.DataFrame(columns).to_dict("records")


def _counted(tally: _T, row: Mapping[Any, Any]) -> _T:
    """A tally with the numbers of a row of a derived table."""
    tally.merges, tally.zero_merges = int(row["merges"]), int(row["zero_merges"])
    tally.inherited = _known(row["inherited"])
    tally.failed_merges = int(row["failed_merges"])
    tally.stable_pages_created = int(row["ksm_pages_new"])
    return tally


def _known(number: Any) -> int | None:
    return None if pd.isna(number) else int(number)


def _scans(timeline: Timeline, host: list[Row]) -> list[Scan]:
    found = []
    saved_before = _saved(host[0]) if host else None
    for row in timeline.scans.to_dict("records"):
        start, end = _known(row["start_ns"]), _known(row["end_ns"])
        if start is None and end is None:
            # No scan is known to have been under way when the recording began.
            continue
        scan = Scan(
            seq=int(row["seq"]), start_ns=start, end_ns=end, rmap_items=_known(row["items_after"])
        )
        saved = _known(row["pages_saved"])
        if saved is not None and saved_before is not None:
            scan.pages_saved = saved - saved_before
        saved_before = saved_before if saved is None else saved
        found.append(_counted(scan, row))
    return found


def _processes(
    timeline: Timeline, tgids: list[int], tallies: Numbers, counters: list[Row]
) -> list[ProcessSummary]:
    """Processes, those with most merges first."""
    rows = zip(tgids, _rows(tallies), strict=True)
    found = {tgid: _counted(ProcessSummary(tgid=tgid), row) for tgid, row in rows}
    if (unknown := found.get(0)) and not (
        unknown.merges or unknown.zero_merges or unknown.failed_merges
    ):
        del found[0]
    for row in timeline.context.identities:
        process = found.setdefault(row["tgid"], ProcessSummary(tgid=row["tgid"]))
        if row["comm"] is not None:
            process.comm, process.vm, process.cgroup = row["comm"], row["vm"], row["cgroup"]
    samples = [row for row in counters if row["tgid"] is not None]
    copied = holds_parents_counts(
        timeline.stream,
        timeline.context,
        np.array([row["tgid"] for row in samples], np.int64),
        np.array([row["ts"] for row in samples], np.uint64),
    )
    for row, of_parent in zip(samples, copied.tolist(), strict=True):
        process = found.setdefault(row["tgid"], ProcessSummary(tgid=row["tgid"]))
        process.counts_of_parent = of_parent
        for name in _SAMPLED:
            setattr(process, name, None if of_parent and name in COPIED_BY_FORK else row[name])
    return sorted(found.values(), key=lambda p: (-p.merges - p.zero_merges, p.tgid))


def _decisions(stream: Aggregator) -> list[dict[str, int]]:
    names = [*KSM_ADVISOR.fields, "ts"]
    columns = [stream.decisions[name].tolist() for name in names]
    keys = [*KSM_ADVISOR.fields, "ts_ns"]
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


def _add_counters(summary: Summary, host: list[Row]) -> None:
    names = [c.name for c in COUNTERS if c.where != "process"]
    summary.counters_first = {name: host[0][name] for name in names}
    summary.counters_last = {name: host[-1][name] for name in names}
    summary.sampled_s = _sampled_s(host)
    saved_pages = [saved for row in host if (saved := _saved(row)) is not None]
    if saved_pages:
        summary.saved_pages_last, summary.saved_pages_peak = saved_pages[-1], max(saved_pages)


def _times(number: int | None, unit: int) -> int | None:
    return None if number is None else number * unit


def _saved(row: Row) -> int | None:
    """Pages saved as the kernel counts: pages_sharing plus ksm_zero_pages."""
    sharing: int | None = row["pages_sharing"]
    return None if sharing is None else sharing + (row["ksm_zero_pages"] or 0)
