"""Scanners compared at their own pace: what `simulate` does with a scenario that has run steps."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ksmtrace.cli.status import StatusLine
from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    import argparse

    from ksmtrace.lab.contest.contest import Contest
    from ksmtrace.lab.plan import Plan
    from ksmtrace.lab.where import Where


def run_contest(args: argparse.Namespace, plan: Plan, places: list[Where]) -> int:
    """Compare, and print what was found, that of an interrupted comparison too."""
    from ksmtrace.kernel.costs import host_costs
    from ksmtrace.kernel.signals import signals_interrupt
    from ksmtrace.lab.contest.contest import Contest
    from ksmtrace.lab.contest.protocols import chosen

    if args.visits:
        raise KsmtraceError("--visits goes with scan, not with run", "leave it out", Exit.USAGE)
    if args.engine == "fast":
        raise KsmtraceError(
            "the fast engine can't do work at ksmd's own pace (run)", "leave it out", Exit.USAGE
        )
    line = StatusLine(sys.stderr)
    protocols = chosen(args.protocol, plan, places)
    contest = Contest(plan, places, protocols, host_costs(), args.seed, line.working)
    code = Exit.OK
    try:
        with signals_interrupt():
            contest.run()
    except KeyboardInterrupt:
        if not contest.outcomes:
            raise
        code = Exit.INTERRUPTED
    finally:
        line.clear()
    _print(contest, as_json=args.json)
    return code


def _print(contest: Contest, *, as_json: bool) -> None:
    from ksmtrace.lab.contest.result import contest_report

    report = contest_report(contest)
    if as_json:
        import json

        print(json.dumps(report))
        return
    from rich.console import Console

    from ksmtrace.views.contest import render_contest

    console = Console(highlight=False)
    console.print(render_contest(report, min(console.width, 100)))
