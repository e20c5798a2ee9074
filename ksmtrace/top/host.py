"""A live host's counters, read again and again: what `top` shows before anything else is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ksmtrace.kernel.host import CPUS, PAGE_BYTES, kernel_release
from ksmtrace.kernel.sysfs import KSM, PROC, VMSTAT, HostSampler
from ksmtrace.top.figures import Reading, figures_of, merged_pages, saved_pages
from ksmtrace.top.pace import ScanWatch, visits_of
from ksmtrace.top.state import RATE_NS, Moment, Place, Scan, Series, TopState

CELLS = 512
"""Cells of the past that are kept: more than a terminal has columns."""


@dataclass(frozen=True)
class Paths:
    """Where the kernel's files are."""

    ksm: Path = KSM
    vmstat: Path = VMSTAT
    proc: Path = PROC


@dataclass(frozen=True)
class Told:
    """What events told up to a moment. merges, breaks: how many; breaks None without --cow."""

    ns: int
    merges: int
    breaks: int | None


class HostWatch:
    """Samples a host. interval_s: between samples, the length of a cell."""

    def __init__(self, paths: Paths, interval_s: float) -> None:
        self._sampler = HostSampler(paths.ksm, paths.vmstat, paths.proc)
        self._interval_s = interval_s
        self._history: deque[tuple[int, Mapping[str, float]]] = deque()
        self._told: deque[Told] = deque()
        self._cells: dict[str, deque[float | None]] = {
            name: deque(maxlen=CELLS)
            for name in ("merges_per_s", "breaks_per_s", "saved_bytes", "ksmd_percent_of_one_core")
        }
        self._begin_ns: int | None = None
        self.scans = ScanWatch()
        self.place = Place("counters", kernel_release(), PAGE_BYTES, CPUS)
        self._page_bytes = PAGE_BYTES

    def close(self) -> None:
        """Close the files."""
        self._sampler.close()

    def state(self, ns: int, told: Told | None = None, items: float | None = None) -> TopState:
        """What it is like at `ns`, which is now. items: pages on ksmd's list."""
        counters, knobs = self._sampler.counters(), self._sampler.knobs()
        self._begin_ns = ns if self._begin_ns is None else self._begin_ns
        before = self._history[-1] if self._history else None
        told_before = self._told[-1] if self._told else None
        self._history.append((ns, counters))
        while len(self._history) > 2 and self._history[1][0] <= ns - RATE_NS:
            self._history.popleft()
        if told is not None:
            self._told.append(told)
            while len(self._told) > 2 and self._told[1].ns <= ns - RATE_NS:
                self._told.popleft()
        self.scans.sample(ns, counters)
        figures = figures_of(self._reading(self._history[0], (ns, counters), self._told, told))
        if before is not None:
            pair = [told_before] if told_before is not None else []
            cell = self._reading(before, (ns, counters), pair, told)
            self._add_cell(figures_of(cell), counters)
        return TopState(
            place=self.place,
            moment=Moment(ns, self._begin_ns),
            figures=figures,
            knobs=knobs,
            scan=self._scan(ns, items, knobs.get("run")),
            series=Series(self._interval_s, {n: list(c) for n, c in self._cells.items()}),
        )

    def _reading(
        self,
        first: tuple[int, Mapping[str, float]],
        last: tuple[int, Mapping[str, float]],
        told: deque[Told] | list[Told],
        told_now: Told | None,
    ) -> Reading:
        change = {
            name: value - first[1][name] for name, value in last[1].items() if name in first[1]
        }
        since = told[0] if told and told_now is not None else None
        breaks = None
        if since is not None and told_now is not None:
            with suppress(TypeError):
                breaks = told_now.breaks - since.breaks  # type: ignore[operator]  # None is none
        return Reading(
            now=last[1],
            change=change,
            seconds=(last[0] - first[0]) / 1e9,
            page_bytes=self._page_bytes,
            cpus=self.place.cpus,
            merges=told_now.merges - since.merges if since and told_now else None,
            breaks=breaks,
            event_seconds=(told_now.ns - since.ns) / 1e9 if since and told_now else 0.0,
        )

    def _add_cell(self, figures: Mapping[str, float | None], counters: Mapping[str, float]) -> None:
        merges = figures["merges_per_s"]
        if merges is None and merged_pages(counters) is not None:
            net = figures["merged_net_per_s"]
            merges = None if net is None else max(net, 0.0)
        self._cells["merges_per_s"].append(merges)
        self._cells["breaks_per_s"].append(figures["breaks_per_s"])
        saved = saved_pages(counters)
        self._cells["saved_bytes"].append(None if saved is None else saved * self._page_bytes)
        self._cells["ksmd_percent_of_one_core"].append(figures["ksmd_percent_of_one_core"])

    def _scan(self, ns: int, items: float | None, run: str | None) -> Scan:
        first, last = self._history[0], self._history[-1]
        begin, end = visits_of(first[1]), visits_of(last[1])
        seconds = (last[0] - first[0]) / 1e9
        known = begin is not None and end is not None and seconds > 0
        pace = (end - begin) / seconds if known and begin is not None and end is not None else None
        return self.scans.scan(ns, pace, items, run)
