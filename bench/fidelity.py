"""Hold the reference scanner against the real ksmd in many random scenarios, and count.

make fidelity                                   2,000 small and 100 large scenarios
.venv/bin/python bench/fidelity.py --small 300 --large 3 --seed 7

Needs root, and ksmd for itself. Exit code 6 if anything differs, 1 if a branch of the algorithm
was never reached.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from disagreements import tell_failures, written_scenarios
from rich.console import Console
from rich.progress import Progress

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.lab.fidelity import Tally, hold_all_against, random_scenarios
from ksmtrace.lab.needs import missing, needs_of
from ksmtrace.lab.on_kernel import host_stage
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.model.branches import Branch


def tell(tally: Tally, seconds: float, out: Console) -> None:
    """The result as text."""
    out.print("scenarios that reached each branch:")
    for branch in Branch:
        about = branch.value
        unreachable = about.unreachable and not tally.reached[branch]
        reason = f" (unreachable here: {about.unreachable})" if unreachable else ""
        out.print(f"  {tally.reached[branch]:>6}  {about.meaning}{reason}")
    tell_failures(tally, out)
    out.print(
        f"\n{tally.scenarios} scenarios, {tally.operations} operations each compared in every"
        f" counter,\n{tally.scans} full scans, {tally.batches} runs of ksmd, {tally.events} events,"
        f" {tally.ksm_pages} KSM pages made; {seconds:.0f} s"
    )


def main() -> int:
    """Run; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", type=int, default=2000, metavar="N", help="small scenarios")
    parser.add_argument("--large", type=int, default=100, metavar="N", help="large ones")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first one's number")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    out = Console(highlight=False)
    tally = Tally()
    begin = time.monotonic()
    try:
        with host_stage() as host:
            scenarios = [
                one for one in written_scenarios() if not missing(needs_of(plan_scenario(one)))
            ]
            scenarios += random_scenarios(args.small, args.large, args.seed, host.profile)
            with Progress(console=Console(stderr=True), transient=True) as progress:
                task = progress.add_task("scenarios", total=len(scenarios))
                hold_all_against(host, scenarios, tally, each=lambda: progress.advance(task))
            kernel = host.profile.name
    except KsmtraceError as error:
        print(f"fidelity: {error.message}\n          {error.hint or ''}", file=sys.stderr)
        return error.exit_code
    differing = len(tally.failures) + len(tally.disappointments)
    unreached = tally.unreached()
    if args.json:
        told = {
            "kernel": kernel, "agree": not differing, "scenarios": tally.scenarios,
            "scans": tally.scans, "batches": tally.batches, "events": tally.events,
            "ksm_pages": tally.ksm_pages, "seconds": time.monotonic() - begin,
            "reached": {branch.name.lower(): tally.reached[branch] for branch in Branch},
            "unreached": [branch.name.lower() for branch in unreached],
        }  # fmt: skip
        print(json.dumps(told, indent=1))
    else:
        tell(tally, time.monotonic() - begin, out)
        verdict = f"{differing} differ" if differing else f"all agree with Linux {kernel}"
        out.print(verdict, style="bold red" if differing else "bold green")
        for branch in unreached:
            out.print(f"never reached: {branch.value.meaning}", style="bold red")
    if differing:
        return Exit.DIFFERENCES
    return Exit.FAILED if unreached else Exit.OK


if __name__ == "__main__":
    sys.exit(main())
