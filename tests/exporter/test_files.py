from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.prometheus import tool

from ksmtrace.cli.main import build_parser, main
from ksmtrace.exporter import listening
from ksmtrace.exporter.files import UNIT, dashboard, unit
from ksmtrace.exporter.metrics import METRICS

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\b(?:node|ksmtrace)_\w+")
DECLARED = {metric.name for metric in METRICS} | {
    f"{metric.name}_{part}"
    for metric in METRICS
    if metric.kind == "histogram"
    for part in ("bucket", "sum", "count")
}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard())["panels"]
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def alerts() -> str:
    page = (ROOT / "docs" / "exporter.md").read_text()
    found = re.search(r"```yaml\n(groups:.*?)```", page, re.DOTALL)
    assert found
    return found[1]


def test_a_panel_asks_only_for_what_is_exported() -> None:
    for expression in expressions():
        names = NAME.findall(expression)
        assert names
        assert set(names) <= DECLARED, expression


def test_the_dashboard_says_which_data_and_host_and_no_panel_lies_on_another() -> None:
    text = dashboard()
    variables = {one["name"] for one in json.loads(text)["templating"]["list"]}
    assert variables == {"datasource", "instance"}
    assert all('instance="$instance"' in expression for expression in expressions())
    places: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not places & cells, panel["title"]
        places |= cells


def test_an_alert_asks_only_for_what_is_exported() -> None:
    names = NAME.findall(alerts())
    assert len(names) >= 5
    assert set(names) <= DECLARED


def test_promtool_takes_the_alerts(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(alerts())
    done = subprocess.run(
        [tool("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_unit_starts_is_a_command_line_of_ours() -> None:
    lines = [line.removeprefix("#").strip() for line in unit("ksmtrace").text.splitlines()]
    commands = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=ksmtrace")]
    assert len(commands) == 2
    for command in commands:
        args = build_parser().parse_args(shlex.split(command)[1:])
        assert args.verb == "exporter"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    place = tmp_path / UNIT
    place.write_text(unit(shutil.which("true")).text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", place],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_in_a_home_folder_is_not_hidden_from_its_unit(tmp_path: Path) -> None:
    home = tmp_path / "home"
    program = home / "venv" / "bin" / "ksmtrace"
    inside, outside = unit(str(program), [home]).text, unit(str(program), [tmp_path / "x"]).text
    assert "\nProtectHome=read-only\n" in inside
    assert "\nProtectHome=yes\n" in outside
    assert "ProtectHome=yes" not in inside


def test_a_folder_that_the_units_user_cannot_enter_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "bin").mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            closed = folder
    closed.chmod(0o750)
    assert unit(str(tmp_path / "closed" / "bin" / "ksmtrace")).shut == str(closed)


def test_both_files_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exporter", "--print-dashboard"]) == 0
    assert json.loads(capsys.readouterr().out)["uid"] == "ksmtrace"
    assert main(["exporter", "--print-unit"]) == 0
    assert "[Service]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "nonsense"], "not ADDRESS:PORT"),
        (["--cow"], "about a capture"),
        (["--backend", "core"], "about a capture"),
        (["--capture", "--backend", "nonsense"], "no backend called"),
    ],
)
def test_wrong_usage_is_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["exporter", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_it_listens_ends_it_with_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.setattr(listening, "parse_address", lambda _text: os.kill(os.getpid(), number))
    assert main(["exporter"]) == 0
    assert capsys.readouterr() == ("", "")
