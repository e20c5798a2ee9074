"""The scenarios T1 to T61 on the reference scanner, as each kernel has them.

The files in tests/scenarios say what is to be seen; the live ring holds the real ksmd to the same.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.errors import KsmtraceError
from ksmtrace.events.registry import KSM_START_SCAN, KSM_STOP_SCAN
from ksmtrace.kernel.releases import Behaviour, parse_release, profile
from ksmtrace.lab.disappointments import disappointments
from ksmtrace.lab.expectations import applies
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.operations import Batch, MergeAny, Scan
from ksmtrace.lab.performance import Observation
from ksmtrace.lab.plan import Plan, PlannedStep
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import read_scenario

FOLDER = Path(__file__).parents[1] / "scenarios"
NAMES = sorted(path.stem for path in FOLDER.glob("T*.toml"))
OLD = ("2011", "3.9", "4.13", "5.4")
KERNELS = (
    "6.1.192", "6.4", "6.6", "6.8", "6.10", "6.11", "6.12", "6.12.117", "6.18", "6.18.44",
)  # fmt: skip
STATE = {"pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"}

MEANT_SINCE = {
    # max_page_sharing and chains.
    **dict.fromkeys(("T04", "T05", "T06", "T07a", "T07b"), "4.13"),
    # use_zero_pages.
    **dict.fromkeys(("T09", "T10", "T12", "T30", "T36b"), "4.11"),
    # Equal pages of one huge page, which keep it from being split before.
    **dict.fromkeys(("T36a", "T46"), "4.19"),
    # run=2 removes stable nodes; an empty one takes no mappings because of max_page_sharing.
    "T48": "4.13",
    # NUMA nodes, with chains.
    **dict.fromkeys(("T51", "T52", "T53", "T54", "T55", "T56", "T57"), "4.13"),
    # Swap: the counters of vmstat, and the only kernels that were asked.
    **dict.fromkeys(("T58", "T59", "T60"), "5.19"),
    # PR_SET_MEMORY_MERGE.
    **dict.fromkeys(("T31c", "T42a", "T42c", "T42d", "T42e", "T61"), "6.4"),
    # The advisor.
    **dict.fromkeys(("T43a", "T43b", "T43c"), "6.8"),
}
"""From which release on a file's expectations hold, where not for all."""


@cache
def planned(name: str) -> Plan:
    return plan_scenario(read_scenario(FOLDER / f"{name}.toml"))


def is_meant_for(name: str, kernel: str) -> bool:
    since = MEANT_SINCE.get(name, "2.6.38")
    return profile(kernel).version >= parse_release(since)


def can_run(name: str, kernel: str) -> bool:
    """Whether everything that the processes do exists there."""
    operations = [o for step in planned(name).steps for o in step.operations]
    return profile(kernel).has("6.4") or not any(isinstance(o, MergeAny) for o in operations)


RUNS = [
    (name, kernel) for name in NAMES for kernel in (*OLD, *KERNELS) if can_run(name, kernel)
]  # fmt: skip


@pytest.mark.parametrize(("name", "kernel"), RUNS, ids=str)
def test_the_model_does_what_the_scenario_says(name: str, kernel: str) -> None:
    plan = planned(name)
    performance = perform_on_model(plan, profile(kernel), check_invariants=True)
    if is_meant_for(name, kernel):
        assert [str(one) for one in disappointments(plan, performance)] == []


def test_every_scenario_of_the_specification_is_there() -> None:
    numbers = [int(re.fullmatch(r"T(\d\d)[a-z]?", name)[1]) for name in NAMES]  # type: ignore[index]
    assert sorted(set(numbers)) == list(range(1, 62))
    for name, number in zip(NAMES, numbers, strict=True):
        assert planned(name).scenario.title.startswith(f"T{number}: ")


def works(step: PlannedStep) -> bool:
    return any(isinstance(operation, Scan | Batch) for operation in step.operations)


@pytest.mark.parametrize("name", NAMES)
def test_each_scan_is_told_and_its_whole_state_and_events_are_expected(name: str) -> None:
    for kernel in filter(lambda kernel: is_meant_for(name, kernel), KERNELS):
        here = profile(kernel)
        for step in filter(works, planned(name).steps):
            wanted = {key for e in step.expect if applies(e, here) for key in e}
            assert step.say, step.step.where
            assert wanted >= STATE, f"{step.step.where} on {kernel}"
            assert "events" in wanted or not here.has("6.4"), f"{step.step.where} on {kernel}"


