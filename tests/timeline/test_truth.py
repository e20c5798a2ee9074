"""The derived tables against what really happened, on scenarios that the model performs.

Every written scenario and random ones of every family, recorded in each way that makes a
difference: whole, without a census, on a host already merged, with events lost, with --cow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ksmtrace.kernel.releases import profile
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.random_scenarios import FAMILIES, FAMILIES_BY_NAME, random_scenario
from ksmtrace.lab.scenario import read_scenario
from ksmtrace.timeline.build import timeline_of
from tests.support.recycling import recycled
from tests.support.truth import Truth
from tests.support.truth_compare import Comparison
from tests.support.truth_recordings import Variant, record
from tests.support.watched_model import truth_of

HERE = Path(__file__).parents[1]
MOVED = {"T52", "T54", "T55", "T58", "T59", "T60"}
"""A KSM page gets another number without an event, as docs/reconstruction.md tells."""
WRITTEN = {
    path.stem: path
    for folder in (
        HERE / "scenarios",
        HERE / "found",
        Path(str(files("ksmtrace.lab"))) / "scenarios",
    )
    for path in sorted(folder.glob("*.toml"))
    if path.stem not in MOVED
}
STAYING = [family.name for family in FAMILIES if not family.needs]
"""Families whose pages stay where they are."""
NOW = "6.18.44"
VARIANTS = {
    "whole": Variant(),
    "without a census": Variant(census=False),
    "writes seen": Variant(cow=True),
}
SETTINGS = settings(max_examples=40, deadline=None)


@cache
def _written(name: str, kernel: str) -> Truth:
    return truth_of(plan_scenario(read_scenario(WRITTEN[name])), profile(kernel))


@cache
def _random(family: str, seed: int, kernel: str = NOW) -> Truth:
    scenario = random_scenario(FAMILIES_BY_NAME[family], seed)
    return truth_of(plan_scenario(scenario), profile(kernel))


def _disagreements(truth: Truth, variant: Variant, path: Path) -> list[str]:
    return Comparison(truth, variant, timeline_of(record(truth, path, variant))).run()


FAMILY = st.sampled_from(STAYING)
SEED = st.integers(0, 10**6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_scenario_is_told_as_it_happened(name: str, variant: str, tmp_path: Path) -> None:
    assert _disagreements(_written(name, NOW), VARIANTS[variant], tmp_path / "a.ksm") == []


@pytest.mark.parametrize("kernel", ["6.4", "6.8", "6.12"])
@pytest.mark.parametrize("family", ["zero pages", "forks", "opting out", "everything"])
def test_other_releases_are_told_as_well(family: str, kernel: str, tmp_path: Path) -> None:
    for seed in range(3):
        truth = _random(family, seed, kernel)
        assert _disagreements(truth, Variant(), tmp_path / f"{seed}.ksm") == []


@pytest.mark.parametrize("variant", VARIANTS)
@SETTINGS
@given(family=FAMILY, seed=SEED, reused=st.booleans())
@example(family="everything", seed=4301, reused=False)
@example(family="sharing limit", seed=710130, reused=False)
def test_random_scenarios_are_told_as_they_happened(
    variant: str, family: str, seed: int, *, reused: bool, tmp_path_factory: Any
) -> None:
    truth = _random(family, seed)
    path = tmp_path_factory.mktemp("truth") / "a.ksm"
    told = _disagreements(recycled(truth) if reused else truth, VARIANTS[variant], path)
    assert told == []


@SETTINGS
@given(
    family=FAMILY, seed=SEED, at=st.integers(1, 40), census=st.booleans(), cow=st.booleans(),
    reused=st.booleans(),
)  # fmt: skip
@example(family="whole processes", seed=648714, at=21, census=True, cow=True, reused=False)
@example(family="forks", seed=968605, at=16, census=False, cow=True, reused=True)
@example(family="opting out whole", seed=540180, at=13, census=True, cow=True, reused=True)
@example(family="everything", seed=384, at=22, census=True, cow=False, reused=False)
def test_a_recording_of_a_host_already_merged_is_told_from_there(
    family: str, seed: int, at: int, *, census: bool, cow: bool, reused: bool, tmp_path_factory: Any
) -> None:
    truth = _random(family, seed)
    variant = Variant(census=census, cow=cow, since=1 + at % len(truth.steps))
    path = tmp_path_factory.mktemp("truth") / "a.ksm"
    assert _disagreements(recycled(truth) if reused else truth, variant, path) == []


@SETTINGS
@given(family=FAMILY, seed=SEED, where=st.floats(0, 1), count=st.integers(1, 30), cow=st.booleans())
def test_nothing_is_invented_where_events_were_lost(
    family: str, seed: int, where: float, count: int, *, cow: bool, tmp_path_factory: Any
) -> None:
    truth = _random(family, seed)
    events = len(Variant(cow=cow).events(truth))
    if not events:
        return
    variant = Variant(cow=cow, lost=(int(where * (events - 1)), count))
    path = tmp_path_factory.mktemp("truth") / "a.ksm"
    assert _disagreements(truth, variant, path) == []


def test_the_truth_counts_what_the_scanner_counts() -> None:
    for family in STAYING:
        truth = _random(family, 1)
        for step in truth.steps:
            attached = [x for x in truth.lives if x.node is not None and x.attached_at(step.ns)]
            counters = step.counters
            assert len(attached) == counters["pages_shared"] + counters["pages_sharing"]


_SPOILT: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "a life too many": ("pages", lambda t: pd.concat([t, t.head(1).assign(addr=1)])),
    "a life too few": ("pages", lambda t: t.iloc[1:]),
    "another way of merging": ("pages", lambda t: t.assign(how="inherited")),
    "an end too early": ("pages", lambda t: t.assign(ended_before_ns=t["ended_after_ns"] - 1)),
    "another end": ("pages", lambda t: t.assign(end="unmerged")),
    "no end": (
        "pages",
        lambda t: t.assign(end="still_merged", ended_after_ns=None, ended_before_ns=None),
    ),
    "another KSM page": ("pages", lambda t: t.assign(ksm_page=0)),
    "another process": ("pages", lambda t: t.assign(process=0)),
    "another scan": ("pages", lambda t: t.assign(scan=t["scan"] + 1)),
    "a KSM page too few": ("stable_pages", lambda t: t.assign(born_ns=t["born_ns"] + 1)),
    "no death": ("stable_pages", lambda t: t.assign(died_ns=None, end="alive")),
    "a chain": ("stable_pages", lambda t: t.assign(in_chain=True)),
    "no chain": ("stable_pages", lambda t: t.assign(in_chain=False)),
    "more sharers": ("stable_pages", lambda t: t.assign(sharers_peak=t["sharers_peak"] + 1)),
    "a residual": ("accounts", lambda t: t.assign(residual=1)),
    "narrow bounds": ("accounts", lambda t: t.assign(merged_most=t["merged_kernel"] - 1)),
}
"""Ways to spoil a table."""


@pytest.mark.parametrize("how", _SPOILT)
def test_a_spoilt_table_is_noticed(how: str, tmp_path: Path) -> None:
    truth = _random("forks", 1)
    variant = Variant(cow=True)
    timeline = timeline_of(record(truth, tmp_path / "a.ksm", variant))
    names = ("pages", "stable_pages", "accounts")
    tables = {name: getattr(timeline, name).astype(object) for name in names}
    name, spoil = _SPOILT[how]
    tables[name] = spoil(tables[name])
    assert Comparison(truth, variant, SimpleNamespace(**tables)).run() != []
