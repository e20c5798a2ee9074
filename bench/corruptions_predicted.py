"""How many corruptions of recorded lab runs the prediction finds: check (b).

Random scenarios are performed and recorded, on the real ksmd where that is possible and otherwise
on the model; then one thing at a time is wrong, as in bench/corruptions.py, and the model's
prediction is held against it. What is not found is named.

  python bench/corruptions_predicted.py [--count 1000] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.corruptions import ALTERED_COUNTER, CORRUPTIONS, corruption  # noqa: E402
from support.executions import Execution  # noqa: E402

from ksmtrace.errors import KsmtraceError  # noqa: E402
from ksmtrace.events.batch import EventBatch, concatenate  # noqa: E402
from ksmtrace.events.registry import BY_ID  # noqa: E402
from ksmtrace.kernel.releases import Profile, running_profile  # noqa: E402
from ksmtrace.kernel.sysfs import COUNTERS  # noqa: E402
from ksmtrace.lab.compare import compare  # noqa: E402
from ksmtrace.lab.on_kernel import Host, host_stage  # noqa: E402
from ksmtrace.lab.on_model import perform_on_model  # noqa: E402
from ksmtrace.lab.performance import Performance  # noqa: E402
from ksmtrace.lab.plan import Plan  # noqa: E402
from ksmtrace.lab.planning import plan_scenario  # noqa: E402
from ksmtrace.lab.random_scenarios import FAMILIES, random_scenario  # noqa: E402
from ksmtrace.lab.recorder import record_performance  # noqa: E402
from ksmtrace.recording.reader import StoredRecording  # noqa: E402
from ksmtrace.recording.target import Target  # noqa: E402
from ksmtrace.replay.lab_run import observe, recorded_performance  # noqa: E402
from tests.support.lab_recordings import lab_recording  # noqa: E402

FEWEST_EVENTS = 20
_HOST = [c.name for c in COUNTERS if c.where in ("ksm", "vmstat") and c.name != "ksm_swpin_copy"]
_PROCESS = [c.name for c in COUNTERS if c.where == "process"]


@dataclass
class Case:
    """A recorded run and what the model predicts for it."""

    plan: Plan
    recorded: Performance
    rows: list[dict[str, Any]]
    events: EventBatch
    model: Performance

    def found(self, rows: list[dict[str, Any]], events: EventBatch) -> bool:
        """Whether the prediction tells this from what was recorded."""
        spoilt = Performance(
            "recording", self.recorded.profile, tgids=self.recorded.tgids, real=True
        )
        if not observe(self.plan, spoilt, rows, events):
            return True
        return not compare(self.plan, spoilt, self.model).agree


@dataclass
class Row:
    """One class. missed: what was not found, by event kind and slot, or by counter."""

    corruption: str
    tried: int = 0
    found: int = 0
    missed: Counter[str] = field(default_factory=Counter)


def cases(host: Host | None, profile: Profile, folder: Path) -> list[Case]:
    """One recorded run of each family with enough events."""
    made = []
    for family in FAMILIES:
        seed = 3_000_000
        while True:
            path = folder / f"{family.name} {seed}.ksm"
            scenario = random_scenario(family, seed)
            if host is None:
                lab_recording(path, scenario, profile)
            else:
                record_performance(host, plan_scenario(scenario), Target(path))
            recording = StoredRecording(path)
            events = concatenate(list(recording.event_batches()))
            if len(events) >= FEWEST_EVENTS:
                break
            seed += 1
        plan, recorded = recorded_performance(recording, profile)
        rows = recording.table("counters").to_pylist()
        model = perform_on_model(plan, profile, like=recorded.observations)
        if not compare(plan, recorded, model).agree:
            raise KsmtraceError(f"{scenario.name} itself is not as predicted")
        made.append(Case(plan, recorded, rows, events, model))
    return made


def altered_counter(case: Case, dice: random.Random) -> tuple[str, list[dict[str, Any]]]:
    """One sampled value, of the host or of a process, is another."""
    while True:
        at = dice.randrange(len(case.rows))
        row = case.rows[at]
        names = _HOST if row["tgid"] is None else [*_PROCESS, "ksm_zero_pages"]
        known = [name for name in names if row[name] is not None]
        if row["reason"] != "step" or not known:
            continue
        name = dice.choice(known)
        change = dice.choice((-4096, -1, 1, 2, 7)) if row[name] > 1 else 1
        rows = list(case.rows)
        rows[at] = {**row, name: row[name] + change}
        return name, rows


def spoil(all_cases: list[Case], kind: str, count: int, profile: Profile) -> Row:
    """Try `count` corruptions of a class."""
    row = Row(kind)
    for seed in range(count):
        case = all_cases[seed % len(all_cases)]
        if kind == ALTERED_COUNTER:
            what, rows = altered_counter(case, random.Random(f"{kind} {seed}"))
            found = case.found(rows, case.events)
        else:
            execution = Execution("recorded", profile, case.events, (), complete=True)
            wrong = corruption(execution, kind, seed)
            what = f"{BY_ID[int(case.events['kind'][wrong.at])].name} {wrong.what}".strip()
            found = case.found(case.rows, wrong.execution.events)
        row.tried += 1
        row.found += found
        if not found:
            row.missed[what] += 1
    return row


def as_dict(row: Row) -> Mapping[str, Any]:
    """With stable names."""
    return {
        "corruption": row.corruption, "tried": row.tried, "found": row.found,
        "missed": dict(row.missed),
    }  # fmt: skip


def main() -> None:
    """Run; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="of each class")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    profile = running_profile()
    with tempfile.TemporaryDirectory() as folder:
        with ExitStack() as stack:
            host = None
            try:
                host = stack.enter_context(host_stage())
            except KsmtraceError as error:
                print(f"recorded from the model: {error.message}", file=sys.stderr)
            made = cases(host, profile, Path(folder))
        rows = [spoil(made, kind, args.count, profile) for kind in CORRUPTIONS]
    if args.json:
        print(json.dumps([as_dict(row) for row in rows], indent=1))
        return
    where = "the real ksmd" if host is not None else "the model"
    print(f"{len(made)} recorded runs of {where}, {sum(len(c.events) for c in made)} events")
    print(f"{'predicted':<16}{'tried':>7}{'found':>7}  not found")
    for row in rows:
        missed = ", ".join(f"{what} {count}" for what, count in row.missed.most_common())
        print(f"{row.corruption:<16}{row.tried:>7}{row.found:>7}  {missed or '-'}")


if __name__ == "__main__":
    main()
