"""The table of processes: by process, cgroup or VM, sorted by any column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ksmtrace.top.state import Group, Rows

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

ColumnName = Literal[
    "saved_bytes", "merged_pages", "profit_bytes", "merges_per_s", "net_per_s", "breaks_per_s",
    "merges", "breaks", "items",
]  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column. name: as JSON has it, with its unit. head: as the screen has it."""

    name: ColumnName
    head: str
    source: str
    meaning: str


COLUMNS: tuple[Column, ...] = (
    Column(
        "saved_bytes", "saved", "`ksm_stat`",
        "(`ksm_merging_pages` + `ksm_zero_pages`) × page size: summed over all processes more than"
        " the host saves, for each KSM page has one mapping that saves nothing",
    ),
    Column("merged_pages", "merged", "`ksm_merging_pages`", "pages mapped to KSM pages"),
    Column("profit_bytes", "profit", "`ksm_process_profit`", "its share of profit; signed"),
    Column(
        "merges_per_s", "merges/s", "events, over 5 s",
        "merges that stood, the zero page's and those inherited by fork too; none without a"
        " capture",
    ),
    Column(
        "net_per_s", "net/s", "`ksm_merging_pages`, over 5 s", "how fast `merged` grows or shrinks"
    ),
    Column("breaks_per_s", "breaks/s", "events, over 5 s", "writes to merged pages, with `--cow`"),
    Column("merges", "merges", "events", "the same since `top` or the recording began"),
    Column("breaks", "breaks", "events", "the same"),
    Column("items", "items", "`ksm_rmap_items`", "pages on ksmd's list"),
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A line of the table. tgid: of a process, else None. name: None if it has none.

    values: by column, None if not known. exited: it is gone, as told by a recording. vm: of a
    process that is a guest, its name.
    """

    name: str | None
    tgid: int | None
    processes: int
    values: Mapping[str, float | None]
    exited: bool = False
    vm: str | None = None


@dataclass(frozen=True)
class Listed:
    """The first lines, and how many there are."""

    lines: list[Line]
    total: int


def listed(rows: Rows, by: Group, sort: ColumnName, most: int, *, reverse: bool = False) -> Listed:
    """The `most` first lines: the largest first, what is not known last; reverse: the smallest."""
    if by == "process":
        tgids, sums, exited = rows.tgid, rows.columns, _column(rows, "exited") > 0
        counts = np.ones(len(rows), np.int64)
    else:
        living = np.flatnonzero(~(_column(rows, "exited") > 0))
        label = rows.labels[by]
        codes = label.codes[living]
        mine = codes >= 0
        counts = np.bincount(codes[mine], minlength=len(label.words))
        sums = {
            name: _summed(values[living][mine], codes[mine], len(label.words))
            for name, values in rows.columns.items()
        }
        tgids, exited = np.arange(len(label.words)), np.zeros(len(label.words), bool)
    there = np.flatnonzero(counts > 0)
    first = _first(sums[sort][there], exited[there], tgids[there], most, reverse=reverse)
    lines = []
    for at in there[first].tolist():
        vm = None
        if by == "process":
            name, vm = rows.labels["comm"].at(at), rows.labels["vm"].at(at)
        else:
            name = rows.labels[by].words[at]
        values: dict[str, float | None] = {
            column.name: _known(sums[column.name][at]) for column in COLUMNS
        }
        tgid = int(tgids[at]) if by == "process" else None
        lines.append(Line(name, tgid, int(counts[at]), values, bool(exited[at]), vm))
    return Listed(lines, len(there))


def _column(rows: Rows, name: str) -> Floats:
    return rows.columns.get(name, np.zeros(len(rows)))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _summed(values: Floats, codes: Numbers, groups: int) -> Floats:
    """Sums of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    sums: Floats = np.bincount(codes[known], values[known], groups).astype(np.float64)
    sums[np.bincount(codes[known], minlength=groups) == 0] = np.nan
    return sums


def _first(
    values: Floats, exited: np.ndarray[tuple[int], np.dtype[np.bool_]], ties: Numbers, most: int,
    *, reverse: bool,
) -> Numbers:  # fmt: skip
    keys = np.where(np.isnan(values), np.inf, values if reverse else -values)
    keys = np.where(exited, np.inf, keys)
    at = np.arange(len(keys))
    if len(keys) > 4 * most:
        # A million processes: only those that can be shown are sorted.
        border = np.partition(keys, most)[most]
        at = np.flatnonzero(keys <= border)
    return at[np.lexsort((ties[at], np.isnan(values[at]), exited[at], keys[at]))][:most]
