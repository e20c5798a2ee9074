from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ksmtrace.cli.main import main


def test_a_shipped_scenario_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "why-two-scans", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["on"] == ["ksm:6.18"]
    assert [scan["scan"] for scan in report["scans"]] == [1, 2, 3]
    assert report["scans"][1]["counters"]["pages_sharing"] == {"ksm:6.18": 3}


def test_releases_that_differ_are_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["simulate", "the-process-of-2011", "--on", "ksm:6.10", "--on", "ksm:6.11"])
    assert code == 0
    assert "differ" in capsys.readouterr().out


def test_an_expectation_that_is_not_met_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        '[[step]]\nmap = "a.heap"\npages = 2\n[[step]]\nscan = 1\nexpect = { pages_shared = 1 }\n'
    )
    assert main(["simulate", str(path)]) == 6
    assert f"{path}:4" in capsys.readouterr().out.replace("\n", "")


def test_knobs_can_be_set_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "smart-scan", "--set", "smart_scan=0", "--json"]) == 6
    report = json.loads(capsys.readouterr().out)
    assert report["scans"][-1]["counters"]["pages_skipped"] == {"ksm:6.18": 0}


def test_a_scenario_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('[[step]]\nmap = "a.heap"\npages = 3\n'))
    assert main(["simulate", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scenario"] == "standard input"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.toml"], 2, "there is no scenario nowhere.toml"),
        (["why-two-scans", "--on", "host"], 2, "simulate runs models only"),
        (["why-two-scans", "--on", "ksm:2.4"], 2, "there is no profile of kernel '2.4'"),
        (["why-two-scans", "--on", "kvm:6.1"], 2, "neither a host nor a scanner"),
        (["why-two-scans", "--on", "ksm:6.1", "--on", "ksm:6.1"], 2, "is there twice"),
        (["why-two-scans", "--set", "smart_scans=0"], 2, "no knob called 'smart_scans'"),
        (["why-two-scans", "--set", "max_page_sharing=1"], 2, "the kernel refuses"),
    ],
)
def test_errors_are_told_in_a_sentence_with_the_right_code(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *arguments]) == code
    told = capsys.readouterr()
    assert words in told.err
    assert not told.out


def test_an_unknown_release_is_taken_as_an_older_one_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["simulate", "why-two-scans", "--on", "ksm:7.3"]) == 0
    assert "7.3 is not in the table of releases; taken as 6.19" in capsys.readouterr().out


def test_lab_list_names_every_shipped_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "list"]) == 0
    text = capsys.readouterr().out
    assert main(["lab", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) >= 8
    for one in listed:
        assert one["name"] in text
        assert one["title"] in text
        assert one["about"]


def test_lab_run_without_a_scenario_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "run"]) == 2
    assert "ksmtrace lab run why-two-scans" in capsys.readouterr().err


def test_only_a_real_run_can_be_recorded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["lab", "run", "why-two-scans", "--on", "model", "--record", str(tmp_path / "a")]
    assert main(arguments) == 2
    assert "add --on host" in capsys.readouterr().err
