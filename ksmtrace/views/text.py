"""How tables and names look, everywhere the same."""

from __future__ import annotations

import os

from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN
from ksmtrace.processes.identity import clean


def named_table(title: str, *, collapse_padding: bool = False) -> Table:
    """An empty table without lines below its name."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        collapse_padding=collapse_padding,
        padding=(0, 1, 0, 0),
    )


class Head:
    """The lines of a topic and words at the top of a report. table: what to print."""

    def __init__(self) -> None:
        self.table = Table.grid(padding=(0, 2))
        self.table.add_column(style="bold")
        self.table.add_column()

    def line(self, topic: str, *parts: str | tuple[str, str]) -> None:
        """Add one. parts: words, perhaps each with a style."""
        # A manifest may come from anywhere: its words are shown, never interpreted.
        harmless = [clean(p) if isinstance(p, str) else (clean(p[0]), p[1]) for p in parts]
        self.table.add_row(topic, Text.assemble(*harmless))


def name(text: str | None) -> Text:
    """A process's own words: shown, never interpreted."""
    return Text(UNKNOWN if text is None else clean(text), no_wrap=True, overflow="ellipsis")


def errno_name(number: int) -> str:
    """A negative errno in words: -14 is `Bad address (EFAULT)`."""
    import errno

    return f"{os.strerror(-number)} ({errno.errorcode.get(-number, number)})"
