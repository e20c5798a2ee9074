"""How many corruptions of legal executions the conformance check finds.

One thing at a time is wrong: an event dropped, doubled, swapped or altered, or a sampled counter
altered (tests/support/corruptions.py). Not each contradicts something: those that certainly do must
all be found, and of the others each miss is counted under what makes it legal
(tests/support/corruption_reasons.py). Whether a miss is classified rightly, this can't measure.

  python bench/corruptions.py [RECORDING] [--count 1000] [--kernels 6.18,6.10] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.corruption_reasons import contradiction, excuse  # noqa: E402
from support.corruptions import CORRUPTIONS, corruption  # noqa: E402
from support.executions import Execution, random_steps, recorded, simulated  # noqa: E402

EXECUTIONS = 60
STEPS = 60
FEWEST_EVENTS = 30


@dataclass
class Row:
    """One class of corruptions of some executions. certain: must be found; missed: were not.

    legal: misses by what makes them legal.
    """

    executions: str
    corruption: str
    tried: int = 0
    found: int = 0
    certain: int = 0
    missed: int = 0
    legal: Counter[str] = field(default_factory=Counter)


def made_by_model(kernel: str, seed: int) -> list[Execution]:
    """Random executions of the model, some with few mappings a KSM page, some with old numbers."""
    executions: list[Execution] = []
    while len(executions) < EXECUTIONS:
        seed += 1
        limit = 3 if seed % 3 == 0 else 256
        made = simulated(random_steps(seed, STEPS), kernel, limit=limit, recycle=bool(seed % 2))
        if len(made.events) >= FEWEST_EVENTS:
            executions.append(made)
    return executions


def measure(name: str, executions: Sequence[Execution], count: int, seed: int) -> Iterator[Row]:
    """Each class of corruptions, `count` times, on the executions in turn."""
    for execution in executions:
        finding = execution.judged()
        if finding is not None:
            sys.exit(f"{execution.name} is not legal as it is: {finding.message}")
    for kind in CORRUPTIONS:
        row = Row(name, kind)
        for number in range(count):
            original = executions[number % len(executions)]
            spoilt = corruption(original, kind, seed + number)
            found = spoilt.execution.judged() is not None
            certain = contradiction(original, spoilt) is not None
            row.tried += 1
            row.found += found
            row.certain += certain
            row.missed += certain and not found
            if not found and not certain:
                row.legal[excuse(original, spoilt)] += 1
        yield row


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = [f"{'corruption':<18}{'tried':>7}{'found':>7}{'share':>8}{'certain':>9}{'missed':>8}"]
    name = ""
    for row in rows:
        if row.executions != name:
            name = row.executions
            lines += ["", name]
        share = f"{100 * row.found / row.tried:.1f} %" if row.tried else "–"
        lines.append(
            f"{row.corruption:<18}{row.tried:>7}{row.found:>7}{share:>8}{row.certain:>9}"
            f"{row.missed:>8}"
        )
        lines += [f"    {times:>5}  {why}" for why, times in row.legal.most_common()]
    return "\n".join(lines)


def main() -> int:
    """Measure and print; 1 if a corruption that must be found was not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("recording", type=Path, nargs="?", default=ROOT / "recordings" / "demo.ksm")
    add("--count", type=int, default=1000, help="corruptions of each class")
    add("--seed", type=int, default=1)
    add("--kernels", default="6.18,6.10", help="whose model makes executions, or nothing")
    add("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    begin = time.monotonic()
    subjects = {args.recording.name: [recorded(args.recording)]}
    for kernel in filter(None, args.kernels.split(",")):
        subjects[f"{EXECUTIONS} of the model as {kernel}"] = made_by_model(kernel, args.seed)
    rows = []
    for name, executions in subjects.items():
        for row in measure(name, executions, args.count, args.seed):
            rows.append(row)
            print(f"{name}: {row.corruption} done", file=sys.stderr)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print(table(rows))
        print(f"\n{sum(row.tried for row in rows)} in {time.monotonic() - begin:.0f} s")
    return 1 if any(row.missed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
