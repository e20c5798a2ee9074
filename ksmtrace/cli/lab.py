"""lab: run a scenario on the real ksmd and on models, and compare them

`lab run FILE` performs the scenario with real processes, ksmd stepped batch by
batch, and on each model named, and prints counters and events side by side.
Afterwards every knob is as it was. Needs root and ksmd for itself: with any
other process registered it refuses. Exit code 6 if anything differs or is not
as the scenario expects. `lab list` names the scenarios that come with ksmtrace.

examples:
  ksmtrace lab list
  sudo ksmtrace lab run why-two-scans
  sudo ksmtrace lab run my.toml --on host --on model --on ksm:6.6
  sudo ksmtrace lab run my.toml --json | jq .agree
  sudo ksmtrace lab run my.toml --record my.ksm
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksmtrace.lab.performance import Observation, Performance
    from ksmtrace.lab.plan import Plan
    from ksmtrace.lab.run import Run


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.usage = "ksmtrace lab run FILE [OPTIONS]\n       ksmtrace lab list"
    add = parser.add_argument
    add("action", choices=("run", "list"), metavar="run|list", help="what to do")
    add("scenario", nargs="?", metavar="FILE", help="a scenario, see docs/scenarios.md")
    add("--on", action="append", metavar="WHERE", help="host, model, ksm:6.12; repeatable")
    add(
        "--set", nargs="+", default=[], action="extend", metavar="KNOB=VALUE",
        help="instead of the scenario's own knobs",
    )  # fmt: skip
    add("--backend", default="auto", metavar="NAME", help="auto, core, bcc or tracefs")
    add("--record", type=Path, metavar="DIR", help="keep the real run, with contents")
    add("--force", action="store_true", help="replace an existing recording")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run or list; see the module's docstring."""
    from ksmtrace.errors import KsmtraceError
    from ksmtrace.kernel.knobs import parse_assignments
    from ksmtrace.lab.run import load_plan, run_everywhere
    from ksmtrace.lab.where import parse_all

    if args.action == "list":
        return _list(as_json=args.json)
    if args.scenario is None:
        raise KsmtraceError(
            "lab run needs a scenario", "for example: ksmtrace lab run why-two-scans", Exit.USAGE
        )
    places = parse_all(args.on or ["host", "model"], models_only=False)
    real = any(place.real for place in places)
    if args.record is not None and not real:
        raise KsmtraceError("--record keeps a real run", "add --on host", Exit.USAGE)
    plan = load_plan(args.scenario, parse_assignments(args.set))
    with _progress(sys.stderr.isatty()) as progress:
        found = run_everywhere(plan, places, on_host=_on_host(args), progress=progress)
    print_run(found, as_json=args.json)
    return Exit.OK if found.agree and not found.disappointments else Exit.DIFFERENCES


def _on_host(
    args: argparse.Namespace,
) -> Callable[[Plan, Callable[[Observation], None]], Performance]:
    def perform(plan: Plan, watch: Callable[[Observation], None]) -> Performance:
        from ksmtrace.lab.on_kernel import host_stage
        from ksmtrace.lab.recorder import record_performance
        from ksmtrace.recording.target import Target

        target = Target(args.record, force=args.force) if args.record is not None else None
        with host_stage(args.backend) as host:
            print(f"ksmtrace: events by {host.source.name}, {host.why}", file=sys.stderr)
            if target is None:
                return host.perform(plan, watch=watch)
            performance = record_performance(host, plan, target, watch=watch)
        print(f"ksmtrace: kept as {args.record}", file=sys.stderr)
        return performance

    return perform


class _progress:  # noqa: N801 reads as the function it stands for
    """A line on the terminal that tells where the run is."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown

    def __enter__(self) -> Callable[[str, int, int], None]:
        return self._tell

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _tell(self, where: str, step: int, steps: int) -> None:
        if self._shown:
            print(f"\r\x1b[K{where}: step {step} of {steps}", end="", file=sys.stderr, flush=True)


def print_run(found: Run, *, as_json: bool) -> None:
    """Print what a run found."""
    from ksmtrace.lab.report import report_of

    report = report_of(found)
    if as_json:
        import json

        print(json.dumps(report, indent=1))
    else:
        from rich.console import Console

        from ksmtrace.views.lab import render_lab

        Console(highlight=False).print(render_lab(report))


def _list(*, as_json: bool) -> int:
    from ksmtrace.lab.run import shipped_scenarios
    from ksmtrace.lab.scenario import read_scenario

    told = [
        {"name": path.stem, "title": scenario.title, "about": scenario.about}
        for path in shipped_scenarios()
        for scenario in [read_scenario(path)]
    ]
    if as_json:
        import json

        print(json.dumps(told, indent=1))
    else:
        width = max((len(one["name"]) for one in told), default=0)
        for one in told:
            print(f"{one['name']:<{width}}  {one['title']}")
    return Exit.OK
