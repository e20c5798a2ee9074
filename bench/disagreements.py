"""What experiments with many scenarios have in common: the written ones, and telling failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from ksmtrace.lab.fidelity import Tally
from ksmtrace.lab.scenario import Scenario, read_scenario, to_toml

ROOT = Path(__file__).parents[1]
_WRITTEN = (
    ROOT / "tests" / "scenarios",
    ROOT / "tests" / "kernels" / "scenarios",
    ROOT / "ksmtrace" / "lab" / "scenarios",
)


def written_scenarios() -> Iterator[Scenario]:
    """Those that stand in files."""
    for folder in _WRITTEN:
        yield from map(read_scenario, sorted(folder.glob("*.toml")))


def tell_failures(tally: Tally, out: Console) -> None:
    """Every scenario that differs, where it does first, and as a file; every unmet expectation."""
    for failure in tally.failures:
        out.print(f"\n[red]differs:[/red] {failure.scenario.title}")
        for compared in failure.comparison.observations:
            if not compared.agrees:
                out.print(f"  step {compared.step}: {compared.counters or ''}")
                if compared.events:
                    out.print(f"  {compared.events.why}: {compared.events.told}")
                break
        print(to_toml(failure.scenario))
    for disappointment in tally.disappointments:
        out.print(f"[red]expected otherwise:[/red] {disappointment}")
