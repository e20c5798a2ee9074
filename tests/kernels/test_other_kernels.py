"""ksmtrace on kernels that are not this machine's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ksmtrace
from ksmtrace.cli.main import main
from ksmtrace.lab.inversions import inversions, tells_apart
from ksmtrace.lab.scenario import to_toml
from ksmtrace.recording.target import Target
from ksmtrace.vm.record import record_in_guest
from tests.support.kernels import RANDOM, SCENARIOS, Visited

BACKENDS = {"6.1": ["fentry"], "6.12": ["core", "tracefs"]}
"""Those that must work there."""
SEEN = {
    "6.1": {
        "ksm_enter", "ksm_exit", "ksm_start_scan", "ksm_stop_scan", "ksm_merge_one_page",
        "ksm_merge_with_ksm_page", "ksm_remove_rmap_item", "ksm_remove_ksm_page",
    },
}  # fmt: skip
SEEN["6.12"] = {*SEEN["6.1"], "ksm_advisor"}
WORKLOAD = """
from ksmtrace.lab.workload import mergeable_memory, page_of
memory = mergeable_memory(211)
memory[:] = b"".join(page_of(number % 7) for number in range(211))
import time
time.sleep({seconds})
"""


def test_the_guest_runs_the_distribution_s_present_kernel(visited: Visited, series: str) -> None:
    status, told, words = visited.guest.run("kernels", "host", "--json")
    assert status == 0, words
    assert json.loads(told)["release"] == series
    assert json.loads(told)["version"] == visited.guest.kernel.version


def test_every_backend_that_can_exist_there_works(visited: Visited, series: str) -> None:
    able = [name for name, trial in visited.trial.backends.items() if trial.able]
    assert able == BACKENDS[series]
    for name, trial in visited.trial.backends.items():
        assert trial.able or trial.why, name
        if trial.able:
            assert trial.tally.scenarios >= 5, name
            assert not trial.tally.failures, name


def test_the_model_agrees_in_every_counter_and_event(visited: Visited) -> None:
    tally = visited.trial.best.tally
    for failure in tally.failures:
        print(to_toml(failure.scenario))
    assert not tally.failures
    assert not tally.disappointments
    assert tally.scenarios > RANDOM + len(SCENARIOS) * 3 // 4
    assert tally.events > 2000


def test_every_kind_of_event_of_that_kernel_was_seen(visited: Visited, series: str) -> None:
    assert set(visited.trial.best.events) >= SEEN[series] - {"ksm_advisor"}
    assert set(visited.trial.best.events) <= SEEN[series]


def test_each_switch_of_the_profile_set_otherwise_is_noticed(visited: Visited) -> None:
    trial = visited.trial
    assert not tells_apart(trial.kept, trial.profile)
    others = list(inversions(trial.profile))
    assert len(others) > 15
    assert not [name for name, other in others if not tells_apart(trial.kept, other)]


def test_the_doctor_says_what_works_there_and_what_does_not(visited: Visited, series: str) -> None:
    status, told, words = visited.guest.run("doctor", "--json")
    assert status == 0, words
    findings = {finding["topic"]: finding for finding in json.loads(told)["findings"]}
    for name in ("core", "fentry", "tracefs"):
        able = name in BACKENDS[series]
        assert findings[f"backend {name}"]["state"] == ("yes" if able else "no"), name


def test_record_chooses_the_backend_by_itself_and_its_recording_is_right(
    visited: Visited, series: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "guest.ksm"
    program = WORKLOAD.format(seconds=6)
    words = record_in_guest(
        visited.guest, Target(target), "--run", "--set", "pages_to_scan=10000",
        "--", "python3", "-c", program,
    )  # fmt: skip
    assert f"backend {BACKENDS[series][0]}: the best that works here" in words
    recording = ksmtrace.open(target)
    assert recording.lost == 0
    assert recording.manifest["backend"] == BACKENDS[series][0]
    assert recording.manifest["kernel"].startswith(series)
    pages = recording.pages
    assert len(pages) == 211
    assert pages["tgid"].nunique() == 1
    last = recording.counters.dropna(subset=["pages_shared"])
    assert last["pages_shared"].max() == 7
    assert last["pages_sharing"].max() == 204
    for command in (["report"], ["timeline"], ["replay", "--check"]):
        assert main([*command, str(target)]) == 0, command
        assert capsys.readouterr().out
