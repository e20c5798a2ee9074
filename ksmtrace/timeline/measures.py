"""What a recording amounts to: each figure that two recordings are compared by, declared once.

A figure that a recording can't give is `Missing`, with the reason; it is never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ksmtrace.kernel.sysfs import KNOBS_BY_NAME
from ksmtrace.timeline.build import Timeline
from ksmtrace.timeline.context import Samples
from ksmtrace.timeline.convergence import FRACTIONS, growth
from ksmtrace.timeline.host_figures import (
    GIB,
    NOTHING_SAVED,
    Floats,
    HostFigures,
    Measure,
    Missing,
    Value,
    cpu,
    cpu_per_gib,
    cpu_share,
    divided,
)


class Figures(HostFigures):
    """One recording, asked for its figures."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.manifest = timeline.recording.manifest
        super().__init__(str(self.manifest.get("kernel")), timeline.context.page_bytes)

    @property
    def host(self) -> Samples:
        """The host's samples."""
        return self.timeline.context.host

    @cached_property
    def duration_s(self) -> Value:
        """Seconds recorded; of a recording that was cut, until its last event or sample."""
        stored = self.manifest.get("duration_s")
        if stored:
            return float(stored)
        last = max([self.timeline.stream.last_ts, *self.timeline.context.host.ts[-1:].tolist()])
        seconds = (last - self.timeline.context.begin_ns) / 1e9
        return seconds if seconds > 0 else Missing("nothing was recorded")

    @cached_property
    def scans(self) -> pd.DataFrame:
        """The table `scans`."""
        return self.timeline.scans

    @cached_property
    def scanning_s(self) -> Value:
        """Seconds of the full scans that were recorded from start to end."""
        seconds = float(self.scans["duration_s"].sum())
        return seconds if seconds > 0 else Missing("no full scan was recorded")

    def of_scans(self, *names: str) -> float:
        """The sum of columns over the full scans that were recorded from start to end."""
        whole = self.scans[self.scans["duration_s"].notna()]
        return float(whole[list(names)].sum().sum())

    @cached_property
    def reached(self) -> dict[int, Value]:
        """Seconds from the recording's begin until that many percent of the final sharing stood."""
        pages = self.timeline.pages
        final = int((pages["end"] == "still_merged").sum())
        begun = pages["merged_ns"].fillna(0).to_numpy(np.uint64)
        ended = pages["ended_before_ns"].fillna(0).to_numpy(np.uint64)
        found = growth(np.zeros(len(pages), np.int64), begun, ended, 1, np.array([final]))
        if not final:
            return dict.fromkeys(found.reached, Missing("nothing was merged at the end"))
        before = Missing("that much was merged before the recording")
        begin = self.timeline.context.begin_ns
        return {
            percent: (float(moment[0]) - begin) / 1e9 if moment[0] else before
            for percent, moment in found.reached.items()
        }

    @cached_property
    def advised(self) -> pd.DataFrame | Missing:
        """The table `advisor`, if it has rows."""
        table = self.timeline.advisor
        if len(table):
            return table
        since = KNOBS_BY_NAME["advisor_mode"].since
        if self.older_than(since):
            return Missing(f"the advisor came with Linux {since}")
        return Missing("the advisor decided nothing")

    @cached_property
    def cow(self) -> Missing | None:
        """Why writes to merged pages were not watched, if they were not."""
        return None if self.manifest.get("cow") else Missing("recorded without --cow")


def _rate(name: str) -> Callable[[Figures], Value]:
    def of(figures: Figures) -> Value:
        grown = figures.grown(name)
        return grown if isinstance(grown, Missing) else grown[0] / grown[1]

    return of


def _visits(figures: Figures) -> Value:
    if figures.older_than("6.10") and not figures.older_than("6.6"):
        return Missing("pages_scanned is wrong before Linux 6.10")
    grown = figures.grown("pages_scanned")
    return grown if isinstance(grown, Missing) else grown[0]


def _visit_rate(figures: Figures) -> Value:
    visits = _visits(figures)
    grown = figures.grown("pages_scanned")
    return visits if isinstance(grown, Missing) else divided(visits, grown[1])


