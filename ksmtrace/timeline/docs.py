"""docs/timeline-tables.md, generated from the declarations of the derived tables."""

from __future__ import annotations

from collections.abc import Iterator

from ksmtrace.recording.docs import table_head
from ksmtrace.timeline.tables import TABLES

_HEAD = """\
# Tables of a timeline

<!-- Generated from ksmtrace/timeline/tables.py by `make bpf`. -->

What is reconstructed from a recording's stream, as pandas DataFrames: attributes of what
`ksmtrace.open` returns, and what `ksmtrace timeline --json` and `--csv` print. Stored tables, the
stream itself among them, are in [recording.md](recording.md).

A type with a capital letter (`Int64`), `string` and `boolean` can be NA: not known, or not said of
that row. It is never a zero. Times are nanoseconds of the recording's own clock; its start is
`clock.monotonic_ns` of the manifest. A row's number, from 0, is what other tables name it by.

What the kernel does not say is not invented: where only bounds are known there are two columns
(`ended_after_ns`, `ended_before_ns`; `merged_least`, `merged_most`), and `proven` tells a certain
end from the likeliest.
"""


def timeline_tables_page() -> str:
    """The text of docs/timeline-tables.md."""
    return _HEAD + "\n".join(_tables()) + "\n"


def _tables() -> Iterator[str]:
    for table in TABLES.values():
        yield from table_head(table.name, table.meaning)
        for column in table.columns:
            yield f"| `{column.name}` | {column.dtype} | {column.meaning} |"
