"""The tables of docs/top.md: figures, columns, keys."""

from __future__ import annotations

from ksmtrace.top.figures import FIGURES
from ksmtrace.top.table import COLUMNS
from ksmtrace.top.ui import KEYS


def figures_table() -> str:
    """The figures of the host."""
    lines = ["| figure | what it says | from |", "|---|---|---|"]
    lines += [f"| `{f.name}` | {f.meaning} | {f.source} |" for f in FIGURES]
    return "\n".join(lines) + "\n"


def columns_table() -> str:
    """The columns of the table of processes."""
    lines = ["| column | name in JSON | what it says | from |", "|---|---|---|---|"]
    lines += [f"| {c.head} | `{c.name}` | {c.meaning} | {c.source} |" for c in COLUMNS]
    return "\n".join(lines) + "\n"


def keys_table() -> str:
    """The keys."""
    lines = ["| key | what it does | where |", "|---|---|---|"]
    lines += [
        f"| `{key.shown}` | {key.words} | {'a recording' if key.recording else 'everywhere'} |"
        for key in KEYS
    ]
    return "\n".join(lines) + "\n"
