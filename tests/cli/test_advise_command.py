from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.compared import small_recording

from ksmtrace.cli.main import main
from ksmtrace.errors import Exit
from ksmtrace.kernel import host

RECORDINGS = Path(__file__).parents[2] / "recordings"


def test_a_recording_gives_advice_and_no_words_beside(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", str(RECORDINGS / "two-guests.ksm")]) == Exit.OK
    out, err = capsys.readouterr()
    assert err == ""
    assert "shared across 2 virtual machines" in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_has_stable_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", str(RECORDINGS / "sharing-limit.ksm"), "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert list(told) == [
        "source", "kernel", "observed_s", "verdict", "advice", "overcommit", "shared", "caveats",
        "not_known",
    ]  # fmt: skip
    assert set(told["advice"][0]) == {
        "id", "what", "commands", "why", "brings", "risks", "confidence", "evidence",
        "gain_bytes", "gain_cpu_percent_of_one_core",
    }  # fmt: skip
    assert main(["advise", str(small_recording(tmp_path / "a.ksm")), "--json"]) == Exit.OK


def test_what_is_no_recording_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", str(tmp_path / "none.ksm")]) == Exit.BAD_RECORDING
    out, err = capsys.readouterr()
    assert out == ""
    assert "none.ksm" in err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "long"])
def test_a_time_that_is_none_is_a_usage_error(seconds: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["advise", f"--duration={seconds}"])
    assert end.value.code == Exit.USAGE


def test_a_recording_is_not_watched(capsys: pytest.CaptureFixture[str]) -> None:
    demo = str(RECORDINGS / "demo.ksm")
    assert main(["advise", demo, "--duration", "5"]) == Exit.USAGE
    assert "--duration" in capsys.readouterr().err


def test_a_kernel_without_ksm_is_said_to_have_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ksmtrace.errors import Obstacle

    monkeypatch.setattr(host, "ksm_obstacles", lambda: [Obstacle("there is no KSM", "boot one")])
    assert main(["advise"]) == Exit.HOST_CANNOT
    assert "there is no KSM" in capsys.readouterr().err
