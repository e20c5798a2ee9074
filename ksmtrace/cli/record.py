"""record: trace KSM on this host into a recording

Attaches to KSM's tracepoints (before Linux 6.4: to its functions), samples the
counters beside them and writes a folder that `ksmtrace report` and pandas read.
Changes nothing on the host unless --set or --run ask for it; both are undone at
the end. On a kernel with UKSM it samples UKSM's counters: there are no events.

examples:
  sudo ksmtrace record -o vms.ksm --duration 60
  sudo ksmtrace record --run -o py.ksm --merge -- python3 server.py
  sudo ksmtrace record --set pages_to_scan=5000 --scans 3
  sudo ksmtrace record --pid 1234 5678 --strict
  sudo ksmtrace record --contents --scans 5 --interval 2 -o exact.ksm
  sudo ksmtrace record --cow --duration 600 -o writers.ksm
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
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
    from ksmtrace.capture.cow import CowWatch
    from ksmtrace.capture.record import Recorded

_MIB = 1 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.usage = "ksmtrace record [OPTIONS] [-- CMD ...]"
    add = parser.add_argument
    add("-o", "--output", metavar="DIR", type=Path, help="the recording (default: ksm-DATE.ksm)")
    add("--force", action="store_true", help="replace an existing recording")
    add(
        "--backend", default="auto", metavar="NAME", help="auto, core, fentry, bcc, tracefs or uksm"
    )
    add("--duration", type=positive, metavar="S", help="end after S seconds")
    add("--scans", type=count, metavar="N", help="end after N full scans")
    add("--pid", type=count, nargs="+", metavar="P", help="keep only these processes' events")
    add("--interval", type=positive, default=1.0, metavar="S", help="seconds between samples")
    add("--census-interval", type=positive, metavar="S", help="census every S seconds too")
    add("--ring", type=count, default=64, metavar="MIB", help="event buffer, MiB (default: 64)")
    add("--strict", action="store_true", help="exit code 5 if any event was lost")
    add_workload_options(parser, "recording")
    add("--contents", action="store_true", help="step ksmd, and keep digests of what pages hold")
    add("--cow", action="store_true", help="see writes to merged pages as they happen, and who")
    add("--raw-pointers", action="store_true", help="store kernel addresses as they are")
    add("--cmdlines", action="store_true", help="store command lines, not only names")
    add_command(parser)


def run(args: argparse.Namespace) -> int:
    """Record; see the module's docstring."""
    from ksmtrace.capture.choose import choose_source
    from ksmtrace.capture.cow import CowWatch
    from ksmtrace.capture.record import RecordRequest, record, tidy_up
    from ksmtrace.capture.session import Options
    from ksmtrace.cli.status import StatusLine
    from ksmtrace.recording.target import Target

    command = command_of(args)
    knobs = knobs_of(args)
    if args.contents:
        _check_contents(args, knobs)
    ring_bytes = _ring_bytes(args.ring)
    output = args.output or Path(time.strftime("ksm-%Y%m%d-%H%M%S.ksm"))
    target = Target(output, force=args.force)
    watch = CowWatch() if args.cow else None
    choice = _uksm(args) or choose_source(args.backend, watch)
    _check_pids(args.pid, choice.source.fields_unknown)
    if (restored := tidy_up()) is not None:
        say(f"restored what a killed run had left: {restored}")
    say(f"backend {choice.source.name}: {choice.why}")
    if args.contents:
        say("everything is unmerged now, and ksmd is driven scan by scan (--contents)")
    elif choice.source.name == "uksm":
        _warn_if_paused()
    else:
        warn_if_idle(knobs)
    line = StatusLine(sys.stderr)
    recorded = record(
        RecordRequest(
            target=target,
            choice=choice,
            ring_bytes=ring_bytes,
            options=Options(
                duration=args.duration,
                scans=args.scans,
                interval=args.interval,
                census_interval=args.census_interval,
                pids=frozenset(args.pid) if args.pid else None,
            ),
            knobs=knobs,
            command=command,
            merge=args.merge,
            raw_pointers=args.raw_pointers,
            cmdlines=args.cmdlines,
            contents=args.contents,
            watch=watch,
        ),
        status=line.progress,
        sealing=line.sealing,
        say=say,
    )
    line.clear()
    if recorded.ended == "nothing":
        say(
            "ended early: ksmd is off or no process is registered, so no scan would ever end.\n"
            "          Register one (madvise, prctl, or --merge -- CMD) and see that run is 1."
        )
    if recorded.command_status is not None:
        say(f"{command[0]} ended with status {recorded.command_status}")
    say(
        f"{_found(recorded)} in {recorded.path.name}"
        f" (ended by {recorded.ended}); look with: ksmtrace report {output}"
    )
    if watch is not None:
        _say_breaks(watch)
    if recorded.lost:
        say(f"{recorded.lost:,} events were lost: ask for a larger --ring")
        if args.strict:
            return Exit.EVENTS_LOST
    return Exit.OK


