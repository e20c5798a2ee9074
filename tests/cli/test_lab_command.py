from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from ksmtrace.cli.main import _parsed, build_parser, main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "words",
    [
        "run why-two-scans --on ksm:6.1",
        "run --on ksm:6.1 why-two-scans",
        "--on ksm:6.1 run why-two-scans",
    ],
)
def test_the_scenario_may_stand_anywhere(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", *words.split()]) == 0
    assert "ksm:6.1: as expected" in capsys.readouterr().out


def test_make_vm_is_a_command_that_can_be_parsed() -> None:
    told = subprocess.run(
        ["make", "-n", "-s", "vm", "KERNEL=6.1", "SCENARIO=forks"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    command = told[told.index("ksmtrace.cli.main") :].replace("\\\n", " ")
    args = _parsed(build_parser(), shlex.split(command)[1:])
    assert (args.verb, args.action, args.scenario) == ("lab", "run", "forks")
    assert args.on == ["vm:6.1", "model"]
    assert args.step


def test_a_text_of_several_lines_is_printed_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        'about = """\nfirst\nsecond"""\n[[step]]\nscan = 1\nsay = """\nthird\nfourth"""\n'
    )
    assert main(["lab", "run", str(path), "--on", "ksm:6.12"]) == 0
    told = capsys.readouterr().out
    assert "first second" in told
    assert "third fourth" in told
    assert "\\n" not in told


@pytest.mark.parametrize("place", ["vm:abc", "vm:6.12.3", "vm:6", "vm:2011"])
def test_a_wrong_series_is_said_before_anything_is_booted(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "run", "why-two-scans", "--on", place]) == 2
    assert capsys.readouterr().err.startswith(f"ksmtrace: '{place}' names no kernel series")
