"""A snapshot scanned by models, as rich renderables: a report in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, size
from ksmtrace.views.text import named_table

_COLUMNS = {
    "pages_shared": "shared",
    "pages_sharing": "sharing",
    "ksm_zero_pages": "zero",
    "pages_unshared": "unshared",
    "pages_volatile": "volatile",
}


def render_moment(report: Mapping[str, Any]) -> RenderableType:
    """The counters after each full scan, for each scanner; fits 80 columns."""
    return Group(*(_table(run, report["page_bytes"]) for run in report["on"]))


def _table(run: Mapping[str, Any], page_bytes: int) -> RenderableType:
    table = named_table(
        f"{run['on']}: {count(run['pages'])} pages of {count(run['processes'])} processes",
        collapse_padding=True,
    )
    for title in ("scan", *_COLUMNS.values(), "saved"):
        table.add_column(title, justify="right", no_wrap=True)
    for number, (counters, saved) in enumerate(zip(run["scans"], run["saved"], strict=True)):
        values = (counters.get(name) for name in _COLUMNS)
        table.add_row(
            str(number + 1),
            *(UNKNOWN if value is None else count(value) for value in values),
            size(saved * page_bytes),
        )
    end = "nothing more will be saved" if run["converged"] else "it would go on (--scans)"
    return Group(table, Text(end, style="dim"), Text())
