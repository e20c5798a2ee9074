"""How do KSM and UKSM compare on the workloads that come with ksmtrace?

.venv/bin/python bench/contests.py [NAME ...] [--write] [--json]

Each workload of `ksmtrace lab list` under the three protocols, at the built-in prices of work, one
seed. --write keeps the figures in docs/contests.json, from which docs/compare.md has its table.
What it can't measure: real caches, real locks, and whether UKSM's code does what its model does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ksmtrace.kernel.costs import DEFAULT, HostCosts
from ksmtrace.lab.contest.contest import Contest
from ksmtrace.lab.contest.protocols import chosen
from ksmtrace.lab.contest.result import contest_report
from ksmtrace.lab.run import load_plan, shipped_workloads
from ksmtrace.lab.where import parse_all

ON = ["ksm:6.12", "ksm:2011", "uksm:full", "uksm:full-ghost-freeze"]
KEPT = Path(__file__).parents[1] / "docs" / "contests.json"
_LEFT_OUT = ("curve", "work")


def measured(name: str) -> dict[str, Any]:
    """One workload's report without the curves."""
    plan, places = load_plan(name, {}), parse_all(ON, models_only=True)
    began = time.monotonic()
    contest = Contest(plan, places, chosen("all", plan, places), HostCosts(DEFAULT, "built in"))
    contest.run()
    report = contest_report(contest)
    for told in report["protocols"]:
        told["outcomes"] = [
            {key: value for key, value in outcome.items() if key not in _LEFT_OUT}
            for outcome in told["outcomes"]
        ]
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return {**report, "scenario": name}


def main() -> None:
    """Measure, and print or keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    names = args.name or [path.stem for path in shipped_workloads()]
    found = [measured(name) for name in names]
    if args.write:
        KEPT.write_text(json.dumps(found, indent=1) + "\n")
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for report in found:
        print(report["scenario"], f"({report['optimum_pages']:,} pages)")
        for told in report["protocols"]:
            for one in told["outcomes"]:
                print(
                    f"  {told['protocol']:9} {one['on']:23} saved {one['saved_pages']:7,}"
                    f" mean {one['saved_pages_mean']:9,.0f} 90 % {one['time_to_90_s']}"
                    f" cpu {one['cpu_s']:.3f} s, off {one['off_target']}"
                )


if __name__ == "__main__":
    main()
