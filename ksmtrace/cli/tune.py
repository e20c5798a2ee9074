"""tune: find settings of ksmd for a host's memory

Searches pages_to_scan, sleep_millisecs, smart_scan, use_zero_pages and the
advisor for the most saving, soonest, within a share of a core. REC is a
snapshot that `ksmtrace estimate --save` made, or any recording with contents.
Scans are simulated (docs/model.md), CPU time is reckoned with costs that
`ksmtrace lab calibrate` measures. Nothing on this host is changed.

examples:
  ksmtrace tune host.ksm --max-cpu 5%
  ksmtrace tune host.ksm --max-cpu 2% --within 10m
  ksmtrace tune host.ksm --max-cpu 5% --on ksm:6.6 --json | jq .best[0].knobs
"""

from __future__ import annotations

import argparse
import sys

from ksmtrace.errors import Exit, KsmtraceError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ksmtrace.cli.arguments import duration, percent, whole

    add = parser.add_argument
    add("recording", metavar="REC", help="a snapshot, or a recording with contents")
    add("--max-cpu", type=percent, required=True, metavar="P", help="of one core: 5%% or 5")
    add("--within", type=duration, metavar="T", help="99 %% saved by then: 90s, 10m, 2h")
    add("--on", default="ksm:6.18", metavar="WHERE", help="the kernel: ksm:6.12 (ksm:6.18)")
    add("--best", type=whole("how many", 1, 50), default=5, metavar="N", help="show N (5)")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Tune; see the module's docstring."""
    from ksmtrace.cli.status import StatusLine
    from ksmtrace.kernel.costs import host_costs
    from ksmtrace.kernel.host import tick_ns
    from ksmtrace.lab.where import parse_all
    from ksmtrace.recording.reader import StoredRecording
    from ksmtrace.whatif.moment import read_moment
    from ksmtrace.whatif.tuned import tuning_as_dict
    from ksmtrace.whatif.tuning import Limits, tune

    [place] = parse_all([args.on], models_only=True)
    if place.uksm is not None:
        raise KsmtraceError("tune is for KSM only", "name a kernel: --on ksm:6.12", Exit.USAGE)
    line = StatusLine(sys.stderr)
    costs, tick = host_costs(), tick_ns()
    try:
        line.working("reading what pages held")
        moment = read_moment(StoredRecording(args.recording))
        tuning = tune(
            moment, place.profile, Limits(args.max_cpu, args.within),
            costs=costs.costs, tick_ns=tick, most=args.best, progress=line.working,
        )  # fmt: skip
    finally:
        line.clear()
    told = tuning_as_dict(tuning, moment, on=place.name, costs_origin=costs.origin, tick_ns=tick)
    if args.json:
        import json

        print(json.dumps(told, indent=1))
    else:
        from rich.console import Console

        from ksmtrace.views.tune import render_tuning

        Console(highlight=False).print(render_tuning(told))
    if not tuning.best:
        print(f"ksmtrace: {_unreachable(told)}", file=sys.stderr)
        return Exit.FAILED
    return Exit.OK


def _unreachable(told: dict[str, object]) -> str:
    from ksmtrace.amounts import seconds

    limit = f"{told['max_cpu_percent']:g} % of a core"
    within = told["within_seconds"]
    if isinstance(within, float):
        limit += f" and {seconds(within)}"
    return f"no setting stays within {limit}; the nearest are in the table"
