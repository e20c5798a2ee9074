"""What a comparison of scanners prints: a report in, one table and one chart out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.processes.identity import clean
from ksmtrace.views.timeline_strip import Floats, Span, axis, gauge, spark

_LONGEST_LABEL = 26
_SCALE = 9
_LEAST_CELLS = 10
_NS = 1e9

Row = tuple[str, Callable[[Mapping[str, Any]], str]]


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2%}"


def _micro(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f} µs"


def _setting(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda outcome: count(outcome["settings"].get(name))


def _figure(name: str, words: Callable[[Any], str]) -> Callable[[Mapping[str, Any]], str]:
    return lambda outcome: words(outcome[name])


_SETTINGS = ("pages_to_scan", "sleep_millisecs")
_ROWS: tuple[Row, ...] = (
    *((name, _setting(name)) for name in _SETTINGS),
    ("saved at the end", _figure("saved_pages", count)),
    ("saved on average", _figure("saved_pages_mean", count)),
    ("time to 50 %", _figure("time_to_50_s", seconds)),
    ("time to 90 %", _figure("time_to_90_s", seconds)),
    ("time to 99 %", _figure("time_to_99_s", seconds)),
    ("page visits", _figure("page_visits", count)),
    ("hashed", _figure("hashed_bytes", size)),
    ("compared", _figure("compared_bytes", size)),
    ("merges", _figure("merges", count)),
    ("breaks", _figure("breaks", count)),
    ("CPU time", _figure("cpu_s", seconds)),
    ("CPU share", _figure("cpu_share", _share)),
    ("CPU a page saved", _figure("cpu_us_per_saved_page", _micro)),
)


def render_contest(report: Mapping[str, Any], width: int) -> RenderableType:
    """The ground, the table, the chart and notes; no line is longer than width."""
    parts: list[RenderableType] = [Text(clean(report["title"]), style="bold")]
    if report["about"]:
        parts.append(Text(clean(" ".join(report["about"].split()))))
    parts += [Text(""), *(Text(clean(line)) for line in _ground(report)), Text("")]
    parts += _tables(report, width)
    parts += [Text(""), *_charts(report, width)]
    parts += [Text(f"note: {clean(note)}", style="yellow") for note in report["notes"]]
    if report["partial"]:
        parts.append(Text("PARTIAL: it was interrupted; only this was done", style="bold red"))
    return Group(*parts)


def _ground(report: Mapping[str, Any]) -> Iterator[str]:
    bytes_ = report["optimum_pages"] * report["page_bytes"]
    yield (
        f"{report['seconds']:g} s of simulated time; {count(report['optimum_pages'])} pages "
        f"({size(bytes_)}) could be saved beyond what forks share."
    )
    yield f"CPU time is counted work at prices: {report['costs']['origin']}."
    if report["seed"] is not None:
        yield f"UKSM's random numbers are those of seed {report['seed']}."
    yield from report["ground"]


def _tables(report: Mapping[str, Any], width: int) -> Iterator[RenderableType]:
    """One table, or where so many scanners don't fit beside each other several of the same rows."""
    names = report["on"]
    label = max(len(row[0]) for row in _ROWS)
    columns = max(1, (width - label) // (max(9, *map(len, names)) + 2))
    for first in range(0, len(names), columns):
        yield _table(report, names[first : first + columns])


def _table(report: Mapping[str, Any], names: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("pages", no_wrap=True, header_style="bold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis", min_width=9)
    for told in report["protocols"]:
        outcomes = {outcome["on"]: outcome for outcome in told["outcomes"]}
        partial = {name: "partial" for name, o in outcomes.items() if o["partial"]}
        table.add_row(told["title"], *(partial.get(n, "") for n in names), style="bold")
        for label, words in _ROWS:
            cells = [words(outcomes[n]) if n in outcomes else UNKNOWN for n in names]
            if label not in _SETTINGS or set(cells) != {UNKNOWN}:
                table.add_row(f" {label}", *cells)
    return table


def _charts(report: Mapping[str, Any], width: int) -> Iterator[RenderableType]:
    lines = dict(_lines(report))
    if not lines:
        return
    label = min(_LONGEST_LABEL, max(map(len, lines)))
    cells = max(_LEAST_CELLS, width - label - _SCALE - 2)
    scale = f"of {count(report['optimum_pages'])} pages"
    for name, words in (("time_s", "seconds"), ("cpu_s", "seconds of its CPU time")):
        end = max(max(outcome["curve"][name]) for outcome in lines.values())
        span = Span(0, max(1, round(end * _NS)), cells)
        yield Text(f"saved, {scale}, over {words}", style="bold")
        for title, outcome in lines.items():
            strip = spark(_cells(outcome, name, span), 0.0, max(1, report["optimum_pages"]))
            yield _line(title, strip, count(outcome["saved_pages"]), label, width)
        for line in axis(span):
            yield _line("", line, "", label, width)


def _lines(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each scanner under each protocol once; a UKSM does the same under all."""
    several = len(report["protocols"]) > 1
    for name in report["on"]:
        for told in report["protocols"]:
            for outcome in told["outcomes"]:
                if outcome["on"] == name:
                    tuned = "seed" not in outcome["settings"] and several
                    yield f"{name} {told['protocol']}" if tuned else name, outcome


def _cells(outcome: Mapping[str, Any], name: str, span: Span) -> Floats:
    """What was saved in each cell; not known where it is over."""
    curve = outcome["curve"]
    at = np.array(curve[name]) * _NS
    cells = gauge(at, np.array(curve["saved_pages"], np.float64), span)
    cells[int(span.places(at[-1:])[0]) + 1 :] = np.nan
    return cells


def _line(label: str, strip: str, scale: str, label_width: int, width: int) -> Text:
    line = f"{label[:label_width]:<{label_width}} {strip} {scale}"
    return Text(line.rstrip()[:width], no_wrap=True, overflow="crop")
