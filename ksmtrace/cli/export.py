"""export: pass a recording on: to spreadsheets, to trace viewers, or without names

csv and parquet write a folder with all derived tables; --stored adds the
recording's own, --table picks one. perfetto and chrome write a trace: scans as
slices, KSM's counters, and for each process its merges, breaks and exit.
--share leaves out who it was: names, files, command lines, process ids,
addresses, the host. Alone it writes a recording, with --to that format.

examples:
  ksmtrace export a.ksm --to perfetto    # then open https://ui.perfetto.dev
  ksmtrace export a.ksm --to csv --table pages -o - | head
  ksmtrace export a.ksm --to parquet --stored -o tables
  ksmtrace export a.ksm --share -o public.ksm
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.cli.status import StatusLine
    from ksmtrace.exports.formats import TableFormat, TraceFormat
    from ksmtrace.recording.reader import StoredRecording

_FORMATS = ("csv", "parquet", "perfetto", "chrome")
"""As `exports.formats` has them; a test compares, for that is slow to import."""
_LIMIT = 200_000
"""As `exports.tracks` has it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("recording", type=Path, metavar="REC", help="a .ksm folder")
    add("--to", choices=_FORMATS, help="the format")
    add("-o", "--output", metavar="OUT", type=Path, help="where to; - is standard output")
    add("--table", metavar="NAME", help="one table, as a file (csv, parquet)")
    add("--stored", action="store_true", help="the recording's own tables too (csv, parquet)")
    add(
        "--limit", type=int, metavar="N",
        help=f"most merges and breaks shown one by one (perfetto, chrome; default {_LIMIT:,})",
    )  # fmt: skip
    add("--share", action="store_true", help="without names, to pass it on")
    add("--force", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    """Export; see the module's docstring."""
    from ksmtrace.cli.status import StatusLine
    from ksmtrace.recording.reader import StoredRecording

    _check_usage(args)
    recording = StoredRecording(args.recording)
    line = StatusLine(sys.stderr)
    if args.to is None:
        from ksmtrace.recording.share import share
        from ksmtrace.recording.target import Target

        output = args.output or Path(f"{_stem(args)}-shared.ksm")
        share(recording, Target(output, force=args.force), line.sharing)
        line.clear()
        _say(f"{output} holds no names; look with: ksmtrace report {shlex.quote(str(output))}")
        return Exit.OK
    with _without_names(recording, line) if args.share else contextlib.nullcontext(recording) as it:
        _export(it, args, line)
    return Exit.OK


def _check_usage(args: argparse.Namespace) -> None:
    tables = args.to in ("csv", "parquet")
    piped = str(args.output) == "-"
    wrong = {
        "say what to export: --to FORMAT, --share or both": args.to is None and not args.share,
        "--table and --stored are for csv and parquet": (args.table or args.stored) and not tables,
        "--limit is for perfetto and chrome": args.limit is not None
        and args.to not in ("perfetto", "chrome"),
        "--limit can't be negative": args.limit is not None and args.limit < 0,
        "a folder can't go to standard output; add --table NAME": piped
        and tables
        and args.table is None,
        "a recording can't go to standard output; name one with -o": piped and args.to is None,
        "standard output is a terminal; name a file with -o, or add | less": piped
        and args.to in ("parquet", "perfetto")
        and sys.stdout.isatty(),
    }
    for words, so in wrong.items():
        if so:
            raise KsmtraceError(words, "see: ksmtrace export --help", Exit.USAGE)


def _stem(args: argparse.Namespace) -> str:
    name: str = args.recording.resolve().name
    return name.removesuffix(".ksm")


@contextlib.contextmanager
def _without_names(recording: StoredRecording, line: StatusLine) -> Iterator[StoredRecording]:
    """A copy without names, as long as it is needed."""
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.recording.share import share
    from ksmtrace.recording.target import Target

    with tempfile.TemporaryDirectory(prefix="ksmtrace-") as folder:
        copy = Path(folder) / "shared.ksm"
        share(recording, Target(copy), line.sharing)
        yield StoredRecording(copy)


def _export(recording: StoredRecording, args: argparse.Namespace, line: StatusLine) -> None:
    from ksmtrace.exports.formats import FORMATS, TableFormat

    chosen = FORMATS[args.to]
    if not isinstance(chosen, TableFormat):
        _export_trace(recording, args, chosen, line)
    elif args.table is None:
        _export_tables(recording, args, chosen, line)
    else:
        _export_table(recording, args, chosen, line)


def _export_trace(
    recording: StoredRecording, args: argparse.Namespace, chosen: TraceFormat, line: StatusLine
) -> None:
    from ksmtrace.exports.gather import trace
    from ksmtrace.timeline.build import timeline_of

    output = args.output or Path(f"{_stem(args)}.{chosen.suffix}")
    with _sink(output, force=args.force) as sink:
        line.working("reconstructing what happened")
        made = trace(timeline_of(recording), _LIMIT if args.limit is None else args.limit)
        chosen.write(made, sink, line.exporting)
    line.clear()
    for note in made.notes:
        _say(f"note: {note}")
    if str(output) != "-":
        _say(f"{output}: {len(made):,} points on {len(made.tracks):,} tracks; open {chosen.look}")


def _export_table(
    recording: StoredRecording, args: argparse.Namespace, chosen: TableFormat, line: StatusLine
) -> None:
    from ksmtrace.exports.gather import DERIVED, STORED, table_of
    from ksmtrace.timeline.build import timeline_of

    if args.table not in DERIVED + STORED:
        raise KsmtraceError(
            f"there is no table {args.table}", f"tables: {', '.join(DERIVED + STORED)}", Exit.USAGE
        )
    output = args.output or Path(f"{_stem(args)}-{args.table}.{chosen.suffix}")
    with _sink(output, force=args.force) as sink:
        line.working(f"table {args.table}")
        timeline = timeline_of(recording) if args.table in DERIVED else None
        chosen.write(*table_of(recording, timeline, args.table), sink)
    line.clear()
    if str(output) != "-":
        _say(f"{output} holds the table {args.table}")


def _export_tables(
    recording: StoredRecording, args: argparse.Namespace, chosen: TableFormat, line: StatusLine
) -> None:
    from ksmtrace.exports.gather import DERIVED, STORED, table_of
    from ksmtrace.exports.output import new_folder
    from ksmtrace.timeline.build import timeline_of

    names = DERIVED + STORED if args.stored else DERIVED
    files = {name: f"{name}.{chosen.suffix}" for name in DERIVED + STORED}
    output = args.output or Path(f"{_stem(args)}-{chosen.suffix}")
    with new_folder(output, force=args.force, ours=lambda n: n in files.values()) as folder:
        line.working("reconstructing what happened")
        timeline = timeline_of(recording)
        for number, name in enumerate(names):
            line.working(f"table {name} ({number + 1} of {len(names)})")
            with (folder / files[name]).open("wb") as sink:
                chosen.write(*table_of(recording, timeline, name), sink)
    line.clear()
    _say(f"{output} holds {len(names)} tables as {chosen.suffix}")


@contextlib.contextmanager
def _sink(output: Path, *, force: bool) -> Iterator[BinaryIO]:
    from ksmtrace.exports.output import new_file

    if str(output) == "-":
        from ksmtrace.recording.disk import disk_errors

        with disk_errors(Path("standard output")):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    with new_file(output, force=force) as file:
        yield file


def _say(words: str) -> None:
    told = textwrap.fill(
        f"ksmtrace: {words}", 80, subsequent_indent=" " * 10, break_long_words=False
    )
    print(told, file=sys.stderr)
