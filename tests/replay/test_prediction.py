"""Predicting recordings: of lab runs by their scenario, of others by what pages held."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.releases import profile
from ksmtrace.lab.random_scenarios import FAMILIES, FAMILIES_BY_NAME, random_scenario
from ksmtrace.lab.scenario import Scenario, scenario_of
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.lab_run import predict_lab_run
from ksmtrace.replay.prediction import Prediction, predict_from_contents
from tests.support.lab_recordings import lab_recording

NOW = profile("6.18.44")
BY_CONTENTS = ("writes", "sharing limit", "crowded", "forks", "moves")
"""Families in which memory changes between scans only, and nobody holds a page."""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("seed", range(3))
def test_a_lab_run_is_predicted_whole(family: object, seed: int, tmp_path: Path) -> None:
    scenario = random_scenario(family, seed)  # type: ignore[arg-type]
    path = lab_recording(tmp_path / "a.ksm", scenario, NOW)
    _plan, comparison = predict_lab_run(StoredRecording(path), NOW)
    differing = [one for one in comparison.observations if not one.agrees]
    assert not differing


def _without_mid_scans(scenario: Scenario) -> Scenario:
    steps = [step.values for step in scenario.steps if "set" not in step.values]
    return scenario_of({"knobs": scenario.knobs, "step": steps}, scenario.name)


def _predict(path: Path, release: str = "6.18.44") -> Prediction:
    return predict_from_contents(StoredRecording(path), profile(release))


@pytest.mark.parametrize("family", BY_CONTENTS)
@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5, 6])
def test_every_scan_is_predicted_from_what_pages_held(
    family: str, seed: int, tmp_path: Path
) -> None:
    scenario = _without_mid_scans(random_scenario(FAMILIES_BY_NAME[family], seed))
    path = lab_recording(tmp_path / "a.ksm", scenario, NOW, with_scenario=False)
    prediction = _predict(path)
    assert prediction.unpredicted is None
    assert prediction.stopped == ""
    assert prediction.moved == 0
    assert prediction.predicted >= 2
    assert prediction.events >= 2 * prediction.predicted


PAIRS = scenario_of(
    {
        "knobs": {"smart_scan": 0},
        "step": [
            {"map": "a.heap", "pages": 7},
            {"write": "a.heap[0:5]", "content": "same"},
            {"write": "a.heap[5:7]", "content": "unique"},
            {"scan": 2},
            {"map": "b.heap", "pages": 3},
            {"write": "b.heap", "content": "same"},
            {"scan": 2},
        ],
    },
    "pairs",
)


def _altered(path: Path, table: str, change: object) -> Path:
    copy = path.with_name(f"altered-{path.name}")
    shutil.copytree(path, copy)
    file = copy / f"{table}.parquet"
    pq.write_table(change(pq.read_table(file)), file)  # type: ignore[operator]
    return copy


def _dropped(number: int) -> object:
    def drop(table: pa.Table) -> pa.Table:
        return table.take(pa.array([row for row in range(table.num_rows) if row != number]))

    return drop


def test_the_order_of_contents_is_needed(tmp_path: Path) -> None:
    # Ranks turned round: another tree, so another page is met first.
    scenario = random_scenario(FAMILIES_BY_NAME["crowded"], 2)
    path = lab_recording(tmp_path / "a.ksm", _without_mid_scans(scenario), NOW, with_scenario=False)

    def backwards(table: pa.Table) -> pa.Table:
        ranks = table.column("rank").to_pylist()
        index = table.schema.get_field_index("rank")
        turned = pa.array([max(ranks) - rank for rank in ranks], pa.uint64())
        return table.set_column(index, "rank", turned)

    assert _predict(path).unpredicted is None
    assert _predict(_altered(path, "ranks", backwards)).unpredicted is not None


def test_a_dropped_event_is_named_with_what_stands_around_it(tmp_path: Path) -> None:
    path = lab_recording(tmp_path / "a.ksm", PAIRS, NOW, with_scenario=False)
    events = pq.read_table(path / "events.parquet").column("kind").to_pylist()
    number = events.index("ksm_merge_with_ksm_page") + 1
    prediction = _predict(_altered(path, "events", _dropped(number)))
    assert prediction.unpredicted is not None
    assert prediction.unpredicted.index == number
    assert "predicted was ADD" in prediction.unpredicted.message
    assert any("pages_shared" in line for line in prediction.unpredicted.state)


def test_an_altered_counter_is_found(tmp_path: Path) -> None:
    path = lab_recording(tmp_path / "a.ksm", PAIRS, NOW, with_scenario=False)

    def alter(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        sample = next(row for row in rows if row["reason"] == "scan" and row["pages_sharing"])
        sample["pages_sharing"] += 1
        return pa.Table.from_pylist(rows, table.schema)

    prediction = _predict(_altered(path, "counters", alter))
    assert prediction.unpredicted is not None
    assert "pages_sharing is 5, predicted was 4" in prediction.unpredicted.message


def test_another_release_is_not_predicted(tmp_path: Path) -> None:
    path = lab_recording(tmp_path / "a.ksm", PAIRS, NOW, with_scenario=False)
    assert _predict(path, "6.10").unpredicted is not None


def test_memory_that_moves_in_a_scan_ends_the_claim(tmp_path: Path) -> None:
    path = lab_recording(tmp_path / "a.ksm", PAIRS, NOW, with_scenario=False)

    def move(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows.append({**rows[0], "seq": 1, "phase": "after", "digest": rows[5]["digest"]})
        return pa.Table.from_pylist(rows, table.schema)

    prediction = _predict(_altered(path, "contents", move))
    assert prediction.unpredicted is None
    assert prediction.predicted < 4
    assert prediction.moved >= 1


def test_a_page_that_somebody_held_ends_the_claim(tmp_path: Path) -> None:
    steps = [dict(step.values) for step in PAIRS.steps]
    steps.insert(3, {"pin": "a.heap[1]"})
    pinned = scenario_of({"knobs": dict(PAIRS.knobs), "step": steps}, "pinned")
    path = lab_recording(tmp_path / "a.ksm", pinned, NOW, with_scenario=False)
    prediction = _predict(path)
    assert prediction.unpredicted is None
    assert "somebody held" in prediction.stopped


def test_a_cut_recording_claims_nothing(tmp_path: Path) -> None:
    path = lab_recording(tmp_path / "a.ksm", PAIRS, NOW, with_scenario=False)
    cut = _altered(path, "ranks", lambda table: table.slice(0, 0))
    assert "cut before" in _predict(cut).stopped


def test_a_lab_run_with_missing_samples_is_a_bad_recording(tmp_path: Path) -> None:
    path = lab_recording(tmp_path / "a.ksm", PAIRS, NOW)
    broken = _altered(path, "counters", lambda table: table.slice(0, table.num_rows - 2))
    with pytest.raises(KsmtraceError, match="no whole lab run"):
        predict_lab_run(StoredRecording(broken), NOW)
