"""A recording in numbers: totals, scans, processes, advisor decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from ksmtrace.events.batch import EventBatch, lost_count, of_kind
from ksmtrace.events.registry import (
    BY_ID,
    KSM_ADVISOR,
    KSM_MERGE_ONE_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
)
from ksmtrace.kernel.releases import checksum_comes_first
from ksmtrace.kernel.sysfs import COUNTERS
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.merges import ClassifiedMerges, MergeClassifier

Counters = dict[str, int | None]


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
    """A process. tgid 0: events whose owner is not known. The rest: its last ksm_stat sample."""

    tgid: int = 0
    comm: str | None = None
    vm: str | None = None
    cgroup: str | None = None
    ksm_rmap_items: int | None = None
    ksm_merging_pages: int | None = None
    ksm_zero_pages: int | None = None
    ksm_process_profit: int | None = None

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
    def ksmd_cpu_s(self) -> float | None:
        """Ksmd's CPU time between the first and the last sample."""
        first, last = (c.get("ksmd_cpu_ns") for c in (self.counters_first, self.counters_last))
        return (last - first) / 1e9 if first is not None and last is not None else None

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
            "notes": self.manifest.get("notes") or [],
        }


def summarise(recording: StoredRecording, batches: Iterable[EventBatch]) -> Summary:
    """Sum a recording up. batches: its events, in any batching.

    Raises KsmtraceError (exit code 4) where a table is damaged.
    """
    return _Summariser(recording).run(batches)


class _Summariser:
    def __init__(self, recording: StoredRecording) -> None:
        self._counters = recording.table("counters").to_pylist()
        self._identities = recording.table("identities").to_pylist()
        census = recording.table("census")
        manifest = recording.manifest
        self.summary = Summary(
            manifest=manifest,
            ended="cut" if recording.cut else manifest["ended"],
            duration_s=manifest.get("duration_s") or 0.0,
            census_pages=census.num_rows,
        )
        self._ended_early = manifest.get("duration_s") is None
        self._processes: dict[int, ProcessSummary] = {}
        # The scan that was under way when the recording began, if one was.
        self._before_any = Scan()
        self._scans = [self._before_any]
        self._scan_begins = [0]
        self._classifier = MergeClassifier(
            first_sight_known="first_sight" not in manifest["fields_unknown"]
            and checksum_comes_first(manifest["kernel"]),
            preexisting=self._preexisting(census),
        )

    def _preexisting(self, census: Any) -> npt.NDArray[np.uint64] | None:
        first: Mapping[str, Any] = next((row for row in self._counters if row["tgid"] is None), {})
        if first.get("pages_shared") == 0:
            return np.empty(0, np.uint64)
        if not census.num_rows:
            return None
        at_start = census.filter(pc.equal(census["reason"], "start"))
        frames: npt.NDArray[np.uint64] = np.unique(at_start["pfn"].to_numpy())
        return frames

    def run(self, batches: Iterable[EventBatch]) -> Summary:
        summary = self.summary
        for batch in batches:
            self._count(batch)
            self._merges(self._classifier.feed(batch), batch)
        self._merges(self._classifier.finish(), None)
        claimed = self._before_any.end_ns is not None
        summary.scans = self._scans if claimed else self._scans[1:]
        self._add_counters()
        self._name_processes()
        summary.processes = sorted(
            self._processes.values(), key=lambda p: (-p.merges - p.zero_merges, p.tgid)
        )
        return summary

    def _count(self, batch: EventBatch) -> None:
        summary = self.summary
        if not len(batch):
            return
        summary.events += len(batch)
        summary.lost += lost_count(batch)
        for kind, count in enumerate(np.bincount(batch["kind"]).tolist()):
            if count:
                name = BY_ID[kind].name if kind in BY_ID else str(kind)
                summary.events_by_kind[name] = summary.events_by_kind.get(name, 0) + count
        summary.stable_pages_removed += int(of_kind(batch, KSM_REMOVE_KSM_PAGE).sum())
        for row in batch[of_kind(batch, KSM_ADVISOR)]:
            summary.advisor.append(
                {name: int(row[f.slot]) for name, f in KSM_ADVISOR.fields.items()}
                | {"ts_ns": int(row["ts"])}
            )
        for row in batch[of_kind(batch, KSM_START_SCAN, KSM_STOP_SCAN)]:
            self._scan_border(row)
        if self._ended_early:
            begin = summary.manifest["clock"]["monotonic_ns"]
            summary.duration_s = max(summary.duration_s, (int(batch["ts"][-1]) - begin) / 1e9)

    def _scan_border(self, row: np.void) -> None:
        seq, ts = int(row["addr"]), int(row["ts"])
        last = self._scans[-1]
        if row["kind"] == KSM_START_SCAN.id:
            self._begin_scan(Scan(seq=seq, start_ns=ts), ts)
            return
        if last is self._before_any and last.end_ns is None:
            last.seq = seq
        elif last.end_ns is not None or last.seq != seq:
            # Its start was lost: it can have begun when the one before ended.
            self._begin_scan(Scan(seq=seq), last.end_ns or self._scan_begins[-1])
        self._scans[-1].end_ns = ts
        self._scans[-1].rmap_items = int(row["arg"])

    def _begin_scan(self, scan: Scan, begin: int) -> None:
        self._scans.append(scan)
        self._scan_begins.append(max(begin, self._scan_begins[-1]))

    def _merges(self, merges: ClassifiedMerges, batch: EventBatch | None) -> None:
        zero = batch[of_kind(batch, KSM_MERGE_ONE_PAGE)] if batch is not None else merges.events[:0]
        zero_failed = zero["err"] < 0
        self._failures(KSM_MERGE_ONE_PAGE.name, zero["err"][zero_failed])
        self._failures("ksm_merge_with_ksm_page", merges.events["err"][merges.failed])
        starts = np.array(self._scan_begins, np.uint64)
        tgids = np.union1d(merges.events["tgid"], zero["tgid"])
        processes = [
            self._processes.setdefault(tgid, ProcessSummary(tgid=tgid)) for tgid in tgids.tolist()
        ]
        for tallies, group in (
            ([self.summary.totals], lambda events: np.zeros(len(events), np.intp)),
            (processes, lambda events: np.searchsorted(tgids, events["tgid"])),
            (self._scans, lambda events: np.searchsorted(starts, events["ts"], "right") - 1),
        ):
            _add(tallies, merges, group(merges.events), zero_failed, group(zero))

    def _failures(self, kind: str, errors: npt.NDArray[np.int32]) -> None:
        for error, count in zip(*np.unique(errors, return_counts=True), strict=True):
            counts = self.summary.failures.setdefault(kind, {})
            counts[int(error)] = counts.get(int(error), 0) + int(count)

    def _add_counters(self) -> None:
        summary = self.summary
        names = [c.name for c in COUNTERS if c.where != "process"]
        host = [row for row in self._counters if row["tgid"] is None]
        if not host:
            return
        summary.counters_first = {name: host[0][name] for name in names}
        summary.counters_last = {name: host[-1][name] for name in names}
        summary.sampled_s = (host[-1]["ts"] - host[0]["ts"]) / 1e9
        if self._ended_early:
            summary.duration_s = max(summary.duration_s, summary.sampled_s)
        saved_pages = [saved for row in host if (saved := _saved(row)) is not None]
        if saved_pages:
            summary.saved_pages_last, summary.saved_pages_peak = saved_pages[-1], max(saved_pages)
        ended = [scan for scan in summary.scans if scan.end_ns is not None]
        ends = np.array([scan.end_ns for scan in ended], np.uint64)
        saved_before = _saved(host[0])
        for row in host[1:]:
            if row["reason"] != "scan":
                continue
            number = int(np.searchsorted(ends, row["ts"], "right")) - 1
            saved = _saved(row)
            if number >= 0 and saved is not None and saved_before is not None:
                ended[number].pages_saved = saved - saved_before
            saved_before = saved

    def _name_processes(self) -> None:
        for row in self._identities:
            process = self._processes.setdefault(row["tgid"], ProcessSummary(tgid=row["tgid"]))
            if row["comm"] is not None:
                process.comm, process.vm, process.cgroup = row["comm"], row["vm"], row["cgroup"]
        for row in self._counters:
            if row["tgid"] is not None:
                process = self._processes.setdefault(row["tgid"], ProcessSummary(tgid=row["tgid"]))
                for name in (
                    "ksm_rmap_items",
                    "ksm_merging_pages",
                    "ksm_zero_pages",
                    "ksm_process_profit",
                ):
                    setattr(process, name, row[name])


