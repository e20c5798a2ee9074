"""`ksmtrace kernels --uksm`."""

from __future__ import annotations

import json

import pytest

from ksmtrace.cli.main import main
from ksmtrace.kernel.uksm_ports import PORTS
from ksmtrace.views.uksm_ports import ports_table


def test_every_port_has_a_row_that_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["kernels", "--uksm"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    begins = [line.split("  ")[0] for line in lines if line and line[0].isdigit()]
    assert [begin.strip() for begin in begins] == [port.kernels for port in PORTS]
    assert "–" in next(line for line in lines if line.startswith("4.0 to 4.7"))
    assert next(line for line in lines if line.startswith("6.8 ")).split()[1:3] == [
        "20", "med-complex",
    ]  # fmt: skip


def test_in_json_what_is_not_told_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--uksm", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [port["kernels"] for port in told["ports"]] == [port.kernels for port in PORTS]
    assert told["ports"][1]["hunks"] is None
    assert told["ports"][1]["testing"] is None
    by_kernel = {port["kernels"]: port for port in told["ports"]}
    assert by_kernel["6.7"]["hunks"] == 0
    assert by_kernel["5.19"]["testing"] == "Used for long-term perf testing"
    assert set(told["sources"]) == {"A", "B", "C"}


def test_one_release_is_one_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "6.6.30", "--uksm", "--json"]) == 0
    (port,) = json.loads(capsys.readouterr().out)["ports"]
    assert (port["first"], port["hunks"]) == ("6.6", 9)


@pytest.mark.parametrize("arguments", [["6.14"], ["--changes"], ["nonsense"]], ids=str)
def test_what_there_is_no_port_of_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kernels", "--uksm", *arguments]) == 2
    assert capsys.readouterr().out == ""


def test_the_docs_table_has_a_row_for_each_port() -> None:
    rows = [line for line in ports_table().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(PORTS)
    assert all(row.count("|") == 7 for row in rows)
