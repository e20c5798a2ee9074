"""Timelines of scenarios that the real ksmd performs, against what really happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ksmtrace.lab.on_kernel import Host, host_stage
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.random_scenarios import FAMILIES, FAMILIES_BY_NAME, random_scenario
from ksmtrace.lab.recorder import record_performance
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.recording.target import Target
from ksmtrace.timeline.build import Timeline, timeline_of
from tests.live.conftest import run_ksmtrace
from tests.support.lab_truth import truth_of_lab_run
from tests.support.tee import Tee
from tests.support.truth_compare import Comparison
from tests.support.truth_recordings import Variant

HERE = Path(__file__).parents[1]
SEEDS = 5


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with host_stage() as stage:
        yield stage


def disagreements(recording: StoredRecording, timeline: Timeline) -> list[str]:
    """What the derived tables say otherwise than the truth, and what the accounts leave over."""
    truth = truth_of_lab_run(recording)
    compared = Comparison(truth, Variant(), timeline)
    compared.lives()
    compared.processes_and_nodes()
    compared.stable_pages()
    accounts = timeline.accounts
    over = accounts[(accounts["residual"] != 0) | (accounts["zero_residual"].fillna(0) != 0)]
    return compared.wrong + [f"a residual: {row}" for row in over.to_dict("records")]


@pytest.mark.parametrize(
    ("name", "lives"),
    [
        ("copy-on-write", 3),
        ("forks", 6),
        ("pinned-pages", 2),
        ("sharing-limit", 9),
        ("smart-scan", 2),
        ("zero-pages", 11),
        (HERE / "scenarios/T32c.toml", 7),
        (HERE / "scenarios/T46.toml", 512),
    ],
    ids=lambda value: Path(str(value)).stem,
)
def test_a_scenario_on_the_real_ksmd_is_told_as_it_happened(
    name: str | Path, lives: int, tmp_path: Path
) -> None:
    path = tmp_path / "lab.ksm"
    assert run_ksmtrace("lab", "run", name, "--record", path).returncode == 0
    recording = StoredRecording(path)
    timeline = timeline_of(recording)
    assert disagreements(recording, timeline) == []
    assert len(timeline.pages) == lives


@pytest.mark.parametrize("family", [one.name for one in FAMILIES if not one.needs])
def test_random_scenarios_are_told_as_they_happened_live_and_offline(
    host: Host, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tees: list[Tee] = []

    def tee(*args: object) -> Tee:
        tees.append(Tee(*args))  # type: ignore[arg-type]
        return tees[-1]

    monkeypatch.setattr("ksmtrace.lab.recorder.RecordingWriter", tee)
    for seed in range(SEEDS):
        plan = plan_scenario(random_scenario(FAMILIES_BY_NAME[family], seed))
        path = tmp_path / f"{seed}.ksm"
        record_performance(host, plan, Target(path))
        assert disagreements(StoredRecording(path), tees[-1].same_timeline()) == []
    assert len(tees) == SEEDS
