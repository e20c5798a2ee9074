from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.cli.main import main
from ksmtrace.kernel.releases import profile
from ksmtrace.lab.scenario import parse_scenario
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.tables import TABLES
from tests.support.batches import batch_of, joins_ksm_page, makes_ksm_page, scan_starts, scan_stops
from tests.support.lab_recordings import lab_recording
from tests.support.recordings import BEGIN, make_recording

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "recordings" / "demo.ksm"
SCENARIO = """
title = "A page is written and merges again"
[[step]]
map = "a.heap"
pages = 3
[[step]]
write = "a.heap"
content = "same"
[[step]]
scan = 2
[[step]]
write = "a.heap[0]"
content = "other"
[[step]]
scan = 1
[[step]]
write = "a.heap[0]"
content = "same"
[[step]]
scan = 5
"""
VIEWS = [
    [],
    ["--scan", "2"],
    ["--process"],
    ["--process", "@0"],
    ["--ksm-page", "0"],
    ["--region"],
    ["--sharing"],
    ["--sharing", "cgroup"],
    ["--sharing", "vm"],
    ["--advisor"],
    ["--accounts"],
]


def ends(*arguments: str | Path) -> int:
    """The exit status, however it ends."""
    try:
        return main(["timeline", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    return lab_recording(folder / "lab.ksm", parse_scenario(SCENARIO, "again"), profile("6.18"))


def page_with_most_lives(path: Path) -> tuple[str, list[str]]:
    """As it is named, and how its lives ended."""
    pages = timeline_of(StoredRecording(path)).pages
    page = pages.groupby("addr").size().idxmax()
    same = pages[pages["addr"] == page]
    return f"{same['tgid'].iloc[0]}:{page:x}", same["end"].tolist()


@pytest.mark.parametrize("view", VIEWS, ids=" ".join)
def test_every_view_of_a_real_recording_fits_80_columns(
    view: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert ends(DEMO, *view) == 0
    told = capsys.readouterr()
    assert told.out.strip()
    assert all(len(line) <= 80 for line in told.out.splitlines())
    assert not told.err


@pytest.mark.parametrize("view", VIEWS, ids=" ".join)
def test_every_view_is_there_as_json_and_as_csv(
    view: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(DEMO, *view, "--json") == 0
    assert "start_ns" in json.loads(capsys.readouterr().out)
    assert ends(DEMO, *view, "--csv") == 0
    head, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert head
    assert all(len(row) == len(head) for row in rows)


def test_the_run_is_told_with_the_numbers_of_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    timeline = timeline_of(StoredRecording(DEMO))
    assert ends(DEMO, "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["totals"]["merges"] == timeline.scans["merges"].sum() == 1648
    assert sum(told["how"].values()) == sum(told["end"].values()) == len(timeline.pages)
    assert [scan["scan"] for scan in told["scans"]] == timeline.scans["scan"].tolist()
    cell = told["strip"]["cell_s"]
    assert sum(told["strip"]["zero_merges_per_s"]) * cell == pytest.approx(159)
    assert list(told["scans"][0]) == [column.name for column in TABLES["scans"].columns]


def test_what_it_says_to_type_next_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert ends("recordings/demo.ksm") == 0
    shown = capsys.readouterr().out
    commands = [line.split()[1:] for line in shown.splitlines() if line.startswith("  ksmtrace")]
    assert len(commands) == 5
    for command in commands:
        assert main(command) == 0
        assert capsys.readouterr().out.strip()


def test_all_scans_are_listed_without_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(DEMO, "--scan", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["scans"]
    assert ends(DEMO, "--json") == 0
    assert listed == json.loads(capsys.readouterr().out)["scans"]
    assert ends(DEMO, "--scan", "1") == 0
    assert capsys.readouterr().out.startswith("scan 1, ")


def test_a_page_of_a_lab_run_is_told_through_its_write(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, ended = page_with_most_lives(lab)
    assert len(ended) == 2
    assert ends(lab, "--page", page) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "merged 2 times" in told
    assert "1. In scan 2, at" in told
    assert "2. In scan 6, at" in told
    assert told.endswith("It was still merged at the end, as far as is known.")


def test_the_accounts_of_a_lab_run_are_complete(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(lab) == 0
    assert "the events account for every page the kernel counts" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--scan", "x"], 2, "invalid int"),
        (["--scan", "2", "--accounts"], 2, "not allowed"),
        (["--json", "--csv"], 2, "not allowed"),
        (["--sharing", "colour"], 2, "process"),
        (["--page", "17054"], 2, "names no page"),
        (["--page", "17054:pfn"], 2, "hexadecimal"),
        (["--process", "python"], 2, "python 17054 (@0), python 17055"),
        (["--process", "@x"], 2, "@0"),
        (["--scan", "99"], 1, "1 to 55"),
        (["--process", "1"], 1, "python 17054 (@0)"),
        (["--process", "@4"], 1, "python 17054 (@0)"),
        (["--page", "17054:0"], 1, "never merged"),
        (["--ksm-page", "-1"], 1, "numbered 0 to 52"),
        (["--region", "[heap]"], 1, "no region"),
        (["--breaks"], 1, "record with --cow"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_or_not_clear_is_said_with_what_is(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(DEMO, *arguments) == status
    told = capsys.readouterr()
    assert words in told.err
    assert not told.out


def test_a_folder_that_is_no_recording_is_said_to_be(tmp_path: Path) -> None:
    assert ends(tmp_path) == 4
    assert ends(tmp_path / "none.ksm") == 4


def test_an_empty_recording_has_every_view(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_recording(tmp_path / "e.ksm")
    for view in ([], ["--process"], ["--region"], ["--sharing"], ["--advisor"], ["--accounts"]):
        assert ends(path, *view) == 0
        assert capsys.readouterr().out.strip()
        assert ends(path, *view, "--csv") == 0
        assert capsys.readouterr().out.strip()
    assert ends(path, "--scan", "1") == 1
    assert "none in it at all" in capsys.readouterr().err


def test_a_recording_that_knows_no_addresses_is_shown_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = batch_of(
        [
            scan_starts(3, BEGIN + 1_000_000, 4),
            makes_ksm_page(101, BEGIN + 4_000_000, item=0x11, mm=7, addr=0, tgid=0),
            joins_ksm_page(101, BEGIN + 5_000_000, item=0x13, mm=7, addr=0, tgid=0),
            scan_stops(3, BEGIN + 7_000_000, 4),
        ]
    )
    unknown = ["addr", "tgid", "via", "parent_tgid", "first_sight", "mapcount"]
    path = make_recording(tmp_path / "t.ksm", [run], facts={"fields_unknown": unknown})
    assert ends(path) == 0
    told = capsys.readouterr().out
    assert "1 created, 1 partner" in told
    assert "no counters to compare with" in " ".join(told.split())
    assert "--page" not in told
    assert ends(path, "--process", "@0") == 0
    assert ends(path, "--page", "@0:7000") == 1
    assert "knows no addresses" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_terminal_without_unicode_gets_ascii(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ksmtrace.cli.main", "timeline", DEMO],
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80"},
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    text = done.stdout.decode(encoding)
    assert ("█" in text) == (encoding == "utf-8")
    assert ("#" in text) == (encoding == "ascii")
    assert len(text.splitlines()) > 20


def test_no_colour_is_no_escape(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert ends(DEMO) == 0
    assert "\x1b" not in capsys.readouterr().out
