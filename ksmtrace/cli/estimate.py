"""estimate: what KSM would save in running processes, before it is turned on

Reads the memory of processes twice and counts equal pages. Nothing is stopped,
written or brought in from swap, and KSM need not be on. It assumes that all
memory that can be merged is registered (as prctl, MemoryKSM= and QEMU do);
--mergeable counts only what is registered now. Who reads all processes needs
root; one's own need none.

A sample (--sample 10%) is of contents, not of pages: all memory is still read
once, but only a tenth is kept, sorted and read again.

examples:
  sudo ksmtrace estimate --all
  sudo ksmtrace estimate --vms --set use_zero_pages=1
  sudo ksmtrace estimate --cgroup system.slice/redis.service --regions
  ksmtrace estimate 1234 5678 --json | jq .net_profit_bytes
  sudo ksmtrace estimate --name 'postgres*' --interval 30 --save pg.ksm
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from ksmtrace.inspect.estimate.answer import Answer

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ksmtrace.cli.arguments import process_id, seconds, whole

    add = parser.add_argument
    add("pid", nargs="*", type=process_id, metavar="PID", help="these processes")
    add("--all", action="store_true", dest="everything", help="all processes")
    add("--vms", action="store_true", help="all QEMU guests")
    add("--cgroup", metavar="PATH", help="the processes of a cgroup and those below it")
    add("--name", metavar="GLOB", help="processes or guests called so: 'redis*'")
    add("--mergeable", action="store_true", help="count only regions registered now")
    add(
        "--set", nargs="+", default=[], action="extend", metavar="KNOB=VALUE",
        help="what if: reckon with these knobs instead of the host's; sets nothing",
    )  # fmt: skip
    add("--interval", type=seconds, default=1.0, metavar="S", help="between readings (default 1)")
    add("--once", action="store_true", help="read once: don't see which pages change")
    add("--sample", type=_share, default=1.0, metavar="SHARE", help="sample contents, e.g. 10%%")
    add("--max-memory", type=_bytes, metavar="SIZE", help="use no more than this, e.g. 512M")
    add("--process-seconds", type=seconds, default=60.0, metavar="S", help="each (default 60)")
    add(
        "--jobs", type=whole("a number", 1, 256), default=1, metavar="N", help="readers (default 1)"
    )
    add("--regions", action="store_true", help="a table of regions, too")
    add("--save", metavar="DIR", type=Path, help="keep keyed digests for `ksmtrace simulate`")
    add("--force", action="store_true", help="--save may replace a recording")
    add("--json", action="store_true", help="print JSON")


def _share(text: str) -> float:
    # A plain 0.1 could be meant as a tenth: only a percentage is clear.
    number = 0.0
    if text.endswith("%"):
        with contextlib.suppress(ValueError):
            number = float(text[:-1])
    if not 0 < number <= 100:
        raise argparse.ArgumentTypeError(f"{text} is no share; write for example 10%")
    return number / 100


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15})([KMGT]?)(i?B)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no size; write for example 512M")
    return int(found[1]) * _UNITS[found[2]]


def run(args: argparse.Namespace) -> int:
    """Estimate; see the module's docstring."""
    from ksmtrace.cli.status import StatusLine
    from ksmtrace.inspect.estimate.answer import estimate
    from ksmtrace.inspect.estimate.read import HowToRead
    from ksmtrace.kernel.knobs import parse_assignments
    from ksmtrace.processes.selection import Wanted, select
    from ksmtrace.recording.target import Target

    if args.force and args.save is None:
        raise KsmtraceError("--force is for --save", "add --save DIR, or leave it out", Exit.USAGE)
    knobs = parse_assignments(args.set)
    target = Target(args.save, force=args.force, option="--save") if args.save else None
    selection = select(Wanted(args.pid, args.everything, args.cgroup, args.vms, args.name))
    how = HowToRead(
        fraction=args.sample,
        interval=None if args.once else args.interval,
        jobs=args.jobs,
        process_seconds=args.process_seconds,
        max_bytes=args.max_memory,
        mergeable_only=args.mergeable,
        keep_numbers=target is not None,
    )
    line = StatusLine(sys.stderr)
    try:
        answer, sample = estimate(selection, how, knobs, line.working)
    finally:
        line.clear()
    _print(answer, as_json=args.json, regions=args.regions)
    if target is not None:
        from ksmtrace.inspect.estimate.snapshot import save_snapshot

        try:
            save_snapshot(sample, target, line.working)
        finally:
            line.clear()
    return Exit.OK


def _print(answer: Answer, *, as_json: bool, regions: bool) -> None:
    if as_json:
        import json

        from ksmtrace.views.estimate import estimate_as_dict

        print(json.dumps(estimate_as_dict(answer), indent=1), flush=True)
    else:
        from rich.console import Console

        from ksmtrace.views.estimate import render_estimate

        Console(highlight=False).print(render_estimate(answer, regions=regions))
