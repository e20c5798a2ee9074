"""The timeline: counters, rates, scans and the advisor over one time axis, for linked charts.

Everything is put into the same cells of time. A page shows a few hundred of them at once, so the
browser joins neighbours until it is zoomed in: rates by their mean, gauges by their greatest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ksmtrace.amounts import seconds
from ksmtrace.views.html.markup import Html, Part, element, joined, paragraph, without_scripts
from ksmtrace.views.html.material import Material
from ksmtrace.views.html.packing import packed
from ksmtrace.views.timeline_chart import strip_rows
from ksmtrace.views.timeline_parts import Run, numbers
from ksmtrace.views.timeline_strip import Span, gauge

Floats = npt.NDArray[np.float64]
_CELLS = 4096
_LEAST_CELL_NS = 100_000
"""Shorter cells hold single events."""
_MOST_MARKS = 4000


@dataclass(frozen=True)
class Series:
    """A line. join: how neighbouring cells become one. colour: a variable of page.css."""

    label: str
    values: Floats
    join: Literal["mean", "most"]
    colour: str
    meaning: str


@dataclass(frozen=True)
class Chart:
    """A chart. unit: bytes, count, per_s, s or percent."""

    name: str
    title: str
    unit: str
    series: tuple[Series, ...]


def charts_part(material: Material) -> Part:
    """The section of the timeline."""
    run = material.run
    span = span_of(run)
    told = {name: values for name, values, _ in strip_rows(run, span)}
    charts = [chart for chart in _charts(material, span, told) if _told(chart)]
    body = joined(
        [
            paragraph(
                "All charts share one time axis. Drag across one to zoom all, double-click to zoom"
                " out; point at a moment to read every value there, click to take the page maps"
                " to it. With the keyboard: ",
                _keys(),
            ),
            without_scripts(
                "The charts are drawn by a script: with scripts off they are missing. The tables"
                " below hold the main figures."
            ),
            element("div", id="charts", cls="charts"),
            paragraph(
                f"The finest that these charts show is {seconds(span.cell_s)}; what happened within"
                " is joined: rates by their mean, counters by their greatest.",
                cls="muted",
            ),
        ]
    )
    return Part(
        "timeline", "Timeline", body, {"charts": _data(run, span, charts, told.get("lost"))}
    )


def span_of(run: Run) -> Span:
    """The cells of time that all charts share."""
    cells = int(np.clip((run.end_ns - run.start_ns) // _LEAST_CELL_NS, 1, _CELLS))
    return Span(run.start_ns, run.end_ns, cells)


def _keys() -> Html:
    def key(name: str) -> Html:
        return element("kbd", name)

    return joined(
        [key("Tab"), " to a chart, ", key("+"), " and ", key("-"), " zoom, ", key("←"), " and ",
         key("→"), " move, ", key("Esc"), " shows all."]
    )  # fmt: skip


def _told(chart: Chart) -> bool:
    return any(np.isfinite(series.values).any() for series in chart.series)


def _data(run: Run, span: Span, charts: list[Chart], lost: Floats | None) -> dict[str, Any]:
    scans = run.tables.scans
    ends = scans["end_ns"].dropna().to_numpy(np.int64)
    marks = ends[:: max(1, len(ends) // _MOST_MARKS)]
    return {
        "cell_s": span.cell_s,
        "cells": span.cells,
        "scan_ends": packed(_since(run, marks)),
        "lost_cells": [] if lost is None else np.flatnonzero(lost > 0).tolist(),
        "charts": [
            {
                "name": chart.name,
                "title": chart.title,
                "unit": chart.unit,
                "series": [
                    {
                        "label": one.label,
                        "join": one.join,
                        "colour": one.colour,
                        "meaning": one.meaning,
                        "values": packed(one.values),
                    }
                    for one in chart.series
                    if np.isfinite(one.values).any()
                ],
            }
            for chart in charts
        ],
    }


def _since(run: Run, ts: npt.NDArray[np.int64]) -> Floats:
    return (ts - run.start_ns) / 1e9


def _charts(material: Material, span: Span, told: Mapping[str, Floats]) -> Iterator[Chart]:
    run = material.run
    nothing = np.full(span.cells, np.nan)
    yield Chart(
        "saved", "Memory saved", "bytes",
        (Series("saved", told.get("saved_bytes", nothing), "most", "--series-1",
                "pages_sharing + ksm_zero_pages, as the kernel counts, in bytes"),),
    )  # fmt: skip
    yield Chart("pages", "Pages by state", "count", tuple(_pages(material, span)))
    yield Chart(
        "rates", "Merges and breaks, a second", "per_s",
        (
            Series("merges", told["merges_per_s"], "mean", "--series-1",
                   "pages mapped onto a KSM page"),
            Series("zero pages", told.get("zero_merges_per_s", nothing), "mean", "--series-3",
                   "pages mapped onto the zero page"),
            Series("breaks", told.get("breaks_per_s", nothing), "mean", "--series-2",
                   "writes to merged pages, seen as they happened"),
            Series("ends noticed", told.get("ends_per_s", nothing), "mean", "--series-2",
                   "ends of merged pages, when ksmd or a census met them: most end silently"),
        ),
    )  # fmt: skip
    yield Chart(
        "scans", "How long each full scan took", "s",
        (Series("scan", _scan_seconds(run, span), "most", "--series-4",
                "ksmd went over every page that is offered to it once"),),
    )  # fmt: skip
    yield Chart(
        "cpu", "ksmd's CPU, percent of one core", "percent",
        (Series("ksmd", _cpu(material, span), "mean", "--series-5",
                "the kernel thread that scans; 100 % is one core fully taken"),),
    )  # fmt: skip
    yield Chart("pace", "Pages a batch (pages_to_scan)", "count", tuple(_pace(material, span)))
    yield Chart(
        "residual", "Unexplained pages", "count",
        (Series("residual", _at_samples(run, span, "residual"), "most", "--series-2",
                "merged pages that events don't explain, of those the kernel counts: 0 is right"),),
    )  # fmt: skip


_COUNTERS = (
    ("pages_shared", "KSM pages", "--series-1", "pages_shared: KSM pages in use"),
    ("pages_sharing", "sharing them", "--series-3",
     "pages_sharing: further mappings of them, each a page saved"),
    ("ksm_zero_pages", "zero pages", "--series-5",
     "ksm_zero_pages: mapped onto the zero page, each a page saved"),
    ("pages_unshared", "unique", "--series-4",
     "pages_unshared: checked again and again, equal to no other"),
    ("pages_volatile", "volatile", "--series-2", "pages_volatile: change too fast to be merged"),
)  # fmt: skip


def _pages(material: Material, span: Span) -> Iterator[Series]:
    host = material.samples
    for name, label, colour, meaning in _COUNTERS:
        values = gauge(host.ts.astype(np.int64), host.counters[name], span)
        yield Series(label, values, "most", colour, meaning)


def _scan_seconds(run: Run, span: Span) -> Floats:
    """In each cell the longest of the whole scans under way in it."""
    cells = np.full(span.cells, np.nan)
    scans = run.tables.scans.dropna(subset=["start_ns", "end_ns"])
    first = span.places(scans["start_ns"].to_numpy(np.int64))
    last = span.places(scans["end_ns"].to_numpy(np.int64))
    took = scans["duration_s"].to_numpy(np.float64)
    for begin, end, long in zip(first.tolist(), last.tolist(), took.tolist(), strict=True):
        cells[begin : end + 1] = np.fmax(cells[begin : end + 1], long)
    return cells


def _cpu(material: Material, span: Span) -> Floats:
    """Ksmd's time spent in each cell, between samples evenly."""
    host = material.samples
    known = np.isfinite(host.counters["ksmd_cpu_ns"])
    ts, spent = host.ts[known].astype(np.float64), host.counters["ksmd_cpu_ns"][known]
    if len(ts) < 2:
        return np.full(span.cells, np.nan)
    edges = np.linspace(span.start_ns, span.end_ns, span.cells + 1)
    at = np.interp(edges, ts, spent, left=np.nan, right=np.nan)
    return np.asarray(100 * np.diff(at) / np.diff(edges), np.float64)


def _pace(material: Material, span: Span) -> Iterator[Series]:
    host, advisor = material.samples, material.run.tables.advisor
    knob = gauge(host.ts.astype(np.int64), host.knob("pages_to_scan"), span)
    yield Series("in effect", knob, "most", "--series-1",
                 "pages_to_scan: pages that ksmd visits before it sleeps")  # fmt: skip
    if len(advisor):
        decided = gauge(
            advisor["ts_ns"].to_numpy(np.int64), numbers(advisor["pages_to_scan"]), span
        )
        yield Series("decided", decided, "most", "--series-2",
                     "what the scan-time advisor chose")  # fmt: skip


def _at_samples(run: Run, span: Span, column: str) -> Floats:
    accounts = run.tables.accounts
    return gauge(accounts["ts_ns"].to_numpy(np.int64), np.abs(numbers(accounts[column])), span)
