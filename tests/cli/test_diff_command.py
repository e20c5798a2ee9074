from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.compared import small_recording

from ksmtrace.cli.main import main


def test_a_difference_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = small_recording(tmp_path / "a.ksm", kernel="6.1.5", without=("ksm_zero_pages",))
    b = small_recording(tmp_path / "b.ksm", slower=3)
    assert main(["diff", str(a), str(b)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "6.1.5" in out
    assert "– in A: ksm_zero_pages came with Linux 6.6" in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_of_a_recording_against_itself_says_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(small_recording(tmp_path / "a.ksm"))
    assert main(["diff", path, path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["equal"] is True
    assert told["measures"]["ksmd_cpu_s"]["a"] == told["measures"]["ksmd_cpu_s"]["b"] == 2.0


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_no_recording_is_named(
    which: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(small_recording(tmp_path / "a.ksm"))] * 2
    paths[which] = str(tmp_path / "none.ksm")
    assert main(["diff", *paths]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "none.ksm" in err