def _say_breaks(watch: CowWatch) -> None:
    say(f"{watch.breaks:,} writes to merged pages were seen")
    if watch.unchecked:
        say(f"of {watch.unchecked:,} of them it is not known whether they were allowed")
    for obstacle in watch.obstacles:
        say(obstacle)


def _check_contents(args: argparse.Namespace, knobs: dict[str, str]) -> None:
    from ksmtrace.kernel.stepper import STEPPING_KNOBS
    from ksmtrace.processes.census import census_obstacle

    for name in STEPPING_KNOBS:
        if name in knobs:
            raise KsmtraceError(
                f"--contents drives ksmd itself, so {name} can't be set", "leave it out", Exit.USAGE
            )
    if args.pid:
        raise KsmtraceError("--contents needs every process", "leave --pid out", Exit.USAGE)
    obstacle = census_obstacle()
    if obstacle is not None:
        raise KsmtraceError(
            "the pages' contents can't be read here", obstacle.remedy, Exit.HOST_CANNOT
        )


def _found(recorded: Recorded) -> str:
    if recorded.samples:
        return f"{recorded.samples:,} samples of UKSM's counters"
    return f"{recorded.events:,} events and {recorded.scans:,} full scans"


def _uksm(args: argparse.Namespace) -> Choice | None:
    """The choice of UKSM's counters, if they are to be recorded.

    Raises KsmtraceError for options that mean nothing where there are only counters.
    """
    from ksmtrace.capture.uksm import choose_uksm, refused

    choice = choose_uksm(args.backend)
    if choice is None:
        return None
    options = {
        "--scans": args.scans is not None,
        "--pid": bool(args.pid),
        "--census-interval": args.census_interval is not None,
        "--run": args.run,
        "--set": bool(args.set),
        "--merge": args.merge,
        "--contents": args.contents,
        "--cow": args.cow,
    }
    if (error := refused(options)) is not None:
        raise error
    return choice


def _warn_if_paused() -> None:
    from ksmtrace.kernel.host import UKSM
    from ksmtrace.kernel.sysfs import read_knob

    if read_knob("run", UKSM) != "1":
        say(f"uksmd is paused (run is not 1). To go on: echo 1 | sudo tee {UKSM}/run")


def _ring_bytes(mebibytes: int) -> int:
    if mebibytes & (mebibytes - 1):
        raise KsmtraceError(
            f"--ring {mebibytes} is not a power of two", "for example --ring 64", Exit.USAGE
        )
    if mebibytes > 1 << 11:
        raise KsmtraceError("--ring goes up to 2048", "for example --ring 256", Exit.USAGE)
    return mebibytes * _MIB


def _check_pids(pids: list[int] | None, fields_unknown: tuple[str, ...]) -> None:
    from ksmtrace.kernel.host import in_initial_pid_namespace

    if not pids:
        return
    if "tgid" in fields_unknown:
        raise KsmtraceError(
            "--pid needs a backend that knows the owner of a page",
            "use --backend core or --backend bcc",
            Exit.USAGE,
        )
    if not in_initial_pid_namespace():
        raise KsmtraceError(
            "--pid can't be matched in a container: events carry the host's process ids",
            "record on the host, or without --pid",
            Exit.HOST_CANNOT,
        )
    for pid in pids:
        if not Path(f"/proc/{pid}").is_dir():
            raise KsmtraceError(f"there is no process {pid}", "see: ps -e")
