"""import: make a recording of another tool's text

Reads what `perf script`, `trace-cmd report` or tracefs' trace file print,
tells which of them it is, and writes a recording that report, replay and
pandas read. A recording says what its text lacks: addresses, owners, counters,
often the kernel. Of a file that was cut it takes what is whole and says where
it stopped. Other tracepoints in it are left out.

examples:
  perf script -i perf.data --header --show-lost-events > a.txt
  ksmtrace import a.txt
  trace-cmd report trace.dat | ksmtrace import - -o b.ksm --kernel 6.12
  sudo cat /sys/kernel/tracing/trace | ksmtrace import - -o c.ksm
  ksmtrace import a.txt --json | jq .events_by_kind
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.replay.foreign.importing import Imported

_FORMATS = ("perf", "trace-cmd", "tracefs")
"""As `replay.foreign.formats` has them; a test compares, for that is slow to import."""
_SHOWN_TEXT = 60


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="the text; - is standard input")
    add("-o", "--output", metavar="DIR", type=Path, help="the recording (default: FILE's.ksm)")
    add("--kernel", metavar="RELEASE", help="the traced kernel, as 6.12, or host for this one")
    add("--format", choices=_FORMATS, help="do not detect the format")
    add("--force", action="store_true", help="replace an existing recording")
    add("--raw-pointers", action="store_true", help="store pointers as they are")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Import; see the module's docstring."""
    from ksmtrace.cli.status import StatusLine
    from ksmtrace.kernel import host
    from ksmtrace.recording.target import Target
    from ksmtrace.replay.foreign.importing import ImportRequest, default_name, import_text

    piped = str(args.file) == "-"
    name = "standard input" if piped else args.file.name
    with _opened(args.file, piped=piped) as descriptor:
        made = time.strftime("ksm-%Y%m%d-%H%M%S.ksm") if piped else default_name(name)
        output = args.output or Path(made)
        line = StatusLine(sys.stderr)
        imported = import_text(
            ImportRequest(
                descriptor=descriptor,
                name=name,
                target=Target(output, force=args.force),
                text_format=args.format,
                kernel=host.kernel_release() if args.kernel == "host" else args.kernel,
                raw_pointers=args.raw_pointers,
            ),
            progress=line.reading,
            sealing=line.sealing,
        )
    line.clear()
    for words in _words(imported, output):
        told = textwrap.fill(f"ksmtrace: {words}", 80, subsequent_indent=" " * 10)
        print(told, file=sys.stderr)
    if args.json:
        import json

        print(json.dumps(imported.as_dict(), indent=1))
    return Exit.OK


@contextmanager
def _opened(path: Path, *, piped: bool) -> Iterator[int]:
    if piped:
        if sys.stdin is None or sys.stdin.isatty():
            raise KsmtraceError(
                "standard input is a terminal", "pipe a text into it, or name a file", Exit.USAGE
            )
        yield sys.stdin.fileno()
        return
    try:
        if path.is_dir():
            raise KsmtraceError(
                f"{path} is a folder, not a text",
                "look at a recording with: ksmtrace report NAME.ksm",
                Exit.BAD_RECORDING,
            )
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise KsmtraceError(
            f"{path} can't be read: {why}", "check the name", Exit.BAD_RECORDING
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _words(imported: Imported, output: Path) -> Iterator[str]:
    """What a person is told, the cut and what could not be read first."""
    from ksmtrace.processes.identity import clean

    if imported.stopped_at_line is not None:
        yield imported.ended.partition(": ")[2]
    if imported.first_unreadable_text is not None:
        text = clean(imported.first_unreadable_text)[:_SHOWN_TEXT]
        yield f"line {imported.first_unreadable_line:,} can't be read: {text}"
    for note in imported.notes:
        yield f"note: {note}"
    if imported.other_events:
        others = sum(imported.other_events.values())
        yield f"{others:,} events of other tracepoints are left out"
    if imported.lost:
        yield f"{imported.lost:,} events were lost when this was traced"
    yield (
        f"{imported.events:,} events of {imported.lines:,} lines ({imported.format}) are in"
        f" {output}; look with: ksmtrace report {shlex.quote(str(output))}"
    )
