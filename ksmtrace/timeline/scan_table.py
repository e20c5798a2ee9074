"""The table `scans`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.context import Context, Samples
from ksmtrace.timeline.scans import Scan, Scans
from ksmtrace.timeline.tables import HOW, frame

Numbers = npt.NDArray[np.int64]
_VISITS = ("pages_scanned", "pages_skipped")
_KINDS = {name: code for code, name in enumerate(HOW)}


def scans(stream: Aggregator, context: Context, index: Scans, told_in: Numbers) -> pd.DataFrame:
    """The table `scans` (`tables.TABLES`). told_in: as `begun_in` gives."""
    count = len(index.scans)
    how = count_by(told_in, stream.lives.table["how"], count)
    tallies = stream.tallies
    counted = {
        name: np.bincount(index.of_segment[: len(tallies)], tallies[name], minlength=count).astype(
            np.int64
        )
        for name in ("failed_efault", "failed_other", "found_dead", "breaks", "lost")
    }
    start = [scan.start_ns for scan in index.scans]
    end = [scan.end_ns for scan in index.scans]
    columns = {
        "scan": np.arange(count),
        "seq": [scan.seq for scan in index.scans],
        "start_ns": start,
        "end_ns": end,
        "duration_s": [
            None if s is None or e is None else (e - s) / 1e9
            for s, e in zip(start, end, strict=True)
        ],
        "items_before": [scan.items_before for scan in index.scans],
        "items_after": [scan.items_after for scan in index.scans],
        **merge_counts(how),
        "failed_merges": counted["failed_efault"] + counted["failed_other"],
        "failed_efault": counted["failed_efault"],
        "failed_other": counted["failed_other"],
        "ksm_pages_new": how[:, _KINDS["created"]],
        "ksm_pages_dead": counted["found_dead"],
        "breaks": counted["breaks"],
        "lost": counted["lost"],
        **_sampled(context, index),
        "pages_to_scan": _decided(stream, index),
    }
    table = frame("scans", columns)
    # What was under way at the start is a scan only if there was something of it.
    first = table.iloc[0]
    nothing = first["end_ns"] is pd.NA and not any(
        first[name]
        for name in ("merges", "zero_merges", "failed_merges", "ksm_pages_dead", "breaks", "lost")
    )
    return table.iloc[1:].reset_index(drop=True) if nothing else table


def count_by(group: Numbers, how: npt.NDArray[np.uint8], groups: int) -> Numbers:
    """How many lives of each group (below 0: none) began in each way; one row a group."""
    packed = (group + 1) * len(HOW) + how
    counts = np.bincount(packed, minlength=(groups + 1) * len(HOW))
    table: Numbers = counts.reshape(-1, len(HOW))[1 : groups + 1]
    return table


def merge_counts(how: Numbers) -> dict[str, npt.ArrayLike]:
    """The columns about merging, but failures. how: as `count_by` gives."""
    zero, untold = how[:, _KINDS["zero_page"]], how[:, _KINDS["joined_or_inherited"]]
    ours = [code for name, code in _KINDS.items() if name not in ("zero_page", "before")]
    return {
        "merges": how[:, ours].sum(axis=1),
        "inherited": pd.arrays.IntegerArray(how[:, _KINDS["inherited"]].copy(), untold > 0),
        "zero_merges": zero,
    }


def _sampled(context: Context, index: Scans) -> dict[str, list[float | int | None]]:
    """What the samples taken after each scan say, and what changed since the one before.

    Visits are told only of a scan with a sample at either end: where one was missed or came late,
    the change is no longer that of one scan.
    """
    host = context.host
    count = len(index.scans)
    sharing, zero = host.counters["pages_sharing"], host.counters["ksm_zero_pages"]
    saved = sharing + np.nan_to_num(zero)
    ended = [(s.end_ns, s.number) for s in index.scans if s.end_ns is not None]
    ends = np.array([end for end, _ in ended], np.uint64)
    columns: dict[str, list[float | int | None]] = {
        name: [None] * count for name in ("pages_saved", "saved_bytes", "ksmd_cpu_s", *_VISITS)
    }
    before = 0
    for i in range(1, len(host)):
        if host.reason[i] not in ("scan", "step"):
            continue
        at = int(np.searchsorted(ends, host.ts[i], "right")) - 1
        if at < 0:
            before = i
            continue
        number = ended[at][1]
        if _spans(host, before, i, index.scans[number : number + 2]):
            for counter in _VISITS:
                change = host.counters[counter][i] - host.counters[counter][before]
                columns[counter][number] = int(change) if np.isfinite(change) else None
        # What a step of the lab does between two scans is no scan's doing.
        later = host.reason[i] == "step" and columns["pages_saved"][number] is not None
        if np.isfinite(saved[i]) and not later:
            columns["pages_saved"][number] = int(saved[i])
            columns["saved_bytes"][number] = int(saved[i]) * context.page_bytes
        cpu_ns = host.counters["ksmd_cpu_ns"][i] - host.counters["ksmd_cpu_ns"][before]
        if np.isfinite(cpu_ns):
            # Several samples may follow one scan.
            columns["ksmd_cpu_s"][number] = (columns["ksmd_cpu_s"][number] or 0) + cpu_ns / 1e9
        before = i
    return columns


def _spans(host: Samples, first: int, last: int, scans: list[Scan]) -> bool:
    """Whether two samples were taken at the ends of a scan, the last of them after its end.

    scans: it, and the next if any.
    """
    scan = scans[0]
    if scan.start_ns is None or scan.end_ns is None or scan.seq is None:
        return False
    done = host.counters["full_scans"]
    next_ns = scans[1].start_ns if len(scans) > 1 else None
    return bool(
        host.ts[first] <= scan.start_ns
        and (next_ns is None or host.ts[last] <= next_ns)
        and done[first] == scan.seq
        and done[last] == scan.seq + 1
    )


def _decided(stream: Aggregator, index: Scans) -> list[int | None]:
    decided: list[int | None] = [None] * len(index.scans)
    orders, numbers = stream.decisions["order"], stream.decisions["pages_to_scan"]
    segment = np.searchsorted(stream.borders["order"], orders, "right")
    scans_decided = index.of_segment[segment]
    for number, pages in zip(scans_decided.tolist(), numbers.tolist(), strict=True):
        decided[number] = pages
    return decided
