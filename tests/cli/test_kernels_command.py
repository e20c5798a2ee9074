from __future__ import annotations

import json
import os

import pytest

from ksmtrace.cli.main import main
from ksmtrace.kernel.releases import RELEASES


def test_the_table_of_releases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert all(f"\n{release.version} " in told.out for release in RELEASES)
    assert "\x1b" not in told.out
    assert max(len(line) for line in told.out.splitlines()) <= 80


def test_one_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "6.11"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "checksum_first" in told.out
    assert "d58a361b0350" in told.out


def test_this_hosts_own_release_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", os.uname().release]) == 0
    assert "behaviour" in capsys.readouterr().out


def test_what_was_assumed_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "5.10.0-31-amd64", "--json"]) == 0
    told = capsys.readouterr()
    assert told.err == ("ksmtrace: 5.10.0-31-amd64 is not in the table of releases; taken as 5.9\n")
    assert json.loads(told.out)["release"] == "5.9"


@pytest.mark.parametrize("extra", [[], ["--json"], ["--changes"]])
@pytest.mark.parametrize("release", ["sixpointone", "2.4.37", "6.12+fork_counter", ""])
def test_an_unknown_release_or_fix_is_a_usage_error_with_a_hint(
    release: str, extra: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kernels", release, *extra]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 2


def test_the_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--changes"]) == 0
    everything = capsys.readouterr().out
    assert "\n6.9\nno changes\n" in everything.replace(" \n", "\n")
    assert main(["kernels", "6.9.3", "--changes"]) == 0
    assert capsys.readouterr().out.strip() == "no changes"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["releases"]
    assert main(["kernels", "6.11", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["behaviour"]["visit_order"] == "checksum_first"
    assert main(["kernels", "6.11", "--json", "--changes"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"][0]["status"] == "modelled"
