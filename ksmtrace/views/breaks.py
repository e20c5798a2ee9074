"""Copies of merged pages and who made them, as rich renderables: tables in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.processes.identity import clean
from ksmtrace.timeline.breaks import BreakTables
from ksmtrace.views.text import named_table
from ksmtrace.views.timeline_parts import known

_MOST_WRITERS = 7
_WIDEST_PROCESS = 24
ENDS = {
    "seen": "writes to merged pages, seen as they happened",
    "undone": "new KSM pages taken back: their twin could not be merged",
    "unshared": "asked for: UNMERGEABLE, prctl, mremap or run=2",
    "unseen": "copies that take no page fault of a process: GUP, io_uring, KVM",
    "zero_seen": "writes to the zero page where ksmd had put it",
    "zero_left": "zero pages that ended otherwise",
}


def render_breaks(
    tables: BreakTables, names: Mapping[int, str] = MappingProxyType({})
) -> RenderableType:
    """What became of copied pages, and the writers that copied most; fits 80 columns.

    names: of processes, by process id, as far as known.
    """
    totals = tables.totals
    account = Table.grid(padding=(0, 2))
    account.add_column(style="bold")
    account.add_column(justify="right")
    account.add_column()
    account.add_row("copied", count(known(totals["cow_ksm"])), "KSM pages, by the kernel's count")
    for name, meaning in ENDS.items():
        number = known(totals[name])
        if number or name in ("seen", "unseen"):
            account.add_row(name.replace("_", " "), count(number), meaning)
    if surplus := known(totals["surplus"]):
        account.add_row("surplus", count(surplus), "seen, not counted: threads at one page")
    if not len(tables.writers):
        return Group(account, "")
    return Group(account, "", _writers(tables.writers, names), "")


def _writers(writers: pd.DataFrame, names: Mapping[int, str]) -> RenderableType:
    table = named_table(f"who wrote to merged pages ({count(len(writers))} places)")
    table.add_column("process", max_width=_WIDEST_PROCESS, overflow="fold")
    table.add_column("writes", justify="right")
    table.add_column("zero pages", justify="right", no_wrap=True)
    table.add_column("where", overflow="fold")
    for row in writers.head(_MOST_WRITERS).to_dict("records"):
        tgid = int(row["tgid"])
        table.add_row(
            Text(f"{clean(names.get(tgid, ''))} {tgid}".strip()),
            count(row["breaks"]),
            count(row["zero_page"]),
            Text(where(row)),
        )
    if len(writers) > _MOST_WRITERS:
        table.add_row("…", "", "", Text("--json lists all"))
    return table


def where(row: dict[Any, Any]) -> str:
    """A writer's place in words: file+0xoffset, or the kernel's function."""
    if pd.isna(row["file"]):
        return UNKNOWN
    place = str(row["file"]) if pd.isna(row["symbol"]) else f"{row['file']} {row['symbol']}"
    offset = known(row["offset"])
    return clean(place) if offset is None else f"{clean(place)}+{offset:#x}"


def breaks_as_dict(tables: BreakTables) -> dict[str, Any]:
    """For --json: the sums of the account, and every writer."""
    writers = [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in tables.writers.astype(object).to_dict("records")
    ]
    return {**{str(k): known(v) for k, v in tables.totals.items()}, "writers": writers}
