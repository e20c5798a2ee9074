"""What a run amounts to that was only watched, not recorded: each figure of it, declared once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ksmtrace.timeline.context import Samples
from ksmtrace.timeline.host_figures import (
    Floats,
    HostFigures,
    Measure,
    Missing,
    Value,
    cpu,
    cpu_per_gib,
    cpu_share,
)

_NO_PROCESS = Missing("no command and no process was given")


@dataclass(frozen=True)
class ProcessSamples:
    """A process and its descendants, summed, at each sample; NaN where the kernel doesn't tell."""

    ts: npt.NDArray[np.uint64]
    merged_pages: Floats
    profit_bytes: Floats


@dataclass(frozen=True)
class EventCounts:
    """What the events of a run add up to. own_merges: of the watched processes, None if unknown."""

    merges: int
    zero_merges: int
    failed_merges: int
    scans: int
    lost: int
    own_merges: int | None


@dataclass(frozen=True)
class Observation:
    """All that was seen of one run. begin_ns, end_ns: of CLOCK_MONOTONIC.

    lived: how many of the host's samples, the first ones, were taken before the end of the command
    or process; all, if it was not that which ended the run. processes: None where the whole host
    was watched. events: Missing without a capture.
    """

    begin_ns: int
    end_ns: int
    kernel: str
    page_bytes: int
    host: Samples
    lived: int
    processes: ProcessSamples | None
    events: EventCounts | Missing


class RunFigures(HostFigures):
    """One run, asked for its figures."""

    def __init__(self, seen: Observation) -> None:
        super().__init__(seen.kernel, seen.page_bytes)
        self.seen = seen

    @property
    def host(self) -> Samples:
        """The host's samples."""
        return self.seen.host

    @property
    def seconds(self) -> float:
        """How long the run lasted."""
        return (self.seen.end_ns - self.seen.begin_ns) / 1e9

    def saved_at(self, pick: Callable[[Floats], float]) -> Value:
        """One of the samples of what is saved, in bytes, as `pick` takes it.

        What was merged in a process that has ended counts until ksmd comes by: later is chance.
        """
        if isinstance(self.saved, Missing):
            return self.saved
        return float(pick(self.saved[1][: self.seen.lived]))

    @cached_property
    def time_to_90(self) -> Value:
        """Seconds from the begin until 90 % of the highest saving beyond the first sample stood."""
        if isinstance(self.saved, Missing):
            return self.saved
        ts, saved = (column[: self.seen.lived] for column in self.saved)
        gained = saved - saved[0]
        if gained.max() <= 0:
            return Missing("nothing more was saved than at the start")
        at = int(np.argmax(gained >= 0.9 * gained.max()))
        return max(0.0, (float(ts[at]) - self.seen.begin_ns) / 1e9)

    @cached_property
    def full_scans(self) -> Value:
        """Full scans ended meanwhile; run=2, which sets the counter back, costs none."""
        counted = self.counter("full_scans")
        if isinstance(counted, Missing):
            return counted
        known = counted[np.isfinite(counted)]
        steps = np.diff(known)
        return float(np.where(steps >= 0, steps, known[1:]).sum())

    def profit_at(self, pick: Callable[[Floats], float]) -> Value:
        """One of the samples of general_profit."""
        values = self.counter("general_profit")
        if isinstance(values, Missing):
            return values
        lived = values[: self.seen.lived]
        return float(pick(lived[np.isfinite(lived)]))

    def own(self, name: str, pick: Callable[[Floats], float]) -> Value:
        """One of the samples of the watched processes, of those that know it."""
        if self.seen.processes is None:
            return _NO_PROCESS
        values: Floats = getattr(self.seen.processes, name)
        known = values[np.isfinite(values)]
        if not len(known):
            return Missing("the kernel does not tell it of this process")
        return float(pick(known))

    def counted(self, name: str) -> Value:
        """A count of events."""
        if isinstance(self.seen.events, Missing):
            return self.seen.events
        number = getattr(self.seen.events, name)
        if number is None:
            return Missing("this backend does not tell whose page an event is about")
        return float(number)


def _last(values: Floats) -> float:
    return float(values[-1])


def _copies(figures: RunFigures) -> Value:
    grown = figures.grown("cow_ksm")
    return grown if isinstance(grown, Missing) else grown[0]


def _own_merges(figures: RunFigures) -> Value:
    return _NO_PROCESS if figures.seen.processes is None else figures.counted("own_merges")


def _full_scans(figures: RunFigures) -> Value:
    return figures.full_scans


def _lost(figures: RunFigures) -> Value:
    return figures.counted("lost")


def _in_pages(value: Value, figures: RunFigures) -> Value:
    return value if isinstance(value, Missing) else value / figures.page_bytes


def _in_bytes(value: Value, figures: RunFigures) -> Value:
    return value if isinstance(value, Missing) else value * figures.page_bytes


