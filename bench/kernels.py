"""Try ksmtrace on other kernels: capture and the reference scanner against their real ksmd.

make test-kernels                                     6.1 and 6.12 in QEMU, and this host
.venv/bin/python bench/kernels.py --small 50 --on vm:6.1

Boots the distribution's kernels in QEMU, performs scenarios there with every capture backend that
works, and compares every counter and event with the model out here. Then each switch of the
kernel's profile is set otherwise, which must be noticed. --write keeps the result for the table in
docs/kernels.md. Exit code 6 if anything differs, or a switch could be set otherwise unnoticed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from disagreements import ROOT, tell_failures, written_scenarios
from rich.console import Console
from rich.progress import Progress

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.lab.fidelity import random_scenarios
from ksmtrace.lab.inversions import inversions, tells_apart
from ksmtrace.lab.where import HOST, parse_where
from ksmtrace.vm.guest import booted
from ksmtrace.vm.qemu import LAB_MACHINE
from ksmtrace.vm.trial import Trial, Tried, can_be_performed, this_host, try_kernel

_WITH_BCC = replace(LAB_MACHINE, memory_mib=2560)
"""A compiler and kernel headers need room in the first root file system."""
RESULTS = ROOT / "docs" / "kernels-tried.json"


@dataclass(frozen=True)
class Outcome:
    """What came of one place. unnoticed: switches that could be set otherwise without notice."""

    trial: Trial
    seconds: float
    unnoticed: list[str]
    noticed: dict[str, str]


def _open(place: str) -> AbstractContextManager[Tried]:
    series = parse_where(place).series
    return this_host() if series is None else booted(series, _WITH_BCC, bcc=True)


def try_place(place: str, small: int, large: int, each: Callable[[], None]) -> Outcome:
    """Try one kernel. Raises KsmtraceError."""
    begin = time.monotonic()
    with _open(place) as kernel:
        written = [
            s for s in written_scenarios() if can_be_performed(s, kernel.profile, kernel.has)
        ]
        few = written[: len(written) // 8]
        drawn = random_scenarios(small, large, 0, kernel.profile, has=kernel.has)
        trial = try_kernel(kernel, [*written, *drawn], few, each=each)
    noticed = {}
    unnoticed = []
    for name, other in inversions(trial.profile, kernel.has):
        by = tells_apart(trial.kept, other)
        if by:
            noticed[name] = by
        else:
            unnoticed.append(name)
    return Outcome(trial, time.monotonic() - begin, unnoticed, noticed)


def tell(place: str, outcome: Outcome, out: Console) -> None:
    """One kernel's result as text."""
    trial = outcome.trial
    best = trial.best.tally
    out.print(f"\n[bold]Linux {trial.profile.name}[/bold] ({place}), {outcome.seconds:.0f} s")
    for name, one in trial.backends.items():
        if one.able:
            out.print(
                f"  {name:<8} works: {one.tally.scenarios} scenarios, {one.tally.events} events"
                f" of {len(one.events)} kinds"
            )
        else:
            out.print(f"  {name:<8} [dim]no: {one.why}[/dim]", soft_wrap=True)
    out.print(
        f"  model    {best.scenarios} scenarios, {best.operations} operations, {best.scans} full"
        f" scans, {best.events} events,\n           {best.ksm_pages} KSM pages made"
    )
    for backend in trial.backends.values():
        tell_failures(backend.tally, out)
    out.print(f"  switches {len(outcome.noticed)} set otherwise, each noticed", style="green")
    for name in outcome.unnoticed:
        out.print(f"           [red]{name} would not be noticed[/red]")
    verdict = "all agree" if trial.agrees else "the model differs"
    out.print(f"  {verdict}", style="bold green" if trial.agrees else "bold red")


def keep(outcomes: dict[str, Outcome]) -> None:
    """Write the results beside those of the other places."""
    known: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for place, outcome in outcomes.items():
        known[place] = outcome.trial.told() | {
            "switches_noticed": sorted(outcome.noticed),
            "switches_unnoticed": sorted(outcome.unnoticed),
        }
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def main() -> int:
    """Run; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--on", action="append", metavar="WHERE", help="vm:6.1, vm:6.12 or host")
    parser.add_argument("--small", type=int, default=720, metavar="N", help="random scenarios")
    parser.add_argument("--large", type=int, default=5, metavar="N", help="large ones")
    parser.add_argument("--write", action="store_true", help=f"keep in {RESULTS.name}")
    args = parser.parse_args()
    places = args.on or ["vm:6.1", "vm:6.12", HOST]
    out = Console(highlight=False)
    outcomes: dict[str, Outcome] = {}
    failed: dict[str, KsmtraceError] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:

        def one(place: str) -> None:
            task = progress.add_task(place, total=None)
            try:
                outcomes[place] = try_place(
                    place, args.small, args.large, lambda: progress.advance(task)
                )
            except KsmtraceError as error:
                failed[place] = error

        # Each guest has a processor of its own; this host's ksmd is everybody's, so alone.
        guests = [place for place in places if place != HOST]
        with ThreadPoolExecutor(max(len(guests), 1)) as pool:
            list(pool.map(one, guests))
        for place in places:
            if place == HOST:
                one(place)
    for place in places:
        if place in outcomes:
            tell(place, outcomes[place], out)
    for place, error in failed.items():
        out.print(f"\n{place}: [bold red]not tried:[/bold red] {error.message}", soft_wrap=True)
    if args.write:
        keep(outcomes)
    if not all(one.trial.agrees and not one.unnoticed for one in outcomes.values()):
        return Exit.DIFFERENCES
    return next(iter(failed.values())).exit_code if failed else Exit.OK


if __name__ == "__main__":
    sys.exit(main())
