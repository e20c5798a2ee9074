"""diff: compare two recordings: rates, savings, convergence, cost

Prints them side by side, first what they were made with that differs: kernel,
knobs. Rates and means are by the time recorded, so recordings of different
lengths compare. Exit code 0, whether they differ or not.

examples:
  ksmtrace diff before.ksm after.ksm
  ksmtrace diff before.ksm after.ksm --json | jq .measures.saved_mean_bytes
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ksmtrace.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("a", type=Path, metavar="A", help="a .ksm folder")
    parser.add_argument("b", type=Path, metavar="B", help="the one to hold against it")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compare; see the module's docstring."""
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.timeline.build import timeline_of
    from ksmtrace.timeline.difference import difference
    from ksmtrace.views.diff import diff_as_dict, render_diff

    names = str(args.a), str(args.b)
    found = difference(*(timeline_of(StoredRecording(name)) for name in names))
    if args.json:
        import json

        print(json.dumps(diff_as_dict(found, *names), indent=1))
    else:
        from rich.console import Console

        Console(highlight=False).print(render_diff(found, *names))
    return Exit.OK
