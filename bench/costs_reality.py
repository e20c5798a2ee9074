"""Does work, counted by the reference scanner, times the costs make ksmd's CPU time?

sudo .venv/bin/python bench/costs_reality.py [--costs FILE] [--rounds 3] [--json]

Each workload is one scenario of the lab, performed by the real ksmd and by the model. Nothing is
traced meanwhile: a tracer's time would count as ksmd's. The costs are the host's calibrated ones
(or --costs, or what is built in), whose own experiments are other workloads. ksmd's CPU time is
the median of the rounds. Not measured: batches that sleep in between, several NUMA nodes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ksmtrace.capture.choose import load_source
from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.kernel.costs import Costs, host_costs, read_costs
from ksmtrace.kernel.releases import running_profile
from ksmtrace.kernel.stepper import parked
from ksmtrace.lab.alone import prove_alone, refuse_strangers
from ksmtrace.lab.calibrate.counted import difference
from ksmtrace.lab.on_kernel import Host
from ksmtrace.lab.on_model import ModelStage
from ksmtrace.lab.performance import Observation
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.puppeteer import nursery
from ksmtrace.lab.scenario import scenario_of
from ksmtrace.model.work import Work

PROCESSES = ("a", "b", "c")
MANY = 999_999_937


class Silence:
    """A stream of no events."""

    exhausted = False

    def read(self) -> EventBatch:
        """Nothing."""
        return concatenate([])

    def fileno(self) -> None:
        """None."""

    def stop(self) -> None:
        """Nothing to stop."""


@contextmanager
def untraced() -> Iterator[Host]:
    """The lab's host, without anybody listening."""
    refuse_strangers()
    with ExitStack() as stack:
        channel = stack.enter_context(nursery())
        stepper = stack.enter_context(parked())
        prove_alone(stepper)
        yield Host(stepper, Silence(), load_source("tracefs"), "nothing is traced", channel)


def region(name: str, pages: int, **content: object) -> list[dict[str, Any]]:
    """Steps that make a region with pages."""
    return [{"map": name, "pages": pages}, {"write": name, **content}]


def rand(seed: int, of: int = MANY) -> dict[str, Any]:
    """Contents in no order."""
    return {"content": "random", "of": of, "seed": seed}


def unique() -> list[dict[str, Any]]:
    """Pages that nobody else has, and that stay."""
    steps = [s for n, p in enumerate(PROCESSES) for s in region(f"{p}.own", 20_011, **rand(n))]
    return [*steps, {"scan": 4}]


def volatile() -> list[dict[str, Any]]:
    """Pages that are all written before each scan."""
    steps = [s for n, p in enumerate(PROCESSES) for s in region(f"{p}.own", 20_011, **rand(n))]
    for turn in range(3):
        steps.append({"scan": 1})
        steps += [{"write": f"{p}.own", **rand(7 * turn + n)} for n, p in enumerate(PROCESSES, 3)]
    return [*steps, {"scan": 1}]


def duplicates() -> list[dict[str, Any]]:
    """Pages that merge, six of each on average, within and across processes."""
    steps = [
        s for n, p in enumerate(PROCESSES) for s in region(f"{p}.same", 20_011, **rand(n, 10_007))
    ]
    return [*steps, {"scan": 4}]


def mixed(scans: int) -> list[dict[str, Any]]:
    """Zero, duplicate, unique and volatile pages."""
    steps = []
    for n, p in enumerate(PROCESSES):
        steps += region(f"{p}.zero", 5_003, content="zero")
        steps += region(f"{p}.same", 7_001, **rand(n, 2_003))
        steps += region(f"{p}.own", 7_001, **rand(n + 10))
        steps += region(f"{p}.moving", 2_003, **rand(n + 20))
    for turn in range(scans):
        steps.append({"scan": 1})
        steps += [{"write": f"{p}.moving", **rand(30 + 3 * turn + n)} for n, p in enumerate("abc")]
    return steps


SCENARIOS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "unique": ({"smart_scan": 0}, unique()),
    "volatile": ({"smart_scan": 0}, volatile()),
    "duplicates": ({"smart_scan": 0}, duplicates()),
    "mixed, zero pages": ({"smart_scan": 0, "use_zero_pages": 1}, mixed(5)),
    "mixed, smart scan": ({"smart_scan": 1, "use_zero_pages": 1}, mixed(13)),
}


def measured(host: Host, plan: Plan) -> list[int]:
    """Ksmd's CPU time of each scan."""
    seen = host.perform(plan).observations
    return [one.end.ksmd_cpu_ns - one.begin.ksmd_cpu_ns for one in seen if one.begin and one.end]


def counted(plan: Plan) -> list[Work]:
    """What each scan does."""
    stage = ModelStage(plan, running_profile(), on="model", count_work=True)
    works: list[Work] = []
    last = ExitStack()
    done = last.enter_context(difference(stage.scanner.work))

    def watch(seen: Observation) -> None:
        nonlocal done
        last.close()
        if seen.scan is not None:
            works.append(done)
        done = last.enter_context(difference(stage.scanner.work))

    stage.perform(watch=watch)
    return works


def main() -> None:
    """Run; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--costs", type=Path, metavar="FILE", help="of lab calibrate")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    costs: Costs = read_costs(args.costs).costs if args.costs else host_costs().costs
    plans = {
        name: plan_scenario(scenario_of({"knobs": knobs, "step": steps}, name))
        for name, (knobs, steps) in SCENARIOS.items()
    }
    real: dict[str, list[list[int]]] = {}
    with untraced() as host:
        for _ in range(args.rounds):
            for name, plan in plans.items():
                real.setdefault(name, []).append(measured(host, plan))
    rows = []
    for name, plan in plans.items():
        by_scan = [work.ns(costs) for work in counted(plan)]
        middle = [statistics.median(ns) for ns in zip(*real[name], strict=True)]
        total = [sum(one) for one in real[name]]
        rows.append(
            {
                "workload": name,
                "scans": len(by_scan),
                "predicted_ns": sum(by_scan),
                "measured_ns": statistics.median(total),
                "measured_low_ns": min(total),
                "measured_high_ns": max(total),
                "error": sum(by_scan) / statistics.median(total) - 1,
                "error_by_scan": [p / m - 1 for p, m in zip(by_scan, middle, strict=True)],
            }
        )
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("workload", "scans", "predicted", "ksmd", "rounds", "error", "by scan", box=None)
    for row in rows:
        low, high = row["measured_low_ns"] / 1e6, row["measured_high_ns"] / 1e6
        errors = " ".join(f"{100 * error:+.0f}" for error in row["error_by_scan"])
        table.add_row(
            row["workload"],
            str(row["scans"]),
            f"{row['predicted_ns'] / 1e6:,.0f} ms",
            f"{row['measured_ns'] / 1e6:,.0f} ms",
            f"{low:,.0f}-{high:,.0f}",
            f"{100 * row['error']:+.1f} %",
            errors,
        )
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
