"""All full scans, one a row: what each visited, skipped, merged and saved."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds
from ksmtrace.views.timeline_parts import Run, View, known, known_float, table_of, titled

_MOST_ROWS = 60
_COUNTED = ("pages_scanned", "pages_skipped", "merges", "zero_merges", "failed_merges")


def scans_view(run: Run) -> View:
    """What `--scan` shows without a number."""
    scans = run.tables.scans
    return View(
        render=lambda _width: _render(run, scans),
        csv=scans,
        facts=lambda: {"start_ns": run.start_ns},
        tables={"scans": scans},
    )


def _render(run: Run, scans: pd.DataFrame) -> RenderableType:
    if not len(scans):
        return Text("No full scan was under way while this was recorded.")
    title = f"full scans ({count(len(scans))})"
    if len(scans) > _MOST_ROWS:
        title += f", the first {count(_MOST_ROWS)}; --csv has all"
    table = table_of("scan", "kernel's", "at", "took", "items", "visited", "skipped", "merges",
                     "zero", "failed", "saved", left=0)  # fmt: skip
    for row in scans.head(_MOST_ROWS).to_dict("records"):
        table.add_row(*_cells(run, row))
    return titled(title, table)


def _cells(run: Run, row: dict[Any, Any]) -> list[str]:
    seq = known(row["seq"])
    return [
        str(row["scan"]),
        UNKNOWN if seq is None else str(seq),
        run.moment(row["start_ns"]),
        seconds(known_float(row["duration_s"])),
        count(known(row["items_after"])),
        *(count(known(row[name])) for name in _COUNTED),
        count(known(row["pages_saved"])),
    ]
