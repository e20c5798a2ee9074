"""simulate: run a scenario on models of kernels, and see where they part

Needs no root and no KSM. Nothing is sampled: the reference scanner does what
ksmd of that release would do, page by page.

examples:
  ksmtrace simulate why-two-scans
  ksmtrace simulate my.toml --on ksm:6.6 --on ksm:6.12
  ksmtrace simulate my.toml --on ksm:2011 --on ksm:6.18 --visits
  ksmtrace simulate my.toml --set smart_scan=0 --json | jq .scans
"""

from __future__ import annotations

import argparse

from ksmtrace.errors import Exit


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("scenario", metavar="FILE", help="a scenario, see docs/scenarios.md; - for stdin")
    add("--on", action="append", metavar="WHERE", help="model, ksm:6.12, ksm:2011; repeatable")
    add(
        "--set", nargs="+", default=[], action="extend", metavar="KNOB=VALUE",
        help="instead of the scenario's own knobs",
    )  # fmt: skip
    add("--visits", action="store_true", help="tell what became of every page visit")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Simulate; see the module's docstring."""
    from ksmtrace.cli.lab import print_run
    from ksmtrace.kernel.knobs import parse_assignments
    from ksmtrace.lab.run import load_plan, run_everywhere
    from ksmtrace.lab.where import parse_all

    places = parse_all(args.on or ["ksm:6.18"], models_only=True)
    plan = load_plan(args.scenario, parse_assignments(args.set))
    found = run_everywhere(plan, places, visits=args.visits)
    print_run(found, as_json=args.json)
    return Exit.DIFFERENCES if found.disappointments else Exit.OK