def _cpu_per_gib_hour(figures: Figures) -> Value:
    share = cpu_share(figures)
    seconds = share if isinstance(share, Missing) else share / 100 * 3600
    return divided(seconds, figures.saved_mean, GIB, NOTHING_SAVED)


def _saved(pick: Callable[[Floats], Any]) -> Callable[[Figures], Value]:
    def of(figures: Figures) -> Value:
        return (
            figures.saved if isinstance(figures.saved, Missing) else float(pick(figures.saved[1]))
        )

    return of


def _merges_while_scanning(figures: Figures) -> Value:
    return divided(figures.of_scans("merges", "zero_merges"), figures.scanning_s)


def _scan_rate(figures: Figures) -> Value:
    return divided(float(figures.scans["end_ns"].notna().sum()), figures.duration_s)


def _scan_median(figures: Figures) -> Value:
    if isinstance(figures.scanning_s, Missing):
        return figures.scanning_s
    return float(figures.scans["duration_s"].median())


def _inherited(figures: Figures) -> Value:
    inherited = figures.scans["inherited"]
    if inherited.isna().any():
        return Missing("inherited merges can't be told from others")
    merges = float(figures.scans["merges"].sum())
    return divided(float(inherited.sum()), merges, 100, "nothing was merged")


def _failed(figures: Figures) -> Value:
    columns = ("failed_merges", "merges", "zero_merges")
    failed, merges, zero = (float(figures.scans[name].sum()) for name in columns)
    return divided(failed, failed + merges + zero, 100, "nothing was tried")


def _ended(figures: Figures) -> Value:
    ended = figures.timeline.pages["end"] != "still_merged"
    return divided(float(ended.sum()), figures.duration_s)


def _breaks(figures: Figures) -> Value:
    return figures.cow or divided(float(len(figures.timeline.breaks)), figures.duration_s)


def _advised(pick: Callable[[pd.DataFrame], Any]) -> Callable[[Figures], Value]:
    def of(figures: Figures) -> Value:
        table = figures.advised
        return table if isinstance(table, Missing) else float(pick(table))

    return of


def _agrees(figures: Figures) -> Value:
    if isinstance(figures.advised, Missing):
        return figures.advised
    known = figures.advised["agrees"].dropna()
    return float(100 * known.mean()) if len(known) else Missing("its inputs are not known")


def _lost(figures: Figures) -> Value:
    lost = float(figures.timeline.stream.losses["count"].sum())
    unknown = not lost and figures.manifest.get("loss_known") is False
    return Missing("the text does not tell losses") if unknown else lost


def _residual(figures: Figures) -> Value:
    known = figures.timeline.accounts["residual"].dropna()
    if len(known):
        return float(known.abs().max())
    some = figures.manifest.get("only_pids")
    return Missing("only some processes recorded" if some else "no counters were sampled")


def _convergence(percent: int) -> Measure[Figures]:
    return Measure(
        "convergence",
        f"time_to_{percent}_percent_s",
        f"{percent} % of final sharing after",
        "s",
        lambda figures: figures.reached[percent],
        f"from the recording's begin until {percent} % of what was merged at its end stood",
        "less",
    )


