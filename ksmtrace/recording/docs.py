"""docs/recording.md, generated from the schema."""

from __future__ import annotations

from collections.abc import Iterator

from ksmtrace.recording.schema import FORMAT, TABLES

_HEAD = f"""\
# Recordings

<!-- Generated from ksmtrace/recording/schema.py by `make bpf`. -->

A recording is a folder, `NAME.ksm/`, of format {FORMAT}: `manifest.json` and one file a table.
While it is being made the tables are Arrow IPC streams (`events.arrow`), flushed every 0.4 seconds;
when it ends they are sealed to Parquet (`events.parquet`). A recorder that is killed leaves the
streams: the recording opens, is called cut, and holds what was flushed. Files are 0600, the folder
0700; under sudo they belong to the user who called it.

Nothing but a Parquet reader is needed:

    duckdb -c "from 'a.ksm/events.parquet' limit 5"
    python3 -c "import pandas; print(pandas.read_parquet('a.ksm/events.parquet').head())"

Unless `--raw-pointers` was given, `pfn`, `item` and `mm` are pseudonyms: equal stays equal,
different stays different, objects in one page (or 512 neighbouring frames) stay together, and the
key is thrown away. It hides where things lie; it is no encryption. Command lines are stored only
with `--cmdlines`.

`manifest.json` says how it was made: `format`, `kernel`, `kernel_build`, `machine`, `cpus`,
`memory_bytes`, `page_bytes`, `rmap_item_bytes`, `system` (`uksm` if it is of UKSM), `backend` and
why it was chosen, `fields_unknown`, `knobs` before and `knobs_set`, `clock` and `clock_end` (the
same moments on the monotonic and the wall clock), `duration_s`, `events`, `lost`, `ended` (null:
cut), `sealed`, `command` and its `command_status`, `notes`, and the rows of each table. A lab run's
has `lab`: the `scenario`, and its `processes` by id. A copy without names
(`ksmtrace export --share`) has `shared`. With `record --cow` there is `cow`, else null: `seen_by`
(tracepoints), `obstacles` (what is not seen), `write_faults` that were looked at, `breaks` among
them, `unchecked` ones, and `locations_left_out` of the table `code`.

A null is a thing not known, or not said by that kind of row; it is never a zero.
"""


def recording_page() -> str:
    """The text of docs/recording.md."""
    return _HEAD + "\n".join(_tables()) + "\n"


def table_head(name: str, meaning: str, more: str = "") -> Iterator[str]:
    """The lines before a table's columns. meaning: without a stop; more: a sentence after it."""
    yield from ("", f"## {name}", "", f"{meaning[0].upper()}{meaning[1:]}.{more}", "")
    yield from ("| column | type | meaning |", "|---|---|---|")


def _tables() -> Iterator[str]:
    for table in TABLES.values():
        optional = f" Only with {table.only_with}." if table.only_with else ""
        yield from table_head(table.name, table.meaning, optional)
        for column in table.columns:
            kind = "string (dictionary)" if column.type == "kind" else column.type
            yield f"| `{column.name}` | {kind} | {column.meaning} |"