def _of_pages(
    group: str,
    name: str,
    words: str,
    of: Callable[[RunFigures], Value],
    meaning: str,
) -> tuple[Measure[RunFigures], Measure[RunFigures]]:
    """A figure in bytes, and the same in pages. of: gives bytes."""
    return (
        Measure(group, f"{name}_bytes", words, "bytes", of, meaning, "more"),
        Measure(group, f"{name}_pages", f"{words}, pages", "number",
                lambda figures: _in_pages(of(figures), figures), "the same in pages", "more"),
    )  # fmt: skip


STAT_MEASURES: tuple[Measure[RunFigures], ...] = (
    Measure("time", "duration_s", "ran for", "s", lambda f: f.seconds,
            "from the command's start, or from the first sample, to the end"),
    Measure("time", "time_to_90_percent_s", "90 % of peak after", "s", lambda f: f.time_to_90,
            "until the host saved 90 % of the most that it saved beyond the first sample", "less"),
    *_of_pages("savings", "saved_peak", "saved at most", lambda f: f.saved_at(np.max),
               "highest sample of the host's `pages_sharing + ksm_zero_pages`"),
    *_of_pages("savings", "saved_last", "saved at the end", lambda f: f.saved_at(_last),
               "the last sample; where a command or process ended the run, the last before that"),
    *_of_pages("savings", "saved_first", "saved at the start", lambda f: f.saved_at(lambda v: v[0]),
               "the first sample: others' savings"),
    Measure("savings", "saved_mean_bytes", "saved, mean", "bytes",
            lambda f: f.saved_mean, "mean over time: each sample counts until the next", "more"),
    Measure("savings", "profit_peak_bytes", "profit at most", "bytes",
            lambda f: f.profit_at(np.max),
            "highest sample of `general_profit`: saved, less the memory of rmap_items", "more"),
    Measure("savings", "profit_last_bytes", "profit at the end", "bytes",
            lambda f: f.profit_at(_last), "the last sample", "more"),
    *_of_pages("process", "process_merged_peak", "merged at most",
               lambda f: _in_bytes(f.own("merged_pages", np.max), f),
               "highest sum of `ksm_merging_pages + ksm_zero_pages` of the command or process and"
               " its descendants"),
    *_of_pages("process", "process_merged_last", "merged at its end",
               lambda f: _in_bytes(f.own("merged_pages", _last), f),
               "the last sample in which one of them lived"),
    Measure("process", "process_profit_peak_bytes", "its profit at most", "bytes",
            lambda f: f.own("profit_bytes", np.max), "highest sum of `ksm_process_profit`", "more"),
    Measure("process", "process_merges", "its merges", "number", _own_merges,
            "of `merges` and `zero_merges` those in pages of these processes"),
    Measure("work", "merges", "merges", "number", lambda f: f.counted("merges"),
            "pages attached to a KSM page that stayed so, on the whole host"),
    Measure("work", "zero_merges", "zero merges", "number",
            lambda f: f.counted("zero_merges"), "pages mapped to the zero page"),
    Measure("work", "failed_merges", "failed merges", "number",
            lambda f: f.counted("failed_merges"), "tries that the kernel gave up", "less"),
    Measure("work", "copies", "breaks: pages copied", "number", _copies,
            "growth of vmstat's `cow_ksm`: KSM pages copied, whoever wrote", "less"),
    Measure("work", "full_scans", "full scans", "number", _full_scans,
            "growth of `full_scans`"),
    Measure("cost", "ksmd_cpu_s", "ksmd's CPU", "cpu_s", cpu,
            "CPU time of ksmd between the first and the last sample", "less"),
    Measure("cost", "ksmd_cpu_percent", "ksmd, of one core", "percent", cpu_share,
            "the same in percent of the time", "less"),
    Measure("cost", "ksmd_cpu_s_per_gib", "CPU a GiB saved", "cpu_s", cpu_per_gib,
            "ksmd's CPU seconds by the GiB saved, mean over time: as in `ksmtrace diff`", "less"),
    Measure("trust", "events_lost", "events lost", "number", _lost,
            "they are missing in the merges", "less"),
)  # fmt: skip
"""Every figure, in the order shown."""

STAT_MEASURES_BY_NAME = {measure.name: measure for measure in STAT_MEASURES}
JUDGED = tuple(
    measure.name
    for measure in STAT_MEASURES
    if not measure.name.endswith("_pages")
    and not measure.name.startswith(("saved_first", "events_lost"))
)
"""Those that `--ab` compares: not the same thing twice, nor what no setting decides."""


def figures_of(seen: Observation) -> dict[str, Value]:
    """Every figure of a run, by name."""
    figures = RunFigures(seen)
    return {measure.name: measure.of(figures) for measure in STAT_MEASURES}
