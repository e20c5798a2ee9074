"""Timelines made by hand: a few rows a table, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
from rich.console import Console

from ksmtrace.timeline.tables import END, HOW, NODE_END, TABLES, frame
from ksmtrace.views.timeline_parts import Run, View, run_of
from tests.support.recordings import BEGIN, FACTS, SECOND

Rows = Sequence[Mapping[str, Any]]
_CATEGORIES = {("pages", "how"): HOW, ("pages", "end"): END, ("stable_pages", "end"): NODE_END}
_FIRST = {
    ("pages", "how"): "joined",
    ("pages", "end"): "still_merged",
    ("stable_pages", "end"): "alive",
}


@dataclass(frozen=True)
class Frames:
    """Derived tables that no recording stands behind."""

    scans: pd.DataFrame
    pages: pd.DataFrame
    stable_pages: pd.DataFrame
    processes: pd.DataFrame
    process_history: pd.DataFrame
    region_ledger: pd.DataFrame
    region_history: pd.DataFrame
    breaks: pd.DataFrame
    advisor: pd.DataFrame
    accounts: pd.DataFrame


def rows_of(name: str, rows: Rows) -> pd.DataFrame:
    """A table of rows that say only what matters: the rest is 0, or NA where it may be."""
    full = []
    for row in rows:
        values: dict[str, Any] = {}
        for column in TABLES[name].columns:
            nullable = column.dtype[0].isupper() or column.dtype in ("string", "boolean")
            values[column.name] = row.get(column.name, None if nullable else 0)
            if column.dtype == "category" and column.name not in row:
                values[column.name] = _FIRST[name, column.name]
        assert set(row) <= set(values), set(row) - set(values)
        full.append(values)
    table = frame(name, full)
    for (table_name, name_), words in _CATEGORIES.items():
        if table_name == name:
            table[name_] = pd.Categorical(table[name_], categories=list(words))
    return table


def frames(**tables: Rows) -> Frames:
    """Derived tables by hand; those not named are empty."""
    return Frames(**{f.name: rows_of(f.name, tables.get(f.name, ())) for f in fields(Frames)})


def run_of_frames(
    tables: Frames, manifest: Mapping[str, Any] | None = None, name: str = "a.ksm"
) -> Run:
    """A run of these tables: of Linux 6.18.2, 5 s long if the manifest says nothing else."""
    whole = {**FACTS, "duration_s": 5.0, "cow": None, **(manifest or {})}
    return run_of(tables, whole, name)


def run_by_hand(
    manifest: Mapping[str, Any] | None = None, name: str = "a.ksm", **tables: Rows
) -> Run:
    """A run of `frames`."""
    return run_of_frames(frames(**tables), manifest, name)


def at(seconds: float) -> int:
    """A moment of such a run."""
    return BEGIN + round(seconds * SECOND)


def shown(view: View, width: int = 80) -> str:
    """What a terminal of that width shows, without colour."""
    console = Console(width=width, highlight=False, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(view.render(width))
    return capture.get()
