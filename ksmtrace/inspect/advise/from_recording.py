"""The facts that a recording holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from ksmtrace.inspect.advise.advice import SharedBy
from ksmtrace.inspect.advise.domains import shared_by
from ksmtrace.inspect.advise.facts import Facts, Process, Series, Writer
from ksmtrace.kernel.sysfs import COUNTERS
from ksmtrace.recording.reader import StoredRecording, is_cut
from ksmtrace.timeline.build import Timeline, timeline_of
from ksmtrace.timeline.sharing import mapped_by
from ksmtrace.timeline.summary import Summary, summarise

_STEPPED_MS = 3_600_000
"""A sleep of an hour or more: ksmd is parked, and somebody wakes it for a scan at a time."""


def facts_of_recording(recording: StoredRecording) -> Facts:
    """What is known of the host that was recorded.

    Raises KsmtraceError (exit code 4) where a table is damaged.
    """
    timeline = timeline_of(recording)
    return facts_of_timeline(recording, timeline, summarise(timeline))


def facts_of_timeline(recording: StoredRecording, timeline: Timeline, summary: Summary) -> Facts:
    """The same, where the timeline and the summary are there already."""
    manifest = recording.manifest
    host = timeline.context.host
    knobs = _knobs(timeline)
    stepped = _is_long(knobs.get("sleep_millisecs"))
    scans, merges = _scans(timeline)
    item = manifest.get("rmap_item_bytes")
    return Facts(
        source=str(recording.path),
        kernel=str(manifest["kernel"]),
        kernel_build=str(manifest.get("kernel_build") or ""),
        live=False,
        series=Series(
            (host.ts - host.ts[:1]).astype(np.float64) / 1e9 if len(host) else np.empty(0),
            {c.name: host.counters[c.name] for c in COUNTERS if c.where != "process"},
        ),
        knobs=knobs,
        page_bytes=timeline.context.page_bytes,
        rmap_item_bytes=item if isinstance(item, int) else None,
        cpus=manifest.get("cpus"),
        memory_bytes=manifest.get("memory_bytes"),
        observed_s=summary.duration_s,
        stepped=stepped,
        copies_by_order=stepped or "2" in host.knobs["run"].tolist(),
        processes=_processes(timeline, summary),
        scan_s=None if stepped else _scan_s(timeline),
        scans=scans,
        merges=merges,
        writers=_writers(timeline, recording),
        zero_filled=_zero_filled(recording),
        mergeable_bytes=_mergeable_bytes(timeline),
        shared=_shared(timeline),
        unknown=_unknown(timeline, summary),
    )


def _is_long(milliseconds: str | None) -> bool:
    try:
        return milliseconds is not None and int(milliseconds) >= _STEPPED_MS
    except ValueError:
        return False


def _knobs(timeline: Timeline) -> dict[str, str]:
    """Each knob as it was sampled last; without samples as the manifest has it."""
    stored = timeline.recording.manifest.get("knobs")
    knobs = {str(k): str(v) for k, v in stored.items()} if isinstance(stored, dict) else {}
    for name, values in timeline.context.host.knobs.items():
        known = [value for value in values.tolist() if value is not None]
        if known:
            knobs[name] = known[-1]
    return knobs


def _scan_s(timeline: Timeline) -> float | None:
    """How long a full scan took lately: the median in the second half of the time; or the last."""
    whole = timeline.scans[timeline.scans["duration_s"].notna()]
    if not len(whole):
        return None
    ends = whole["end_ns"].astype("int64")
    middle = (timeline.context.begin_ns + int(ends.iloc[-1])) / 2
    late = whole["duration_s"][ends >= middle]
    # Of an imported text the clock may be another one than the recording's.
    return float((late if len(late) else whole["duration_s"]).median())


def _scans(timeline: Timeline) -> tuple[int, int | None]:
    """How many whole scans there were, and the merges in all that no fork had done before."""
    table = timeline.scans
    whole = int(table["duration_s"].notna().sum())
    if not len(table):
        return whole, None
    merged = int(table["merges"].sum() + table["zero_merges"].sum())
    inherited = table["inherited"]
    return whole, merged - (0 if inherited.isna().any() else int(inherited.sum()))


def _owners_known(timeline: Timeline) -> bool:
    return "tgid" not in timeline.recording.manifest["fields_unknown"]


def _processes(timeline: Timeline, summary: Summary) -> tuple[Process, ...] | None:
    if not _owners_known(timeline) and not any(p.tgid for p in summary.processes):
        return None
    watched = bool(timeline.recording.manifest.get("cow"))
    broken = Counter(timeline.breaks["tgid"].tolist() if watched else ())
    return tuple(
        Process(
            tgid=p.tgid,
            comm=p.comm,
            vm=p.vm,
            cgroup=p.cgroup,
            rmap_items=p.ksm_rmap_items,
            merging_pages=p.ksm_merging_pages,
            zero_pages=p.ksm_zero_pages,
            profit_bytes=None if p.counts_of_parent else p.ksm_process_profit,
            breaks=broken.get(p.tgid),
        )
        for p in summary.processes
        if p.tgid
    )


def _writers(timeline: Timeline, recording: StoredRecording) -> tuple[Writer, ...] | None:
    if not recording.manifest.get("cow"):
        return None
    from ksmtrace.timeline.breaks import top_writers

    return tuple(
        Writer(
            tgid=int(row["tgid"]),
            comm=None,
            where=_place(row),
            breaks=int(row["breaks"]),
        )
        for row in top_writers(timeline).head(8).to_dict("records")
    )


def _place(row: dict[Any, Any]) -> str | None:
    if pd.isna(row["file"]):
        return None
    name = str(row["file"]).rpartition("/")[2]
    if not pd.isna(row["symbol"]):
        return f"{row['symbol']} in {name}"
    return name if pd.isna(row["offset"]) else f"{name}+{int(row['offset']):#x}"


def _zero_filled(recording: StoredRecording) -> int | None:
    """Pages of zeros on ksmd's list at the last look, where contents were recorded."""
    try:
        contents, ranks = recording.table("contents"), recording.table("ranks")
    except KeyError:
        return None
    if not len(contents) or not len(ranks):
        return None
    last = contents.to_pandas().drop_duplicates(["tgid", "addr"], keep="last")
    order = ranks.to_pandas()
    return int(last["digest"].isin(order.loc[order["zero"].fillna(value=False), "digest"]).sum())


