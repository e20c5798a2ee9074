"""The advisor's decisions, and whether its formula gives the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.views.timeline_parts import Run, View, known, numbers, table_of, titled
from ksmtrace.views.timeline_strip import Span, Strip, cells_of, chart, gauge, spark

_MOST_ROWS = 24
_WHOLE_CORE = 100


def advisor_view(run: Run) -> View:
    """What `--advisor` shows."""
    return View(
        render=lambda width: _render(run, width),
        csv=run.tables.advisor,
        facts=lambda: {"start_ns": run.start_ns},
        tables={"advisor": run.tables.advisor},
    )


def _render(run: Run, width: int) -> RenderableType:
    advisor = run.tables.advisor
    if not len(advisor):
        return Text("The advisor decided nothing while this was recorded.")
    span = Span(run.start_ns, run.end_ns, cells_of(width))
    ts = advisor["ts_ns"].to_numpy()
    strips = []
    for label, column, unit in (
        ("pages/batch", "pages_to_scan", "pages"),
        ("scan time", "scan_time_s", "s"),
        ("ksmd CPU", "cpu_percent", "%"),
    ):
        measured = numbers(advisor[column])
        if column == "cpu_percent":
            # Its first measure is of all CPU that ksmd ever took: no share of one core.
            measured[measured > _WHOLE_CORE] = np.nan
        values = gauge(ts, measured, span)
        known = measured[np.isfinite(measured)]
        scale = f"0..{count(float(known.max()))} {unit}" if len(known) else unit
        strips.append(Strip(label, spark(values), scale))
    return Group(
        chart(strips, span, width),
        "",
        _decisions(run, advisor),
        "",
        Text(agreement_in_words(advisor)),
    )


def agreement_in_words(advisor: pd.DataFrame) -> str:
    """How many decisions are what the formula gives."""
    computed = advisor["agrees"].dropna()
    if not len(computed):
        return "What the formula gives is not known for any of them."
    same = int(computed.sum())
    if same == len(advisor):
        return f"All {count(same)} decisions are what the advisor's formula gives."
    words = f"{count(same)} of {count(len(computed))} decisions are what the formula gives"
    unknown = len(advisor) - len(computed)
    return f"{words}; of {count(unknown)} it can't be told." if unknown else f"{words}."


def _decisions(run: Run, advisor: pd.DataFrame) -> RenderableType:
    shown = advisor.iloc[-_MOST_ROWS:]
    title = f"decisions ({count(len(advisor))})"
    if len(shown) < len(advisor):
        title += f", the last {count(len(shown))}; --csv has all"
    table = table_of("at", "scan", "took (s)", "CPU (%)", "target (s)", "before", "decided",
                     "formula", left=0)  # fmt: skip
    for row in shown.to_dict("records"):
        computed = known(row["computed"])
        formula = UNKNOWN if computed is None else count(computed)
        table.add_row(
            run.moment(row["ts_ns"]),
            str(row["scan"]),
            count(row["scan_time_s"]),
            count(row["cpu_percent"]),
            count(known(row["target_scan_time_s"])),
            count(known(row["pages_before"])),
            count(row["pages_to_scan"]),
            formula,
        )
    return titled(title, table)
