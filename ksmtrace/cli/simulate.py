"""simulate: run a scenario or a host's memory on models of kernels

Needs no root and no KSM. Nothing is sampled: the reference scanner does what
ksmd of that release would do, page by page. FILE is a scenario, or a recording
that tells what pages held: a snapshot of a host (`ksmtrace estimate --save`),
or one with contents. It is scanned until nothing more is saved, as if nothing
had been merged before, and told how long that takes at which CPU cost.

In a scenario with `run` steps scanners work at their own pace: then they are
compared (docs/compare.md), KSM of any release and UKSM, each priced by what its
work costs on this host. `lab list` names workloads.

examples:
  ksmtrace simulate why-two-scans
  ksmtrace simulate my.toml --on ksm:6.6 --on ksm:6.12
  ksmtrace simulate my.toml --on ksm:2011 --on ksm:6.18 --visits
  ksmtrace simulate my.toml --set smart_scan=0 --json | jq .scans
  ksmtrace simulate host.ksm --set pages_to_scan=1000 use_zero_pages=1
  ksmtrace simulate why-two-scans --on ksm:6.12 --on uksm:full
  ksmtrace simulate identical-vms --on ksm:6.12 --on ksm:2011 --on uksm:full
  ksmtrace simulate two-copies --on uksm:full --on uksm:full-ghost --seed 7
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ksmtrace.lab.where import Where
    from ksmtrace.model.engines import Engine


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ksmtrace.cli.arguments import whole

    add = parser.add_argument
    add("scenario", metavar="FILE", help="a scenario, see docs/scenarios.md; - for stdin")
    add(
        "--on",
        action="append",
        metavar="WHERE",
        help="model, ksm:6.12, ksm:2011, uksm:full; repeatable",
    )
    add(
        "--set", nargs="+", default=[], action="extend", metavar="KNOB=VALUE",
        help="instead of the scenario's or the recording's own knobs",
    )  # fmt: skip
    add("--visits", action="store_true", help="tell what became of every page visit")
    add(
        "--scans", type=whole("a number of scans", 1, 100_000), metavar="N",
        help="of a recording: at most N scans (default 100)",
    )  # fmt: skip
    add(
        "--engine", choices=("readable", "fast"),
        help="which of the two with the same answers (scenario: readable, recording: fast)",
    )  # fmt: skip
    add(
        "--protocol", metavar="NAME",
        help="compare at equal cpu, as defaults, at equal visits, or all (default)",
    )  # fmt: skip
    add(
        "--seed", type=whole("a seed", 0, 1 << 32), default=0, metavar="N",
        help="of UKSM's random numbers (default 0)",
    )  # fmt: skip
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Simulate; see the module's docstring."""
    from ksmtrace.kernel.knobs import parse_assignments
    from ksmtrace.lab.where import parse_all

    places = parse_all(args.on or ["ksm:6.18"], models_only=True)
    knobs = parse_assignments(args.set)
    if Path(args.scenario).is_dir():
        if args.protocol is not None or any(place.uksm for place in places):
            raise KsmtraceError(
                "a snapshot is scanned by models of KSM only", "name ksm:... only", Exit.USAGE
            )
        return _moment(args, places, knobs)
    if args.scans is not None:
        raise KsmtraceError(
            "--scans is for recordings", "a scenario says itself how often to scan", Exit.USAGE
        )
    from ksmtrace.cli.lab import print_run
    from ksmtrace.lab.contest.ground import run_seconds
    from ksmtrace.lab.run import load_plan, run_everywhere

    plan = load_plan(args.scenario, knobs)
    if args.protocol is not None or run_seconds(plan):
        from ksmtrace.cli.contest import run_contest

        return run_contest(args, plan, places)
    engine: Engine = args.engine or "readable"
    if args.visits and engine == "fast":
        raise KsmtraceError(
            "the fast engine keeps no log of visits", "leave --engine out", Exit.USAGE
        )
    found = run_everywhere(plan, places, visits=args.visits, seed=args.seed, engine=engine)
    print_run(found, as_json=args.json)
    return Exit.DIFFERENCES if found.disappointments else Exit.OK


def _moment(args: argparse.Namespace, places: list[Where], knobs: Mapping[str, str]) -> int:
    import sys

    from ksmtrace.cli.status import StatusLine
    from ksmtrace.kernel.costs import host_costs
    from ksmtrace.kernel.host import tick_ns
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.views.what_if import render_moment
    from ksmtrace.whatif.ask import ask
    from ksmtrace.whatif.moment import read_moment
    from ksmtrace.whatif.report import report_of

    if args.visits:
        raise KsmtraceError(
            "--visits is for scenarios", "a recording has too many pages to tell", Exit.USAGE
        )
    for place in places:
        if place.uksm is not None:
            raise KsmtraceError(
                f"what if on a recording is for KSM, not {place.name}",
                "scenarios run on UKSM: ksmtrace lab list names some",
                Exit.USAGE,
            )
    recording = StoredRecording(args.scenario)
    line = StatusLine(sys.stderr)
    costs, tick = host_costs(), tick_ns()
    line.working("reading what pages held")
    outcomes = []
    try:
        moment = read_moment(recording)
        for place in places:

            def progress(number: int, pages: int, name: str = place.name) -> None:
                line.working(f"{name}: scan {number}, {pages:,} of {len(moment):,} pages")

            outcomes.append(
                ask(
                    moment, place.profile, place.name, knobs, costs=costs.costs, tick_ns=tick,
                    engine=args.engine or "fast", most=args.scans or 100, progress=progress,
                )
            )  # fmt: skip
            if outcomes[-1].passes.partial:
                break
    finally:
        line.clear()
    report = report_of(moment, outcomes, costs_origin=costs.origin, tick_ns=tick)
    if args.json:
        import json

        print(json.dumps(report, indent=1))
    else:
        from rich.console import Console

        Console(highlight=False).print(render_moment(report))
    return Exit.INTERRUPTED if any(o.passes.partial for o in outcomes) else Exit.OK
