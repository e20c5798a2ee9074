"""The other kernels that tests visit, and what is found out there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ksmtrace.lab.fidelity import random_scenarios
from ksmtrace.lab.scenario import read_scenario
from ksmtrace.vm.guest import Guest
from ksmtrace.vm.trial import Trial, can_be_performed, try_kernel

SERIES = ("6.1", "6.12")
_TESTS = Path(__file__).parents[1]
SCENARIOS = [
    path
    for folder in ("scenarios", "kernels/scenarios")
    for path in sorted((_TESTS / folder).glob("*.toml"))
]
RANDOM = 24
"""Random scenarios a kernel, beside the written ones; `make test-kernels` does many more."""


@dataclass(frozen=True)
class Visited:
    """A running guest and what was found out about its kernel."""

    guest: Guest
    trial: Trial


def visit(guest: Guest) -> Visited:
    """Try a guest's kernel."""
    written = map(read_scenario, SCENARIOS)
    able = [
        scenario for scenario in written if can_be_performed(scenario, guest.profile, guest.has)
    ]
    drawn = random_scenarios(RANDOM, 1, 5_000_000, guest.profile, has=guest.has)
    trial = try_kernel(guest, [*able, *drawn], able[1 :: len(able) // 5])
    guest.unstage()
    return Visited(guest, trial)
