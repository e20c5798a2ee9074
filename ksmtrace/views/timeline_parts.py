"""What the views of a timeline share: the tables they take, what they give, and common words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds
from ksmtrace.processes.identity import clean

_ASCII = str.maketrans("▁▂▃▄▅▆▇█│├┼─–…×→", "_.:-=+*#|++--~x>")


class Tables(Protocol):
    """The derived tables, as in ksmtrace/timeline/tables.py."""

    @property
    def scans(self) -> pd.DataFrame:
        """Full scans."""

    @property
    def pages(self) -> pd.DataFrame:
        """Lives of merged pages."""

    @property
    def stable_pages(self) -> pd.DataFrame:
        """KSM pages."""

    @property
    def processes(self) -> pd.DataFrame:
        """Address spaces."""

    @property
    def process_history(self) -> pd.DataFrame:
        """Address spaces, scan by scan."""

    @property
    def region_ledger(self) -> pd.DataFrame:
        """Mappings."""

    @property
    def region_history(self) -> pd.DataFrame:
        """Mappings, scan by scan."""

    @property
    def breaks(self) -> pd.DataFrame:
        """Writes that were seen."""

    @property
    def advisor(self) -> pd.DataFrame:
        """Decisions."""

    @property
    def accounts(self) -> pd.DataFrame:
        """Events against counters."""


@dataclass(frozen=True)
class Run:
    """A recording as the views see it. name: what to type for it."""

    tables: Tables
    manifest: Mapping[str, Any]
    name: str
    start_ns: int
    end_ns: int

    @property
    def page_bytes(self) -> int:
        """Of the recorded host."""
        return int(self.manifest["page_bytes"])

    @property
    def addresses_known(self) -> bool:
        """Whether the source told where pages lie; some name only the rmap_item."""
        return "addr" not in self.manifest["fields_unknown"]

    def since_start(self, ns: Any) -> float | None:
        """Seconds from the recording's start; None for NA."""
        return None if pd.isna(ns) else (int(ns) - self.start_ns) / 1e9

    def moment(self, ns: Any) -> str:
        """A moment in words: 1.234 s."""
        since = self.since_start(ns)
        return UNKNOWN if since is None else f"{since:,.3f} s"


def run_of(tables: Tables, manifest: Mapping[str, Any], name: str) -> Run:
    """When a recording began and ended, by its manifest and by what happened in it."""
    start = int(manifest["clock"]["monotonic_ns"])
    moments = [
        extreme
        for table, column in (
            (tables.scans, "start_ns"),
            (tables.scans, "end_ns"),
            (tables.accounts, "ts_ns"),
            (tables.pages, "merged_ns"),
            (tables.pages, "ended_before_ns"),
        )
        for extreme in (table[column].min(), table[column].max())
        if not pd.isna(extreme)
    ]
    duration = manifest.get("duration_s")
    if duration is not None:
        moments.append(start + round(duration * 1e9))
    # Another clock's moments, as of an imported text, may all lie elsewhere.
    begin = min([start, *map(int, moments)])
    return Run(tables, manifest, name, begin, max([begin + 1, *map(int, moments)]))


@dataclass(frozen=True)
class View:
    """An answer.

    render: the text for a terminal of so many columns. csv: the table for --csv. facts, tables: for
    --json, with the names they have there.
    """

    render: Callable[[int], RenderableType]
    csv: pd.DataFrame
    facts: Callable[[], Mapping[str, Any]]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def as_json(self) -> str:
        """Facts and tables as one JSON object; what is not known is null."""
        told = {name: records(table) for name, table in self.tables.items()}
        return json.dumps({**plain(self.facts()), **told}, indent=1)

    def as_csv(self) -> str:
        """The table as CSV, with a line of names; what is not known is empty."""
        text: str = self.csv.to_csv(index=False)
        return text


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON."""
    columns = [[plain(v) for v in table[name].astype(object).tolist()] for name in table.columns]
    names = [str(name) for name in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is None or pd.isna(value) else value


def known(value: Any) -> int | None:
    """A number of a table; None for NA."""
    return None if value is None or pd.isna(value) else int(value)


def known_float(value: Any) -> float | None:
    """The same for one with a fraction."""
    return None if value is None or pd.isna(value) else float(value)


def numbers(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """A column as floats, NaN for NA."""
    return column.to_numpy(np.float64, na_value=np.nan)


def total(column: pd.Series[Any]) -> int | None:
    """A column's sum; None where a row is NA, or there is none."""
    return known(column.sum(skipna=False)) if len(column) else None


def titled(title: str, *below: RenderableType) -> Group:
    """A heading and what stands below it. A table's own title would wrap at the table's width."""
    return Group(Text(title, style="bold"), *below)


def table_of(*columns: str, left: int = 1) -> Table:
    """An empty table without lines; the first `left` columns are words, the others numbers.

    Where there is not room for all, the widest are folded: nothing is cut off.
    """
    table = Table(
        box=None,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 1, 0, 0),
    )
    for number, column in enumerate(columns):
        justify: Any = "left" if number < left else "right"
        table.add_column(column, justify=justify, overflow="fold")
    return table


def facts_grid(lines: Iterable[tuple[str, str]]) -> Table:
    """Topics and what is to be said of them."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for topic, words in lines:
        grid.add_row(topic, Text(words))
    return grid


def process_label(processes: pd.DataFrame, row: Any) -> str:
    """A process in words: its name and its id."""
    number = known(row)
    if number is None or not 0 <= number < len(processes):
        return "unknown process"
    one = processes.iloc[number]
    called = next((str(one[n]) for n in ("vm", "comm") if not pd.isna(one[n])), None)
    tgid = known(one["tgid"])
    if tgid:
        return f"{clean(called or 'pid')} {tgid}"
    return f"{clean(called or 'process')} @{number}"


def time_to(one: Mapping[str, Any]) -> str:
    """The convergence times of a row with the summed columns."""
    times = [known_float(one[f"time_to_{percent}_s"]) for percent in (50, 90, 99)]
    if all(time is None for time in times):
        return UNKNOWN
    return ", ".join(
        f"{percent} % in {seconds(time)}" for percent, time in zip((50, 90, 99), times, strict=True)
    )


def several(number: int, noun: str) -> str:
    """A number of things: 1 scan, 7 scans."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def in_ascii(text: str) -> str:
    """Text for a terminal that has nothing else, column for column where it is ours."""
    return text.translate(_ASCII).encode("ascii", "backslashreplace").decode()
