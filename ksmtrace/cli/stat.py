"""stat: what KSM saves and costs while a command runs, or on this host

Like `perf stat`, for KSM. Runs a command, or attaches to a process, or watches
the whole host until Ctrl-C, and prints what was saved, merged and broken, how
soon, and for how much of ksmd's CPU. --repeat makes several runs and tells the
spread; --ab makes them under two settings of a knob in turn, and says which
differences are real. Knobs are restored at the end; if stat itself is killed,
by the next `ksmtrace stat` or `record`, and the command runs on.

examples:
  sudo ksmtrace stat --duration 60
  sudo ksmtrace stat --run --merge -- python3 job.py
  sudo ksmtrace stat -p 1234 --until-converged
  sudo ksmtrace stat --run --merge --repeat 5 -- python3 job.py
  sudo ksmtrace stat --run --merge --ab smart_scan=0,1 -- python3 job.py
  sudo ksmtrace stat -p 1234 --unmerge --duration 30 --ab pages_to_scan=100,1000
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ksmtrace.cli.workload import (
    add_command,
    add_workload_options,
    command_of,
    count,
    knobs_of,
    positive,
    say,
    warn_if_idle,
)
from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.capture.choose import Choice
    from ksmtrace.inspect.stat.request import StatRequest

_REPEATS_OF_AB = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.usage = "ksmtrace stat [OPTIONS] [-p PID | -- CMD ...]"
    add = parser.add_argument
    add("-p", "--pid", type=count, metavar="PID", help="watch this process until it ends")
    add("--duration", type=positive, metavar="S", help="end a run after S seconds")
    add(
        "--until-converged",
        type=count,
        nargs="?",
        const=3,
        metavar="N",
        help="end a run once N full scans (3) saved no more",
    )
    add("-r", "--repeat", type=count, metavar="N", help="N runs (of each setting; 6 with --ab)")
    add("--ab", metavar="KNOB=V1,V2", help="run under both settings in turn, and compare")
    add("--metric", metavar="FIGURE", help="judge --ab by this figure alone (name as in --json)")
    add("--unmerge", action="store_true", help="unmerge the whole host before each run")
    add(
        "--wait-scans",
        type=count,
        default=2,
        metavar="N",
        help="full scans to wait between runs where nothing is unmerged (2)",
    )
    add("--backend", default="auto", metavar="NAME", help="auto, core, fentry, bcc, tracefs, none")
    add("--interval", type=positive, default=0.05, metavar="S", help="between samples (0.05)")
    add_workload_options(parser, "measuring")
    add("--json", action="store_true", help="print JSON; the command's output goes to stderr")
    add_command(parser)


def run(args: argparse.Namespace) -> int:
    """Measure; see the module's docstring."""
    from ksmtrace.capture.record import tidy_up
    from ksmtrace.cli.status import StatusLine
    from ksmtrace.errors import host_cannot
    from ksmtrace.inspect.stat.experiment import measure
    from ksmtrace.kernel.host import ksm_obstacles

    request = _request(args)
    if obstacles := ksm_obstacles():
        raise host_cannot(obstacles, "measure KSM")
    if (restored := tidy_up()) is not None:
        say(f"restored what a killed run had left: {restored}")
    _warn(request)
    line = StatusLine(sys.stderr)
    result = measure(request, say=say, status=line.working)
    line.clear()
    if not result.runs:
        say("interrupted before any run was complete")
        return Exit.INTERRUPTED
    if args.json:
        import json

        print(json.dumps(result.as_dict(), indent=1))
    else:
        from rich.console import Console

        from ksmtrace.views.stat import render_stat

        Console(highlight=False).print(render_stat(result))
    return Exit.OK


def _request(args: argparse.Namespace) -> StatRequest:
    from dataclasses import replace

    from ksmtrace.inspect.stat.request import StatRequest, parse_ab
    from ksmtrace.inspect.stat.watch import Until

    ab = None if args.ab is None else parse_ab(args.ab)
    request = StatRequest(
        command=command_of(args),
        pid=args.pid,
        merge=args.merge,
        knobs=knobs_of(args),
        repeats=args.repeat or (1 if ab is None else _REPEATS_OF_AB),
        ab=ab,
        metric=args.metric,
        until=Until(args.duration, args.until_converged),
        interval=args.interval,
        unmerge=args.unmerge,
        wait_scans=args.wait_scans,
        stdout=sys.stderr.fileno() if args.json else None,
    )
    # What makes no sense is told before what the host can't do.
    choice, blind = _choice(args.backend)
    return replace(request, choice=choice, blind=blind)


def _choice(backend: str) -> tuple[Choice | None, str]:
    """What to capture with; None and why not, where the rest can still be told."""
    from ksmtrace.capture.choose import choose_source

    if backend == "none":
        say("no backend: merges are not counted")
        return None, "no capture was asked for (--backend none)"
    try:
        choice = choose_source(backend)
    except KsmtraceError as error:
        if error.exit_code == Exit.USAGE:
            raise KsmtraceError(error.message, f"{error.hint}, none", Exit.USAGE) from None
        if backend != "auto" or error.exit_code != Exit.HOST_CANNOT:
            raise
        say(f"no backend, so merges are not counted: {error.message}")
        return None, "no backend works here (see: ksmtrace doctor)"
    say(f"backend {choice.source.name}: {choice.why}")
    return choice, ""


def _warn(request: StatRequest) -> None:
    if request.ab is None or request.ab.knob != "run":
        warn_if_idle(dict(request.knobs))
