"""top: watch KSM at work, live or in a recording, on one screen

What is saved, the scan under way, ksmd's CPU, merges and breaks, the advisor,
processes, and what happened last. Without root it shows what the counters
tell, and says so. It changes nothing on the host. Keys: ? shows them.

examples:
  sudo ksmtrace top
  sudo ksmtrace top --by vm --sort profit
  sudo ksmtrace top --cow                   # writes to merged pages, and who
  ksmtrace top --no-capture --interval 5    # counters alone
  ksmtrace top a.ksm --speed 4              # a recording; space stops, . steps
  ksmtrace top a.ksm --at 12.5 --json | jq .figures
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.cli.watching import Asked

_SORTS = {
    "saved": "saved_bytes",
    "merged": "merged_pages",
    "profit": "profit_bytes",
    "rate": "merges_per_s",
    "net": "net_per_s",
    "breaks": "breaks_per_s",
}


def _interval(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.1 to 3600 seconds")
    return number


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ksmtrace.cli.arguments import seconds
    from ksmtrace.cli.workload import positive

    add = parser.add_argument
    add("recording", nargs="?", type=Path, metavar="REC", help="a .ksm folder; none: this host")
    add("--by", choices=("process", "cgroup", "vm"), default="process", help="a line for each")
    add("--sort", choices=tuple(_SORTS), default="saved", help="the largest first (default: saved)")
    add("--interval", type=_interval, metavar="SECONDS", help="between two looks (default: 1)")
    add("--backend", metavar="NAME", help="auto, core, fentry, bcc or tracefs")
    add("--cow", action="store_true", help="see writes to merged pages as they happen")
    add("--no-capture", action="store_true", help="counters alone, no events")
    add("--speed", type=positive, metavar="X", help="of a recording: 1 as it was (default), 4")
    add("--at", type=seconds, metavar="SECONDS", help="where in a recording to begin")
    add("--once", action="store_true", help="print once and end")
    add("--json", action="store_true", help="print once, as JSON")


def run(args: argparse.Namespace) -> int:
    """Show; see the module's docstring."""
    from ksmtrace.kernel.signals import signals_interrupt
    from ksmtrace.terminal import screen_obstacle

    # Before all that is slow to import: a signal is how the screen ends, at any moment.
    try:
        with signals_interrupt():
            _run(args)
    except KeyboardInterrupt:
        if args.json or args.once or screen_obstacle() is not None:
            raise
    return Exit.OK


def _run(args: argparse.Namespace) -> None:
    from ksmtrace.cli.watching import show, snapshot
    from ksmtrace.terminal import screen_obstacle

    asked = _asked(args)
    if args.json:
        import json

        from ksmtrace.views.top_json import top_dict

        print(json.dumps(top_dict(snapshot(asked), asked.ui), indent=1))
        return
    told_why = screen_obstacle()
    if not args.once and told_why is None:
        show(asked)
        return
    if not args.once:
        print(f"ksmtrace: {told_why}, so this is printed once", file=sys.stderr)
    from rich.console import Console

    from ksmtrace.views.top import render_top

    console = Console(highlight=False)
    console.print(render_top(snapshot(asked), asked.ui, max(console.width, 80), None))


def _asked(args: argparse.Namespace) -> Asked:
    from ksmtrace.cli.watching import Asked
    from ksmtrace.top.live import Wanted
    from ksmtrace.top.ui import Ui

    live = {"--interval": args.interval, "--backend": args.backend, "--cow": args.cow}
    live["--no-capture"] = args.no_capture
    recorded = {"--speed": args.speed, "--at": args.at}
    wrong = [
        name for name, value in (recorded if args.recording is None else live).items() if value
    ]
    if wrong:
        what = "a recording" if args.recording is None else "a live host"
        raise KsmtraceError(f"{wrong[0]} is about {what}", "leave it out", Exit.USAGE)
    if args.no_capture and (args.backend or args.cow):
        other = "--cow" if args.cow else "--backend"
        raise KsmtraceError(f"{other} and --no-capture contradict", "leave one out", Exit.USAGE)
    speed = None if args.recording is None else args.speed or 1.0
    return Asked(
        ui=Ui(by=args.by, sort=_SORTS[args.sort], speed=speed),  # type: ignore[arg-type]  # one of them
        wanted=Wanted(
            interval_s=args.interval or 1.0,
            backend=None if args.no_capture else args.backend or "auto",
            cow=args.cow,
        ),
        recording=args.recording,
        at_s=args.at,
    )
