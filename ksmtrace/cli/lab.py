"""lab: run a scenario on real kernels and on models, and compare them

`lab run FILE` performs the scenario with real processes, ksmd stepped batch by
batch, and on each model named, and prints counters and events side by side.
Afterwards every knob is as it was. On this host that needs root and ksmd for
itself: with any other process registered it refuses. `--on vm:6.1` boots the
distribution's kernel of that series in QEMU instead, which touches nothing
here. Exit code 6 if anything differs or is not as the scenario expects.
`lab list` names the scenarios that come with ksmtrace.

`lab calibrate` measures what ksmd's work costs on this host, in some 50 s: a
visit, a checksum, a level of a tree, a merge. What predicts ksmd's CPU time
reckons with it from then on. Without root or KSM it measures the little that
a program can, and says what stays as built in.

examples:
  ksmtrace lab list
  sudo ksmtrace lab run why-two-scans
  sudo ksmtrace lab run my.toml --on host --on model --on ksm:6.6
  ksmtrace lab run why-two-scans --on vm:6.12 --on model --step
  sudo ksmtrace lab run my.toml --json | jq .agree
  sudo ksmtrace lab run my.toml --record my.ksm
  sudo ksmtrace lab calibrate
  ksmtrace lab calibrate --dry-run --json | jq .constants.merge_ns
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ksmtrace.cli.workload import count
from ksmtrace.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksmtrace.lab.performance import Observation, Performance, Watch
    from ksmtrace.lab.plan import Plan
    from ksmtrace.lab.run import Run
    from ksmtrace.lab.where import Where
    from ksmtrace.recording.target import Target
    from ksmtrace.vm.packages import KernelPackage


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.usage = (
        "ksmtrace lab run FILE [OPTIONS]\n       ksmtrace lab list\n       "
        "ksmtrace lab calibrate [--save FILE | --dry-run] [--rounds N] [--json]"
    )
    add = parser.add_argument
    add(
        "action",
        choices=("run", "list", "calibrate"),
        metavar="run|list|calibrate",
        help="what to do",
    )
    add("scenario", nargs="?", metavar="FILE", help="a scenario, see docs/scenarios.md")
    add("--on", action="append", metavar="WHERE", help="host, vm:6.12, model, ksm:6.6; repeatable")
    add(
        "--set", nargs="+", default=[], action="extend", metavar="KNOB=VALUE",
        help="instead of the scenario's own knobs",
    )  # fmt: skip
    add("--backend", default="auto", metavar="NAME", help="auto, core, fentry, bcc or tracefs")
    add("--record", type=Path, metavar="DIR", help="keep the real run, with contents")
    add("--force", action="store_true", help="replace an existing recording")
    add("--step", action="store_true", help="tell each real step, then wait for Enter")
    add("--save", type=Path, metavar="FILE", help="keep calibrated costs there")
    add("--dry-run", action="store_true", help="calibrate, and keep nothing")
    add("--rounds", type=count, default=3, metavar="N", help="calibrate so often (default 3)")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run or list; see the module's docstring."""
    from ksmtrace.errors import KsmtraceError
    from ksmtrace.kernel.knobs import parse_assignments
    from ksmtrace.lab.run import load_plan, run_everywhere
    from ksmtrace.lab.where import parse_all

    if args.action == "list":
        return _list(as_json=args.json)
    if args.action == "calibrate":
        return _calibrate(args)
    if args.scenario is None:
        raise KsmtraceError(
            "lab run needs a scenario", "for example: ksmtrace lab run why-two-scans", Exit.USAGE
        )
    places = parse_all(args.on or ["host", "model"], models_only=False)
    real = [place for place in places if place.real]
    if args.record is not None and len(real) != 1:
        hint = "name one of them only" if real else "add --on host"
        raise KsmtraceError("--record keeps one real run", hint, Exit.USAGE)
    plan = load_plan(args.scenario, parse_assignments(args.set))
    with _progress(sys.stderr.isatty() and not args.step) as progress:
        found = run_everywhere(plan, places, on_real=_on_real(args), progress=progress.step)
    print_run(found, as_json=args.json)
    return Exit.OK if found.agree and not found.disappointments else Exit.DIFFERENCES


def _on_real(args: argparse.Namespace) -> Callable[[Where, Plan, Watch], Performance]:
    def perform(place: Where, plan: Plan, watch: Watch) -> Performance:
        from ksmtrace.recording.target import Target

        target = (
            Target(args.record, force=args.force, option="--record")
            if args.record is not None
            else None
        )
        if args.step:
            watch = _stepping(plan, watch)
        performer = _in_guest if place.series else _on_host
        performance = performer(args.backend, place, plan, watch, target)
        performance.on = place.name
        if target is not None:
            print(f"ksmtrace: kept as {args.record}", file=sys.stderr)
        return performance

    return perform