def _mergeable_bytes(timeline: Timeline) -> int | None:
    """The size of the opted-in mappings, each as it was seen last."""
    rows = timeline.context.regions
    if not rows:
        return None
    last = {(row["tgid"], row["start"]): row for row in rows}
    return sum(int(row["end"] - row["start"]) for row in last.values() if row["mergeable"])


def _shared(timeline: Timeline) -> tuple[SharedBy, ...] | None:
    if not _owners_known(timeline) or not len(timeline.processes):
        return None
    found = []
    for by in ("vm", "cgroup"):
        pages, groups, names = mapped_by(timeline, by)
        if names:
            words = [str(name) for name in names]
            found.append(shared_by(by, pages, groups, words, timeline.context.page_bytes))
    return tuple(found)


def _unknown(timeline: Timeline, summary: Summary) -> tuple[str, ...]:
    manifest, said = summary.manifest, []
    if not len(timeline.context.host):
        said.append("savings, cost and settings: no counters were recorded.")
    if is_cut(dict(manifest)):
        said.append("what came later: the recording was cut.")
    if summary.lost:
        said.append(
            f"{summary.lost:,} lost events: who shares with whom and what scans merged is"
            " incomplete; the counters are whole."
        )
    elif not summary.loss_known:
        said.append("whether events were lost: the text doesn't tell.")
    if not _owners_known(timeline):
        who = "imported text" if manifest.get("imported_from") else "this backend"
        said.append(f"who shares with whom: {who} doesn't tell whose pages are merged.")
    if manifest.get("only_pids"):
        said.append("other processes than those recorded (--pid).")
    return tuple(said)
