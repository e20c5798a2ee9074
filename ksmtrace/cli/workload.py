"""What commands that trace a workload have in common: its options, and how they are read."""

from __future__ import annotations

import argparse
import sys

from ksmtrace.errors import Exit, KsmtraceError


def positive(text: str) -> float:
    """An option's number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number: write 4 or 0.5")
    return number


def count(text: str) -> int:
    """An option's whole number above 0."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number: write 4")
    return number


def add_workload_options(parser: argparse.ArgumentParser, doing: str) -> None:
    """Declare --run, --set and --merge. doing: what lasts as long as they do, as "recording"."""
    add = parser.add_argument
    add("--run", action="store_true", help=f"run=1 while {doing}")
    add(
        "--set",
        nargs="+",
        default=[],
        action="extend",
        metavar="KNOB=VALUE",
        help=f"set knobs while {doing}",
    )
    add("--merge", action="store_true", help="opt the command's whole memory in")


def add_command(parser: argparse.ArgumentParser) -> None:
    """Declare what stands behind --; the last declaration."""
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- CMD", help="run CMD and end with it"
    )


def say(words: str) -> None:
    """Words for the person, beside the output."""
    print(f"ksmtrace: {words}", file=sys.stderr, flush=True)


def command_of(args: argparse.Namespace) -> list[str]:
    """The command behind --, [] if there is none. Raises KsmtraceError where it can't be run."""
    import shutil

    from ksmtrace.capture.command import merge_warning

    command = list(args.command)
    if command and command[0] == "--":
        command = command[1:]
    elif command:
        raise KsmtraceError(
            f"what is {command[0]!r}?", "a command to run stands behind -- ", Exit.USAGE
        )
    if args.merge:
        if not command:
            raise KsmtraceError("--merge needs a command", "add -- CMD", Exit.USAGE)
        if (warning := merge_warning()) is not None:
            say(warning)
    if command and shutil.which(command[0]) is None:
        raise KsmtraceError(
            f"there is no command {command[0]!r}", "check its name or give its path"
        )
    return command


def knobs_of(args: argparse.Namespace) -> dict[str, str]:
    """What --set and --run ask for. Raises KsmtraceError (usage)."""
    from ksmtrace.kernel.knobs import parse_assignments

    knobs = parse_assignments(args.set)
    if args.run:
        if knobs.get("run", "1") != "1":
            raise KsmtraceError("--run and --set run contradict", "leave one out", Exit.USAGE)
        knobs["run"] = "1"
    return knobs


def warn_if_idle(knobs: dict[str, str]) -> None:
    """Say so if ksmd will not run; knobs: those that will be set."""
    from ksmtrace.kernel.sysfs import read_knob

    if knobs.get("run", read_knob("run")) != "1":
        say(
            "ksmd is off (run is not 1), so nothing will be scanned.\n"
            "          Add --run, or type: echo 1 | sudo tee /sys/kernel/mm/ksm/run"
        )