def _on_host(
    backend: str, _place: Where, plan: Plan, watch: Watch, target: Target | None
) -> Performance:
    from ksmtrace.lab.on_kernel import host_stage
    from ksmtrace.lab.recorder import record_performance

    with host_stage(backend) as host:
        print(f"ksmtrace: events by {host.source.name}, {host.why}", file=sys.stderr)
        if target is None:
            return host.perform(plan, watch=watch)
        return record_performance(host, plan, target, watch=watch)


def _in_guest(
    backend: str, place: Where, plan: Plan, watch: Watch, target: Target | None
) -> Performance:
    from ksmtrace.vm.guest import booted
    from ksmtrace.vm.record import perform_and_record

    assert place.series is not None

    def announce(kernel: KernelPackage) -> None:
        print(f"ksmtrace: booting Linux {kernel.version} in QEMU, some 15 s", file=sys.stderr)

    with booted(place.series, found=announce) as guest:
        guest.stage(backend)
        version = guest.kernel.version
        print(f"ksmtrace: {version}: events by {guest.backend}, {guest.why}", file=sys.stderr)
        if target is None:
            return guest.perform(plan, watch=watch)
        return perform_and_record(guest, plan, target, watch=watch)


def _stepping(plan: Plan, watch: Watch) -> Watch:
    """Tell every operation as it is done, and wait where somebody sits at the terminal."""
    from ksmtrace.views.lab_step import render_step

    steps = {step.number: step for step in plan.steps}
    before: dict[str, int] = {}
    told: list[str] = []
    done = Counter[int]()

    def tell(seen: Observation) -> None:
        watch(seen)
        planned = steps[seen.step]
        told.extend(seen.told)
        done[seen.step] += 1
        if done[seen.step] < len(planned.operations):
            return
        changed = {
            name: (before.get(name), value)
            for name, value in sorted(seen.counters.items())
            if value != before.get(name) and (value or name in before)
        }
        text = render_step(seen.step, planned.does, planned.say, told, changed)
        print(text, file=sys.stderr, flush=True)
        before.update(seen.counters)
        told.clear()
        if sys.stdin.isatty():
            with suppress(EOFError):
                input("  -- Enter goes on, Ctrl-C ends --")

    return tell


class _progress:  # noqa: N801 reads as the function it stands for
    """A line on the terminal that tells where the run is."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def step(self, where: str, step: int, steps: int) -> None:
        self.tell(f"{where}: step {step} of {steps}")

    def tell(self, words: str) -> None:
        if self._shown:
            print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)


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


def _calibrate(args: argparse.Namespace) -> int:
    from ksmtrace.errors import KsmtraceError
    from ksmtrace.kernel.costs import costs_file, prove_writable, write_costs
    from ksmtrace.lab.calibrate.calibration import calibrate

    if args.scenario is not None:
        raise KsmtraceError(f"calibrate needs no {args.scenario!r}", "leave it out", Exit.USAGE)
    if args.dry_run and args.save is not None:
        raise KsmtraceError("--dry-run and --save contradict", "leave one out", Exit.USAGE)
    path = None if args.dry_run else args.save or costs_file()
    if path is not None:
        prove_writable(path)
    with _progress(sys.stderr.isatty()) as progress:
        found = calibrate(args.rounds, progress=progress.tell)
    if args.json:
        import json

        print(json.dumps(found.as_dict(), indent=1))
    else:
        from rich.console import Console

        from ksmtrace.views.calibration import render_calibration

        Console(highlight=False).print(render_calibration(found))
    if path is not None:
        write_costs(path, found.calibration)
        print(f"ksmtrace: kept in {path}", file=sys.stderr)
    return Exit.OK


def _list(*, as_json: bool) -> int:
    from ksmtrace.lab.run import shipped_scenarios, shipped_workloads
    from ksmtrace.lab.scenario import read_scenario

    groups = {"scenario": shipped_scenarios(), "workload": shipped_workloads()}
    told = [
        {"name": path.stem, "group": group, "title": scenario.title, "about": scenario.about}
        for group, paths in groups.items()
        for path in paths
        for scenario in [read_scenario(path)]
    ]
    if as_json:
        import json

        print(json.dumps(told, indent=1))
    else:
        width = max((len(one["name"]) for one in told), default=0)
        for group in groups:
            if group == "workload":
                print(
                    "\nworkloads, to compare scanners by: ksmtrace simulate NAME --on ... --on ..."
                )
            for one in told:
                if one["group"] == group:
                    print(f"{one['name']:<{width}}  {one['title']}")
    return Exit.OK