MEASURES: tuple[Measure[Figures], ...] = (
    Measure("rates", "merges_per_s_of_scanning", "merges a second of scanning", "per_s",
            _merges_while_scanning,
            "merges, onto the zero page too, in full scans recorded whole, by their time"),
    Measure("rates", "pages_scanned_per_s", "pages visited a second", "per_s", _visit_rate,
            "growth of `pages_scanned`"),
    Measure("rates", "pages_skipped_per_s", "pages skipped a second", "per_s",
            _rate("pages_skipped"), "growth of `pages_skipped`: what smart scan spared"),
    Measure("rates", "scans_per_s", "full scans a second", "per_s", _scan_rate,
            "full scans whose end was recorded"),
    Measure("rates", "scan_median_s", "a full scan took (median)", "s", _scan_median,
            "median time of the full scans recorded whole"),
    Measure("savings", "saved_mean_bytes", "saved, mean over time", "bytes",
            lambda figures: figures.saved_mean,
            "`pages_sharing + ksm_zero_pages` in bytes; each sample counts until the next", "more"),
    Measure("savings", "saved_peak_bytes", "saved at most", "bytes", _saved(np.max),
            "the highest sample", "more"),
    Measure("savings", "saved_last_bytes", "saved at the end", "bytes", _saved(lambda s: s[-1]),
            "the last sample", "more"),
    Measure("savings", "pages_shared_last", "KSM pages at the end", "number",
            lambda figures: figures.last("pages_shared"), "`pages_shared` of the last sample"),
    Measure("savings", "pages_sharing_last", "further mappings of them", "number",
            lambda figures: figures.last("pages_sharing"), "`pages_sharing` of the last sample",
            "more"),
    Measure("savings", "zero_pages_last", "zero pages at the end", "number",
            lambda figures: figures.last("ksm_zero_pages"), "`ksm_zero_pages` of the last sample"),
    Measure("savings", "profit_last_bytes", "profit at the end", "bytes",
            lambda figures: figures.last("general_profit"),
            "`general_profit`: saved, less the memory of all rmap_items", "more"),
    *(_convergence(percent) for percent in FRACTIONS),
    Measure("cost", "ksmd_cpu_s", "ksmd's CPU", "cpu_s", cpu,
            "CPU time of ksmd between the first and the last sample", "less", scales=True),
    Measure("cost", "ksmd_cpu_percent", "ksmd's share of a core", "percent", cpu_share,
            "the same in percent of the time", "less"),
    Measure("cost", "ksmd_cpu_s_per_gib", "CPU a GiB saved", "cpu_s", cpu_per_gib,
            "ksmd's CPU seconds by the GiB saved, mean over time", "less", scales=True),
    Measure("cost", "ksmd_cpu_s_per_gib_hour", "CPU a GiB saved for an hour", "cpu_s",
            _cpu_per_gib_hour, "the same, by the hours recorded: compares whatever the length",
            "less"),
    Measure("cost", "ksmd_cpu_us_per_visit", "CPU a page visited", "us",
            lambda figures: divided(cpu(figures), _visits(figures), 1e6, "no page was visited"),
            "ksmd's CPU by the growth of `pages_scanned`", "less"),
    Measure("churn", "ended_per_s", "ends of merged pages a second", "per_s", _ended,
            "ended lives of the table `pages`, as far as known", "less"),
    Measure("churn", "copies_per_s", "copied a second", "per_s", _rate("cow_ksm"),
            "growth of vmstat's `cow_ksm`: KSM pages copied, whoever wrote", "less"),
    Measure("churn", "breaks_per_s", "writes seen a second", "per_s", _breaks,
            "rows of the table `breaks`; only with `record --cow`", "less"),
    Measure("churn", "failed_percent", "merges that failed", "percent", _failed,
            "of all tries", "less"),
    Measure("churn", "inherited_percent", "merges inherited by fork", "percent", _inherited,
            "of all merges; they save nothing that the fork did not"),
    Measure("advisor", "advised_pages_last", "pages_to_scan at the end", "number",
            _advised(lambda table: table["pages_to_scan"].iloc[-1]), "the last decision"),
    Measure("advisor", "advised_pages_median", "pages_to_scan (median)", "number",
            _advised(lambda table: table["pages_to_scan"].median()), "of all decisions"),
    Measure("advisor", "advised_scan_mean_s", "it measured scans of (mean)", "s",
            _advised(lambda table: table["scan_time_s"].mean()), "whole seconds, at least 1"),
    Measure("advisor", "advisor_agrees_percent", "decisions as the formula", "percent", _agrees,
            "of those whose inputs are known"),
    Measure("trust", "events_lost", "events lost", "number", _lost,
            "they are missing in all of this", "less"),
    Measure("trust", "residual_most_pages", "pages unaccounted for at most", "number", _residual,
            "highest `residual` of the table `accounts`", "less"),
)  # fmt: skip
"""Every figure, in the order shown."""