@pytest.mark.parametrize("name", sorted(n for n in NAMES if not can_run(n, "6.1")))
def test_a_kernel_without_prctl_says_so(name: str) -> None:
    with pytest.raises(KsmtraceError, match=r"\.toml:\d+: .*PR_SET_MEMORY_MERGE.*6\.4"):
        perform_on_model(planned(name), profile("6.3"))


# START and STOP, which expectations leave out: seq -> rmap_items at the beginning and the end.
SCANS: dict[str, dict[int, tuple[int, int]]] = {
    "T01": {0: (0, 4), 1: (4, 4), 2: (4, 4), 8: (4, 4)},
    "T09": {0: (0, 8), 1: (8, 8), 2: (8, 0), 3: (0, 0)},
    "T22": {2: (4, 3)},
    "T24a": {0: (0, 4), 2: (4, 0)},
    "T25": {1: (6, 6), 2: (6, 2), 3: (2, 0)},
    "T40": {0: (0, 3), 1: (3, 4)},
}


def scans_told(observations: list[Observation]) -> dict[int, tuple[int, int]]:
    """The scans of a performance by number; each must begin and end once."""
    begun: dict[int, int] = {}
    told: dict[int, tuple[int, int]] = {}
    for seen in observations:
        for event in seen.events:
            seq, items = int(event["addr"]), int(event["arg"])
            if event["kind"] == KSM_START_SCAN.id:
                assert seq not in begun
                begun[seq] = items
            elif event["kind"] == KSM_STOP_SCAN.id:
                assert seq not in told
                told[seq] = (begun[seq], items)
    assert begun.keys() == told.keys()
    return told


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("kernel", ["6.4", "6.18.44"])
def test_start_and_stop_carry_the_scan_s_number_and_all_items(name: str, kernel: str) -> None:
    performance = perform_on_model(planned(name), profile(kernel))
    told = scans_told(performance.observations)
    assert SCANS[name].items() <= told.items()
    assert sorted(told) == list(range(len(told)))


def test_a_batch_starts_or_stops_a_scan_but_never_both() -> None:
    performance = perform_on_model(planned("T35a"), profile("6.18.44"))
    told = [seen.told for seen in performance.observations[-6:]]
    assert told == [("START 0",), (), ("STOP 0",), ("START 1",), (), ("STOP 1",)]


def test_the_advisor_speaks_before_the_scan_stops() -> None:
    performance = perform_on_model(planned("T43a"), profile("6.18.44"))
    advised = [seen.told for seen in performance.observations if "ADVISE 7" in seen.told]
    assert [told[-2:] for told in advised] == [("ADVISE 7", "STOP 0"), ("ADVISE 7", "STOP 1")]


# What a scenario says is worth something if another behaviour would not do.
SWITCHES: dict[str, tuple[str, Any]] = {
    "numa_trees": ("6.18.44", False),
    "visit_order": ("6.18.44", "stable_first"),
    "stale_node_on_walk": ("6.18.44", "give_up"),
    "zero_pages": ("6.18.44", "uncounted"),
    "chains": ("6.18.44", "longest_with_room"),
    "same_huge_page_splits": ("6.18.44", False),
    "sole_mapping_reused": ("6.18.44", True),
    "unshare": ("6.18.44", "write_fault"),
    "prot_none": ("6.18.44", "not_found"),
    "unshare_finds_prot_none": ("6.18.44", False),
    "merge_any": ("6.18.44", "unscanned"),
    "drop_clears_merge_any": ("6.18.44", True),
    "fork_counters": ("6.18.44", "inherited"),
    "pages_scanned": ("6.18.44", "per_batch"),
    "smart_scan": ("6.18.44", False),
    "huge_page_split_maps_zero_pages": ("6.18.44", False),
}
INVISIBLE = {
    "checksum",  # contents differ or are the same, whatever their checksums are
    "run_2_sweeps",  # kernels with chains, where it could be seen, all have it
    "run_2_appends",  # no scenario enters while run is 2
    "locked_page_is_busy",  # nobody locks a page while ksmd works
    "advisor",  # whether there is one is said by its knobs
}


def test_every_switch_of_the_behaviours_is_accounted_for() -> None:
    assert SWITCHES.keys() | INVISIBLE == {field.name for field in fields(Behaviour)}
    assert not SWITCHES.keys() & INVISIBLE


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_kernel_with_another_behaviour_disappoints(switch: str) -> None:
    kernel, value = SWITCHES[switch]
    true = profile(kernel)
    assert getattr(true.behaviour, switch) != value
    other = replace(true, behaviour=replace(true.behaviour, **{switch: value}))
    assert any(
        disappointments(planned(name), perform_on_model(planned(name), other)) for name in NAMES
    )