def _add(
    tallies: Sequence[Tally],
    merges: ClassifiedMerges,
    group: npt.NDArray[np.intp],
    zero_failed: npt.NDArray[np.bool_],
    zero_group: npt.NDArray[np.intp],
) -> None:
    """Add events to the tallies they belong to; group: which one, -1 for none."""

    def counts(mask: npt.NDArray[np.bool_], groups: npt.NDArray[np.intp]) -> list[int]:
        chosen = groups[mask]
        numbers: list[int] = np.bincount(chosen[chosen >= 0], minlength=len(tallies)).tolist()
        return numbers

    rows = zip(
        tallies,
        counts(merges.stood, group),
        counts(merges.created, group),
        counts(merges.failed, group),
        counts(merges.inherited, group),
        counts(merges.untold, group),
        counts(~zero_failed, zero_group),
        counts(zero_failed, zero_group),
        strict=True,
    )
    for tally, stood, created, failed, inherited, untold, zero, zero_failures in rows:
        tally.merges += stood
        tally.stable_pages_created += created
        tally.failed_merges += failed + zero_failures
        tally.zero_merges += zero
        if untold:
            tally.inherited = None
        elif tally.inherited is not None:
            tally.inherited += inherited


def _times(number: int | None, unit: int) -> int | None:
    return None if number is None else number * unit


def _saved(row: Mapping[str, Any]) -> int | None:
    """Pages saved as the kernel counts: pages_sharing plus ksm_zero_pages."""
    sharing: int | None = row["pages_sharing"]
    return None if sharing is None else sharing + (row["ksm_zero_pages"] or 0)
