"""replay: play a recording, or check it against the reference scanner

Plays every event, in its order and with --speed in its time, through what
consumes live events, and tells them. With --check it says whether the
recording is a legal execution of its kernel's ksmd and, where it holds what
the pages contained (`lab run --record`, `record --contents`), whether the
reference scanner predicts this very stream. Exit code 6 if not; the first
impossible or unpredicted event is named, with the state around it.

examples:
  ksmtrace replay a.ksm --check
  ksmtrace replay a.ksm --speed 10
  ksmtrace replay a.ksm --speed max --json | jq .events
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ksmtrace.errors import Exit


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    number = float(text)
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is neither a positive number nor max")
    return number


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("recording", type=Path, metavar="REC", help="a .ksm folder")
    add("--speed", type=_speed, default=None, metavar="X", help="1 as it was, 10, max (default)")
    add("--check", action="store_true", help="check it instead of playing it")
    add("--predict", action="store_true", help="check, and demand a prediction (exit 4 if none)")
    add("--kernel", metavar="RELEASE", help="check as this release, not the recorded one")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Play or check; see the module's docstring."""
    return _check(args) if args.check or args.predict else _play(args)


def _play(args: argparse.Namespace) -> int:
    from ksmtrace.replay.play import play

    telling = None if args.json else print
    played = play(args.recording, args.speed, tell=telling)
    if args.json:
        import json

        print(json.dumps(played.as_dict(), indent=1))
    else:
        print(
            f"ksmtrace: {played.events:,} events of {played.seconds_recorded:.2f} s"
            f" in {played.seconds_taken:.2f} s",
            file=sys.stderr,
        )
    return Exit.OK


def _check(args: argparse.Namespace) -> int:
    from ksmtrace.replay.check import check
    from ksmtrace.views.check import render_check

    verdict = check(args.recording, args.kernel, demand_prediction=args.predict)
    if args.json:
        import json

        print(json.dumps(verdict, indent=1))
    else:
        from rich.console import Console

        Console(highlight=False).print(render_check(verdict))
    return Exit.OK if verdict["ok"] else Exit.DIFFERENCES
