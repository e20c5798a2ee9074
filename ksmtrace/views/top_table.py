"""The table of processes, cgroups or VMs of `ksmtrace top`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, size
from ksmtrace.processes.identity import clean
from ksmtrace.top.state import TopState
from ksmtrace.top.ui import Ui
from ksmtrace.views.text import name

if TYPE_CHECKING:
    from ksmtrace.top.table import Column, Line

_WIDTHS = {
    "saved_bytes": 11, "merged_pages": 12, "profit_bytes": 11, "merges_per_s": 10, "net_per_s": 9,
    "breaks_per_s": 9, "merges": 12, "breaks": 10, "items": 12,
}  # fmt: skip
_ID = 9
_NAME = 24
_EXTRA = ("merges", "items", "breaks")
_NOBODY = {
    "process": "no process is registered",
    "cgroup": "no registered process is in a cgroup",
    "vm": "no QEMU guest is registered",
}


_UNKNOWN = {
    "process": "no process that can be read is registered; others may be",
    "cgroup": "no registered process that can be read is in a cgroup; others may be",
    "vm": "no QEMU guest that can be read is registered; others may be",
}


def table_lines(state: TopState, ui: Ui, width: int, most: int) -> list[Text]:
    """A head, and at most so many lines in all."""
    if state.rows is None:
        words = "processes: not read yet" if state.loading else "processes: nothing is known"
        return [Text(words, style="dim")]
    from ksmtrace.top.table import COLUMNS, listed

    shown = _columns(state, ui, width)
    found = listed(state.rows, ui.by, ui.sort, max(most - 1, 0), reverse=ui.reverse)
    columns = [column for column in COLUMNS if column.name in shown]
    head = Text(style="bold")
    for column in columns:
        mark = ("▲" if ui.reverse else "▼") if column.name == ui.sort else ""
        style = "bold cyan" if mark else "bold"
        head.append(f"{mark}{column.head}".rjust(_WIDTHS[column.name]), style=style)
    head.append(f"{'pid' if ui.by == 'process' else 'procs':>{_ID}} ")
    head.append(f" {ui.by}")
    if found.total > len(found.lines):
        head.append(f" ({len(found.lines):,} of {found.total:,})", style="dim")
    if not found.lines:
        words = _UNKNOWN[ui.by] if state.rows.unreadable else _NOBODY[ui.by]
        return [head, Text(f"  {words}", style="dim")]
    return [head, *(_line(one, columns, ui) for one in found.lines)]


def _line(one: Line, columns: list[Column], ui: Ui) -> Text:
    line = Text(style="dim" if one.exited else "")
    for column in columns:
        words = _value(column.name, one.values[column.name])
        line.append(words.rjust(_WIDTHS[column.name]))
    number = one.tgid if ui.by == "process" else one.processes
    line.append(f"{number:>{_ID}}  ")
    line.append_text(name(one.name))
    if one.vm is not None:
        line.append(f" {clean(one.vm)}", style="cyan")
    if one.exited:
        line.append(" (left)")
    return line


def _columns(state: TopState, ui: Ui, width: int) -> set[str]:
    """Which columns there is a place for; the one that is sorted by always."""
    shown = ["saved_bytes", "merged_pages", "profit_bytes"]
    if state.place.origin != "counters":
        shown.append("merges_per_s")
    if state.place.cow:
        shown.append("breaks_per_s")
    if ui.sort not in shown:
        shown.append(ui.sort)
    free = width - _ID - 2 - _NAME - sum(_WIDTHS[column] for column in shown)
    for column in ("net_per_s", *_EXTRA):
        if column == "breaks" and not state.place.cow:
            continue
        if column == "merges" and state.place.origin == "counters":
            continue
        if column not in shown and free >= _WIDTHS[column]:
            shown.append(column)
            free -= _WIDTHS[column]
    return set(shown)


def _value(column: str, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if column.endswith("_bytes"):
        return size(value)
    if column.endswith("_per_s") and 0 < abs(value) < 9.95:
        return f"{value:.1f}"
    return count(value)
