"""advise: say whether KSM pays, what to change, and what it would bring and risk

Without a recording it watches this host for a while: it changes nothing and
needs no BPF. Root sees which processes are registered and who shares with whom.

examples:
  sudo ksmtrace advise
  sudo ksmtrace advise --duration 60
  ksmtrace advise vms.ksm
  ksmtrace advise vms.ksm --json | jq -r '.advice[].commands[]'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ksmtrace.cli.workload import positive
from ksmtrace.errors import Exit, KsmtraceError

_WATCHED_S = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "recording", type=Path, nargs="?", metavar="REC", help="a .ksm folder; without: this host"
    )
    parser.add_argument(
        "--duration",
        type=positive,
        metavar="S",
        help=f"seconds to watch this host (default {_WATCHED_S:g}; the longer, the surer)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Advise; see the module's docstring."""
    if args.recording is not None and args.duration is not None:
        raise KsmtraceError(
            "--duration is for watching this host, not for a recording",
            "leave one of them out",
            Exit.USAGE,
        )
    from ksmtrace.inspect.advise.answer import answer

    if args.recording is not None:
        from ksmtrace.inspect.advise.from_recording import facts_of_recording
        from ksmtrace.recording.reader import StoredRecording

        facts = facts_of_recording(StoredRecording(args.recording))
    else:
        from ksmtrace.cli.status import StatusLine
        from ksmtrace.inspect.advise.from_host import facts_of_host

        status = StatusLine(sys.stderr)
        facts = facts_of_host(args.duration or _WATCHED_S, tell=status.working)
        status.clear()
    found = answer(facts)
    if args.json:
        import json

        print(json.dumps(found.as_dict(), indent=1))
    else:
        from rich.console import Console

        from ksmtrace.views.advise import render_answer

        Console(highlight=False).print(render_answer(found))
    return Exit.OK
