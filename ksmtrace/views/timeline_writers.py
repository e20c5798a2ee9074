"""Who wrote to merged pages, and from where in the code."""

from __future__ import annotations

import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import count
from ksmtrace.timeline.breaks import BreakTables
from ksmtrace.views.breaks import breaks_as_dict, render_breaks, where
from ksmtrace.views.timeline_parts import Run, View, known, process_label, table_of, titled

_MOST_WRITERS = 15
_KEYS = ["process", "tgid", "file", "offset", "symbol"]


def breaks_view(run: Run, tables: BreakTables) -> View:
    """What `--breaks` shows. tables: what became of all the copies that the kernel counted."""
    account = BreakTables(tables.accounts, tables.writers.iloc[:0])
    totals = breaks_as_dict(account)
    del totals["writers"]
    writers = writers_of(run.tables.breaks)
    return View(
        render=lambda _width: Group(
            render_breaks(account),
            writers_table("who wrote to merged pages", writers, run=run),
        ),
        csv=writers,
        facts=lambda: {"start_ns": run.start_ns, "totals": totals},
        tables={"writers": writers, "intervals": tables.accounts},
    )


def writers_of(breaks: pd.DataFrame) -> pd.DataFrame:
    """Rows of `breaks` by process and code location, most first.

    Columns: process, tgid, file, offset, symbol as there; writes, of them kernel_mode and zero_page
    (int64); first_ns, last_ns.
    """
    groups = breaks.groupby(_KEYS, as_index=False, dropna=False, observed=True)
    counted: pd.DataFrame = groups.agg(
        writes=("ts_ns", "size"),
        kernel_mode=("kernel_mode", "sum"),
        zero_page=("zero_page", "sum"),
        first_ns=("ts_ns", "min"),
        last_ns=("ts_ns", "max"),
    )
    return counted.sort_values("writes", ascending=False, kind="stable", ignore_index=True)


def writers_table(
    title: str, writers: pd.DataFrame, *, run: Run | None = None, whose: bool = True
) -> RenderableType:
    """Those who wrote most. run: whose processes to name, if whose."""
    words = ["process", "where"] if whose else ["where"]
    table = table_of(*words, "writes", "by the kernel",
                     "zero pages", left=len(words))  # fmt: skip
    for row in writers.head(_MOST_WRITERS).to_dict("records"):
        cells = [Text(where(row))]
        if run is not None:
            cells.insert(0, Text(process_label(run.tables.processes, known(row["process"]))))
        table.add_row(
            *cells,
            count(row["writes"]),
            count(row["kernel_mode"]),
            count(row["zero_page"]),
        )
    if len(writers) > _MOST_WRITERS:
        table.add_row(f"and {count(len(writers) - _MOST_WRITERS)} more; --json lists all")
    return titled(f"{title} ({count(len(writers))} places)", table)
