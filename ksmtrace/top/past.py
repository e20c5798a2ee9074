"""The host's counters of a recording, at any moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ksmtrace.kernel.sysfs import chosen
from ksmtrace.timeline.context import Samples
from ksmtrace.top.figures import Reading, figures_of
from ksmtrace.top.lives import U64
from ksmtrace.top.table import Floats, Numbers


@dataclass(frozen=True)
class Sampled:
    """What the samples say of a moment."""

    figures: dict[str, float | None]
    knobs: dict[str, str]


class Past:
    """Figures from samples: a counter is what the last sample before said.

    A counter that only grows is taken to have grown evenly between two samples, for rates.
    """

    def __init__(self, host: Samples, page_bytes: int, cpus: int | None) -> None:
        self._host = host
        self._page_bytes = page_bytes
        self._cpus = cpus
        self._known: dict[str, tuple[U64, Floats]] = {}
        for name, values in host.counters.items():
            there = np.isfinite(values)
            if there.any():
                self._known[name] = host.ts[there], values[there]

    def at(self, ns: int, since: int, merges: int, breaks: int | None) -> Sampled:
        """The figures at a moment. merges, breaks: by events since `since`."""
        now: dict[str, float] = {}
        change: dict[str, float] = {}
        for name, (ts, values) in self._known.items():
            at = int(np.searchsorted(ts, np.uint64(ns), "right")) - 1
            if at >= 0:
                now[name] = float(values[at])
                change[name] = float(np.diff(_between(ts, values, np.array([since, ns])))[0])
        seconds = (ns - since) / 1e9
        reading = Reading(
            now, change, seconds, self._page_bytes, self._cpus, merges, breaks, seconds
        )
        return Sampled(figures_of(reading), self._knobs(ns))

    def _knobs(self, ns: int) -> dict[str, str]:
        at = int(np.searchsorted(self._host.ts, np.uint64(ns), "right")) - 1
        if at < 0:
            return {}
        texts = ((name, values[at]) for name, values in self._host.knobs.items())
        return {name: chosen(text) for name, text in texts if text is not None}

    def cells(self, edges: Numbers, ns: int) -> dict[str, list[float | None]]:
        """Series between edges (ns), one cell less than there are edges.

        A level is what it was at each cell's end, in the last cell what it is at `ns`.
        """
        seconds = np.diff(edges) / 1e9
        ends = np.append(edges[1:-1], ns) if len(edges) > 1 else edges[1:]
        shown: dict[str, list[float | None]] = {}
        for name, counter, scale in (
            ("breaks_per_s", "cow_ksm", 1.0),
            ("ksmd_percent_of_one_core", "ksmd_cpu_ns", 1e-7),
        ):
            if counter in self._known:
                grown = np.diff(_between(*self._known[counter], edges))
                shown[name] = _list(scale * grown / seconds)
        if "pages_sharing" in self._known:
            pages = _last(*self._known["pages_sharing"], ends)
            if "ksm_zero_pages" in self._known:
                pages = pages + np.nan_to_num(_last(*self._known["ksm_zero_pages"], ends))
            shown["saved_bytes"] = _list(pages * self._page_bytes)
        return shown


def _between(ts: U64, values: Floats, at: Numbers) -> Floats:
    """A growing counter at moments; before the first sample, and after the last, as there."""
    base = int(ts[0])
    since = (ts - np.uint64(base)).astype(np.float64)
    here: Floats = np.interp((at - base).astype(np.float64), since, values)
    return here


def _last(ts: U64, values: Floats, at: Numbers) -> Floats:
    """The last sample up to each moment; NaN: there is none."""
    rows = np.searchsorted(ts, at.astype(np.uint64), "right")
    return np.concatenate(([np.nan], values))[rows]


def _list(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]
