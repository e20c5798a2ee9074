"""The tables about processes and regions: `processes`, `region_ledger` and their histories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.kernel.releases import fork_counts_afresh
from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.context import Context
from ksmtrace.timeline.convergence import FRACTIONS, Growth, growth
from ksmtrace.timeline.ends import Ends
from ksmtrace.timeline.identities import Identity, identities_of
from ksmtrace.timeline.lives import EXIT, STILL_MERGED
from ksmtrace.timeline.owners import spaces_at
from ksmtrace.timeline.page_table import integers
from ksmtrace.timeline.regions import Regions
from ksmtrace.timeline.scan_table import count_by, merge_counts
from ksmtrace.timeline.scans import Scans
from ksmtrace.timeline.sorting import distinct, rows_of, run_starts
from ksmtrace.timeline.tables import frame, whole

Numbers = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
_SAMPLED = ("ksm_rmap_items", "ksm_merging_pages", "ksm_zero_pages", "ksm_process_profit")
COPIED_BY_FORK = ("ksm_rmap_items", "ksm_merging_pages", "ksm_process_profit")
"""What of ksm_stat a child of an older kernel has from its parent. Inherited zero pages are there,
so that `ksm_zero_pages` is right."""


@dataclass(frozen=True)
class Shared:
    """How sharing grew, by address space and by region."""

    of_space: Growth
    of_region: Growth


def shared_growth(stream: Aggregator, ends: Ends, regions: Regions) -> Shared:
    """How sharing grew in each address space and each region."""
    lives = stream.lives.table
    spaces, count = len(stream.spaces.table), len(regions.regions)
    space = lives["space"]
    # What a process shares in the end is what its exit ended.
    lasting = (ends.end == STILL_MERGED) | (ends.end == EXIT)
    placed = regions.of_life >= 0
    inside = rows_of(placed)
    region = regions.of_life[inside]
    of_region = np.bincount(regions.of_life[lasting & placed], minlength=count)
    of_space = np.bincount(space[lasting], minlength=spaces)
    begun, over = lives["merged_ts"], ends.before
    by_region = growth(region, begun[inside], over[inside], count, of_region)
    owners = np.array([region.space for region in regions.regions], np.int64)
    if placed.all() and len(np.unique(owners)) == count:
        # Each process merges in one region, as is usual: they grow alike.
        by_space = by_region.placed(owners, spaces)
    else:
        by_space = growth(space, begun, over, spaces, of_space)
    return Shared(by_space, by_region)


def processes(stream: Aggregator, context: Context, ends: Ends, shared: Shared) -> pd.DataFrame:
    """The table `processes` (`tables.TABLES`)."""
    spaces = stream.spaces.table
    count = len(spaces)
    identities = identities_of(stream, context)
    failed = np.zeros(count, np.int64)
    failed[: len(stream.failed_by_space)] = stream.failed_by_space
    entered, exited = spaces["entered_ts"], spaces["exited_ts"]
    parents = spaces["parent_tgid"].astype(np.int64)
    sampled = _last_samples(stream, context)
    broken = np.bincount(stream.breaks["space"], minlength=count)
    group = stream.lives.table["space"]
    return frame(
        "processes",
        {
            "process": np.arange(count),
            "tgid": spaces["tgid"],
            **_names(identities),
            "parent_tgid": integers(parents, parents > 0),
            "entered_ns": integers(entered.view(np.int64), entered > 0),
            "exited_ns": integers(exited.view(np.int64), exited > 0),
            **_summed(stream, ends, group, count, failed, broken, entered, shared.of_space),
            **{name: sampled[name] for name in _SAMPLED[:3]},
            "profit_bytes": sampled["ksm_process_profit"],
        },
    )


def _names(identities: list[Identity]) -> dict[str, list[str | None]]:
    return {
        "comm": [i.comm for i in identities],
        "cgroup": [i.cgroup for i in identities],
        "vm": [i.vm for i in identities],
    }


def _summed(
    stream: Aggregator,
    ends: Ends,
    group: Numbers,
    groups: int,
    failed: Numbers,
    broken: Numbers,
    since: U64,
    grown: Growth,
) -> dict[str, Any]:
    """The columns that processes and regions share. group: of each life, -1 for none.

    since: from when on each group's convergence is measured; 0: from its first merge.
    """
    lives = stream.lives.table
    begun = lives["merged_ts"]
    going_on = ends.end == STILL_MERGED
    start = since
    if not since.all():
        first = np.full(groups, np.iinfo(np.uint64).max)
        known = np.flatnonzero((begun > 0) & (group >= 0))
        np.minimum.at(first, group[known], begun[known])
        start = np.where(since > 0, since, first)
    times = {}
    for percent in FRACTIONS:
        moment = grown.reached[percent]
        # A moment is rounded down to a microsecond.
        seconds = np.maximum(moment.astype(np.float64) - start.astype(np.float64), 0) / 1e9
        times[f"time_to_{percent}_s"] = pd.arrays.FloatingArray(seconds, moment == 0)
    all_of_them = np.bincount(group + 1, minlength=groups + 1)[1:]
    last = np.bincount(group[going_on & (group >= 0)], minlength=groups)
    return {
        **merge_counts(count_by(group, lives["how"], groups)),
        "failed_merges": failed,
        "breaks": broken,
        "ended": all_of_them - last,
        "merged_last": last,
        "merged_peak": grown.peak,
        **times,
    }


def _last_samples(stream: Aggregator, context: Context) -> dict[str, pd.arrays.IntegerArray]:
    """Each address space's last sample of ksm_stat."""
    samples = context.processes
    count = len(stream.spaces.table)
    space = spaces_at(stream.spaces.table, samples.tgid, samples.ts)
    columns = {}
    copied = holds_parents_counts(stream, context, samples.tgid, samples.ts)
    for name in _SAMPLED:
        values = np.full(count, np.nan)
        known = (space >= 0) & np.isfinite(samples.counters[name])
        if name in COPIED_BY_FORK:
            known &= ~copied
        # In time's order: the last one stays.
        values[space[known]] = samples.counters[name][known]
        columns[name] = whole(values)
    return columns


