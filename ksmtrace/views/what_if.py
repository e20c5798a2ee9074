"""A moment scanned by models, as rich renderables: a report in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.views.text import named_table

_COLUMNS = {
    "pages_shared": "shared",
    "pages_sharing": "sharing",
    "ksm_zero_pages": "zero",
    "pages_unshared": "unshared",
    "pages_volatile": "volatile",
}
_ROWS = 12


def render_moment(report: Mapping[str, Any]) -> RenderableType:
    """The counters after each full scan, and when, for each scanner; fits 80 columns."""
    parts: list[RenderableType] = [
        _run(run, report["page_bytes"], _title(run, report)) for run in report["on"]
    ]
    changing = report["pages_changing"]
    if changing:
        parts.append(
            Text(f"{count(changing)} pages don't hold still: taken to change in each scan")
        )
    if any(run["prediction"] for run in report["on"]):
        parts.append(Text(f"CPU costs: {report['costs']}", style="dim"))
    return Group(*parts)


def _title(run: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    of = f"{count(report['pages'])} pages of {count(report['processes'])} processes"
    return f"{run['on']}: {of}"


def _run(run: Mapping[str, Any], page_bytes: int, title: str) -> RenderableType:
    table = named_table(title, collapse_padding=True)
    for name in ("scan", *_COLUMNS.values(), "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = list(enumerate(zip(run["scans"], run["saved"], strict=True), 1))
    left_out = len(rows) - _ROWS
    for number, (counters, saved) in rows if left_out < 2 else [*rows[: _ROWS - 2], rows[-1]]:
        values = (counters.get(name) for name in _COLUMNS)
        table.add_row(
            str(number),
            *(UNKNOWN if value is None else count(value) for value in values),
            size(saved * page_bytes),
        )
    return Group(table, *(Text(words) for words in _words(run)), Text())


def _words(run: Mapping[str, Any]) -> list[str]:
    words = []
    if run["partial"]:
        words.append("interrupted: this is what was done until then")
    elif not run["converged"]:
        words.append("it would go on (--scans)")
    prediction = run["prediction"]
    if prediction is None:
        return [*words, "with pages_to_scan=0 ksmd never gets there"]
    if prediction["seconds_to_90_percent"] is not None:
        words.append(
            f"90 % of it after {seconds(prediction['seconds_to_90_percent'])}, "
            f"99 % after {seconds(prediction['seconds_to_99_percent'])}"
            f" ({pace_in_words(run['pace'])})"
        )
        words.append(
            f"ksmd takes {prediction['cpu_percent_until_saved']:.1f} % of a core until then, "
            f"{prediction['cpu_percent']:.1f} % ever after"
            f" (a scan in {seconds(prediction['scan_seconds'])})"
        )
    return words


def pace_in_words(pace: Mapping[str, Any]) -> str:
    """The settings of ksmd, shortly."""
    if pace["advisor_mode"] != "none":
        return f"advisor, {pace['advisor_target_scan_time']} s a scan"
    return f"{count(pace['pages_to_scan'])} pages every {pace['sleep_millisecs']} ms"
