"""simulate: run a scenario or a snapshot on models of kernels

Needs no root and no KSM. Nothing is sampled: the reference scanner does what
ksmd of that release would do, page by page. FILE is a scenario, or a snapshot
that `ksmtrace estimate --save` made of a running host; a snapshot is scanned
until nothing changes any more, as if nothing had been merged before.

examples:
  ksmtrace simulate why-two-scans
  ksmtrace simulate my.toml --on ksm:6.6 --on ksm:6.12
  ksmtrace simulate my.toml --on ksm:2011 --on ksm:6.18 --visits
  ksmtrace simulate my.toml --set smart_scan=0 --json | jq .scans
  ksmtrace simulate host.ksm --set use_zero_pages=1 max_page_sharing=16
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import Exit, KsmtraceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ksmtrace.lab.where import Where


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ksmtrace.cli.arguments import whole

    add = parser.add_argument
    add("scenario", metavar="FILE", help="a scenario, see docs/scenarios.md; - for stdin")
    add("--on", action="append", metavar="WHERE", help="model, ksm:6.12, ksm:2011; repeatable")
    add(
        "--set", nargs="+", default=[], action="extend", metavar="KNOB=VALUE",
        help="instead of the scenario's or the snapshot's own knobs",
    )  # fmt: skip
    add("--visits", action="store_true", help="tell what became of every page visit")
    add(
        "--scans", type=whole("a number of scans", 1, 100_000), metavar="N",
        help="of a snapshot: at most N scans (default 100)",
    )  # fmt: skip
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Simulate; see the module's docstring."""
    from ksmtrace.kernel.knobs import parse_assignments
    from ksmtrace.lab.where import parse_all

    places = parse_all(args.on or ["ksm:6.18"], models_only=True)
    knobs = parse_assignments(args.set)
    if Path(args.scenario).is_dir():
        return _snapshot(args, places, knobs)
    if args.scans is not None:
        raise KsmtraceError(
            "--scans is for snapshots", "a scenario says itself how often to scan", Exit.USAGE
        )
    from ksmtrace.cli.lab import print_run
    from ksmtrace.lab.run import load_plan, run_everywhere

    plan = load_plan(args.scenario, knobs)
    found = run_everywhere(plan, places, visits=args.visits)
    print_run(found, as_json=args.json)
    return Exit.DIFFERENCES if found.disappointments else Exit.OK


def _snapshot(args: argparse.Namespace, places: list[Where], knobs: Mapping[str, str]) -> int:
    import sys

    from ksmtrace.cli.status import StatusLine
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.replay.moment import read_moment, report_of, scan_moment
    from ksmtrace.views.moment import render_moment

    if args.visits:
        raise KsmtraceError(
            "--visits is for scenarios", "a snapshot has too many pages to tell", Exit.USAGE
        )
    recording = StoredRecording(args.scenario)
    line = StatusLine(sys.stderr)
    line.working("reading the snapshot")
    try:
        moment = read_moment(recording)
        runs = []
        for place in places:
            line.working(f"scanning {len(moment.pages):,} pages as {place.name}")
            runs.append(scan_moment(moment, place.profile, place.name, knobs, args.scans or 100))
    finally:
        line.clear()
    report = report_of(runs, recording.manifest["page_bytes"])
    if args.json:
        import json

        print(json.dumps(report, indent=1))
    else:
        from rich.console import Console

        Console(highlight=False).print(render_moment(report))
    return Exit.OK
