"""Mappings: the ledger of those in which pages merged, and one of them in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import count, size
from ksmtrace.processes.identity import clean
from ksmtrace.views.timeline_history import lives_strip
from ksmtrace.views.timeline_parts import (
    Run,
    View,
    facts_grid,
    known,
    process_label,
    records,
    table_of,
    time_to,
    titled,
)

_MOST_ROWS = 20


def regions_view(run: Run, rows: np.ndarray[Any, np.dtype[np.int64]]) -> View:
    """What `--region` shows. rows: of `region_ledger`; if there is but one, its history too."""
    ledger = run.tables.region_ledger.iloc[rows]
    ledger = ledger.assign(region=rows)[["region", *run.tables.region_ledger.columns]]
    if len(rows) == 1:
        return _one(run, ledger, int(rows[0]))
    return View(
        render=lambda _width: (
            ledger_table(run, ledger)
            if len(ledger)
            else Text("No region is known in which pages merged.")
        ),
        csv=ledger,
        facts=lambda: {"start_ns": run.start_ns},
        tables={"regions": ledger},
    )


def _one(run: Run, ledger: pd.DataFrame, region: int) -> View:
    history = run.tables.region_history
    history = history[history["region"] == region]
    pages = run.tables.pages
    lives = pages[(pages["region"] == region).fillna(value=False).to_numpy(bool)]
    return View(
        render=lambda width: Group(
            ledger_table(run, ledger),
            "",
            facts_grid([("converged", time_to(records(ledger)[0]))]),
            "",
            lives_strip(run, lives, "merged", width),
        ),
        csv=history,
        facts=lambda: {"start_ns": run.start_ns, "region": records(ledger)[0]},
        tables={"history": history},
    )


def place(row: dict[Any, Any]) -> str:
    """A region in words: its name, or where it begins."""
    name = "" if pd.isna(row["name"]) else clean(str(row["name"]))
    return name or f"at {int(row['start']):x}"


def ledger_table(run: Run, ledger: pd.DataFrame, *, whose: bool = True) -> RenderableType:
    """Regions, those most merged first; fits 80 columns.

    ledger: some of `region_ledger`; its index tells the rows. whose: name the process too.
    """
    words = ["region", "process"] if whose else ["region"]
    table = table_of("row", *words, "pages", "merges", "zero", "ended",
                     "merged", "saved", left=len(words) + 1)  # fmt: skip
    most = ledger["merges"].to_numpy().argsort(kind="stable")[::-1][:_MOST_ROWS]
    for number, row in zip(most, ledger.iloc[most].to_dict("records"), strict=True):
        _add(run, table, f"@{ledger.index[number]}", row, whose=whose)
    title = f"regions ({count(len(ledger))})"
    if len(ledger) > _MOST_ROWS:
        title += f", the {_MOST_ROWS} with most merges; --csv has all"
    return titled(title, table)


def _add(run: Run, table: Table, number: str, row: dict[Any, Any], *, whose: bool) -> None:
    words = [Text(place(row))]
    if whose:
        words.append(Text(process_label(run.tables.processes, known(row["process"]))))
    table.add_row(
        number,
        *words,
        count(row["pages"]),
        count(row["merges"]),
        count(row["zero_merges"]),
        count(row["ended"]),
        count(row["merged_last"]),
        size(row["merged_last"] * run.page_bytes),
    )