def holds_parents_counts(
    stream: Aggregator, context: Context, tgid: npt.NDArray[np.integer], ts: U64
) -> npt.NDArray[np.bool_]:
    """Which samples of ksm_stat also hold what a parent had merged when it forked.

    Up to Linux 6.18 (6.12.117) a forked child begins with its parent's numbers, though none of
    its pages has been counted: what of them is its own can't be told (`COPIED_BY_FORK`).
    """
    if fork_counts_afresh(str(context.manifest.get("kernel"))):
        return np.zeros(len(tgid), np.bool_)
    spaces = stream.spaces.table
    space = spaces_at(spaces, tgid, ts)
    copied = space >= 0
    copied[copied] = spaces["parent_tgid"][space[copied]] > 0
    return copied


@dataclass(frozen=True)
class _History:
    """Of each scan in which a group changed, by group and scan; merged: at its end."""

    group: Numbers
    scan: Numbers
    merged: Numbers
    merges: Numbers
    ended: Numbers


_SCAN_BITS = np.uint64(32)


def _history(ends: Ends, index: Scans, merged_in: Numbers, group: Numbers) -> _History:
    """When groups changed; group: of each life, -1 for none. Only changes take memory."""
    inside = rows_of(group >= 0)
    over = np.flatnonzero((ends.end != STILL_MERGED) & (group >= 0))
    # Scan -1 is what was merged before; so that it sorts first all are one higher.
    begun = _packed(group[inside], merged_in[inside] + 1)
    gone = _packed(group[over], index.at(ends.before[over]) + 1)
    begun.sort()
    gone.sort()
    moments = distinct(np.concatenate((distinct(begun), distinct(gone))))
    merges = _counts(begun, moments)
    ended = _counts(gone, moments)
    which = (moments >> _SCAN_BITS).astype(np.int64)
    scan = (moments & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1
    merged = np.cumsum(merges - ended)
    starts = run_starts(which)
    before = np.concatenate(([0], merged))[starts]
    merged -= np.repeat(before, np.diff(np.append(starts, len(which))))
    shown = scan >= 0
    return _History(which[shown], scan[shown], merged[shown], merges[shown], ended[shown])


def _packed(group: Numbers, scan: Numbers) -> U64:
    packed: U64 = group.astype(np.uint64)
    packed <<= _SCAN_BITS
    packed |= scan.astype(np.uint64)
    return packed


def _counts(values: U64, keys: U64) -> Numbers:
    """How often each key is among sorted values."""
    counts: Numbers = np.searchsorted(values, keys, "right") - np.searchsorted(values, keys, "left")
    return counts


def process_history(
    stream: Aggregator, context: Context, index: Scans, ends: Ends, merged_in: Numbers
) -> pd.DataFrame:
    """The table `process_history` (`tables.TABLES`)."""
    history = _history(ends, index, merged_in, stream.lives.table["space"])
    samples = context.processes
    space = spaces_at(stream.spaces.table, samples.tgid, samples.ts)
    profits = samples.counters["ksm_process_profit"]
    copied = holds_parents_counts(stream, context, samples.tgid, samples.ts)
    known = np.flatnonzero((space >= 0) & np.isfinite(profits) & ~copied)
    sampled = _packed(space[known], index.at(samples.ts[known]))
    # In time's order: of one scan's samples the last one counts.
    order = np.argsort(sampled, kind="stable")
    at = np.searchsorted(sampled[order], _packed(history.group, history.scan), "right") - 1
    found = at >= 0
    found[found] = sampled[order][at[found]] == _packed(history.group, history.scan)[found]
    profit = np.zeros(len(at), np.int64)
    profit[found] = profits[known][order][at[found]].astype(np.int64)
    return frame(
        "process_history",
        {
            "process": integers(history.group.astype(np.int32), history.group >= 0),
            "scan": history.scan,
            "merged": history.merged,
            "merges": history.merges,
            "ended": history.ended,
            "saved_bytes": history.merged * context.page_bytes,
            "profit_bytes": integers(profit, found),
        },
    )


def region_ledger(
    stream: Aggregator, context: Context, ends: Ends, regions: Regions, shared: Shared
) -> pd.DataFrame:
    """The table `region_ledger` (`tables.TABLES`). Failed tries are not told by region."""
    found = regions.regions
    count = len(found)
    life = stream.lives.written["life"]
    broken_in = regions.of_life[life]
    broken = np.bincount(broken_in[broken_in >= 0], minlength=count)
    space = np.array([region.space for region in found], np.int64)
    since = stream.spaces.table["entered_ts"][space] if count else np.empty(0, np.uint64)
    nothing = np.zeros(count, np.int64)
    return frame(
        "region_ledger",
        {
            "process": integers(space.astype(np.int32), space >= 0),
            "tgid": np.array([region.tgid for region in found], np.uint32),
            "start": np.array([region.start for region in found], np.uint64),
            "end": np.array([region.end for region in found], np.uint64),
            "name": [region.name for region in found],
            "pages": np.array([(r.end - r.start) // context.page_bytes for r in found], np.int64),
            **_summed(
                stream, ends, regions.of_life, count, nothing, broken, since, shared.of_region
            ),
        },
    )


def region_history(
    context: Context,
    index: Scans,
    ends: Ends,
    merged_in: Numbers,
    regions: Regions,
) -> pd.DataFrame:
    """The table `region_history` (`tables.TABLES`)."""
    history = _history(ends, index, merged_in, regions.of_life)
    return frame(
        "region_history",
        {
            "region": history.group,
            "scan": history.scan,
            "merged": history.merged,
            "merges": history.merges,
            "ended": history.ended,
            "saved_bytes": history.merged * context.page_bytes,
        },
    )
