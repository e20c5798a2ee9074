"""What a scenario needs of a machine, and that one without it says so before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksmtrace.kernel.releases import profile
from ksmtrace.lab import needs
from ksmtrace.lab.fidelity import random_scenarios
from ksmtrace.lab.needs import SWAP, TWO_NODES, Need, missing, needs_of
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.random_scenarios import FAMILIES, Family, random_scenario
from ksmtrace.lab.scenario import parse_scenario

MAPPED = '[[step]]\nmap = "a.p"\npages = 2\n'


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ("", ()),
        ('[[step]]\nplace = "a.p"\nnode = 0\n', ()),
        ('[[step]]\nplace = "a.p"\nnode = 1\n', (TWO_NODES,)),
        ('[[step]]\nmigrate = "a.p[0]"\nnode = 1\n', (TWO_NODES,)),
        ('[[step]]\nmap = "a.q"\npages = 1\nnode = 1\n', (TWO_NODES,)),
        ('[[step]]\nswap_out = "a.p"\n', (SWAP,)),
        ('[[step]]\nswap_out = "a.p"\n[[step]]\nplace = "a.p"\nnode = 1\n', (TWO_NODES, SWAP)),
    ],
)
def test_what_the_steps_do_tells_what_is_needed(steps: str, wanted: tuple[Need, ...]) -> None:
    assert needs_of(plan_scenario(parse_scenario(MAPPED + steps, "x"))) == wanted


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_names_all_that_its_scenarios_need(family: Family) -> None:
    found: set[Need] = set()
    for seed in range(31):
        found |= {*needs_of(plan_scenario(random_scenario(family, seed)))}
    assert found == {*family.needs}


@pytest.mark.parametrize(
    ("nodes", "lacking"),
    [
        ("0", True),
        ("0-1", False),
        ("0,1", False),
        ("0-3", False),
        ("0,2-3", True),
        ("1", True),
        ("", True),
    ],
)
def test_two_nodes_with_memory_are_needed(
    nodes: str, lacking: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "has_memory").write_text(nodes + "\n")
    monkeypatch.setattr(needs, "_NODES", tmp_path)
    found = missing([TWO_NODES])
    assert bool(found) == lacking
    assert all("NUMA" in one.what and one.remedy for one in found)


@pytest.mark.parametrize(
    ("swaps", "controllers", "lacking"),
    [
        ("Filename Type\n/dev/x partition 7 0 -2\n", "cpu memory pids", []),
        ("Filename Type\n", "cpu memory", ["no swap"]),
        ("Filename Type\n/dev/x file 7 0 -2\n", "cpu pids", ["no memory controller"]),
        ("", "", ["no swap", "no memory controller"]),
    ],
)
def test_a_swap_disk_and_a_memory_controller_are_needed(
    swaps: str,
    controllers: str,
    lacking: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "swaps").write_text(swaps)
    (tmp_path / "cgroup.controllers").write_text(controllers)
    monkeypatch.setattr(needs, "_SWAPS", tmp_path / "swaps")
    monkeypatch.setattr(needs, "CGROUPS", tmp_path)
    found = missing([SWAP])
    assert len(found) == len(lacking)
    assert all(word in one.what for word, one in zip(lacking, found, strict=True))


def test_random_scenarios_are_those_that_the_machine_can_perform() -> None:
    def wanted(*has: Need) -> set[Need]:
        scenarios = random_scenarios(len(FAMILIES) * 7, 0, 5, profile("6.12"), has=has)
        return {need for scenario in scenarios for need in needs_of(plan_scenario(scenario))}

    assert wanted() == set()
    assert wanted(SWAP) == {SWAP}
    assert wanted(TWO_NODES) == {TWO_NODES}
    assert wanted(TWO_NODES, SWAP) == {TWO_NODES, SWAP}
