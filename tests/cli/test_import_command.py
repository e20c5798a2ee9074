from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.batches import batch_of, joins_ksm_page, makes_ksm_page, scan_starts, scan_stops
from support.foreign_texts import text_of

from ksmtrace.cli import import_
from ksmtrace.cli.main import main
from ksmtrace.replay.foreign.formats import FORMATS

RUN = batch_of(
    [
        scan_starts(3, 1_000_000, 4),
        makes_ksm_page(101, 4_000_000, item=0x1_0000_0011, mm=0x1_0000_0007),
        joins_ksm_page(101, 5_000_000, item=0x1_0000_0013, mm=0x1_0000_0007),
        scan_stops(3, 7_000_000, 4),
    ]
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(text_of(RUN, "perf"))
    return tmp_path


def ends(*arguments: str) -> int:
    """The exit status, however it ends."""
    try:
        return main(["import", *arguments])
    except SystemExit as end:
        return int(end.code or 0)


def test_the_formats_are_those_there_are() -> None:
    assert set(import_._FORMATS) == set(FORMATS)


def test_a_text_is_imported_beside_its_name_and_reported(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("a.txt") == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "4 events of 9 lines (perf) are in a.ksm" in " ".join(told.err.split())
    assert "ksmtrace report a.ksm" in " ".join(told.err.split())
    assert all(len(line) <= 80 for line in told.err.splitlines())
    assert main(["report", "a.ksm", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kernel"] == "6.12.3"
    assert report["totals"]["merges"] == 2
    assert main(["report", "a.ksm"]) == 0
    shown = capsys.readouterr().out
    assert "imported from a.txt" in shown
    assert "losses not known" in shown
    assert main(["replay", "a.ksm", "--check"]) == 0
    assert "legal" in capsys.readouterr().out


def test_json_has_stable_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("a.txt", "--json", "-o", "b.ksm") == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == [
        "recording", "format", "kernel", "events", "events_by_kind", "lost", "pointers", "lines",
        "other_events", "unreadable_lines", "first_unreadable_line", "first_unreadable_text",
        "stopped_at_line", "ended", "notes",
    ]  # fmt: skip
    assert told["recording"] == str(here / "b.ksm")
    assert told["events_by_kind"]["ksm_merge_with_ksm_page"] == 2
    assert told["lost"] is None


def test_half_a_text_is_imported_with_a_word_on_where_it_stopped(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.txt").write_bytes(text_of(RUN, "perf")[:-7])
    assert ends("a.txt") == 0
    assert "stopped at line 9" in capsys.readouterr().err


def test_an_unreadable_line_is_shown_harmlessly(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.txt").write_bytes(text_of(RUN, "perf") + b"ksm:ksm_exit: \x1b[31mred\n")
    assert ends("a.txt") == 0
    told = capsys.readouterr().err
    assert "line 10 can't be read: ksm:ksm_exit:" in told
    assert "\x1b" not in told


def test_an_existing_recording_is_replaced_only_with_force(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("a.txt") == 0
    assert ends("a.txt") == 1
    assert "--force" in capsys.readouterr().err
    assert ends("a.txt", "--force") == 0


def test_standard_input_is_a_text_too(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (here / "a.txt").open() as text:
        monkeypatch.setattr(sys, "stdin", text)
        assert ends("-", "-o", "b.ksm", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["events"] == len(RUN)
    manifest = json.loads((here / "b.ksm" / "manifest.json").read_text())
    assert manifest["imported_from"] == "standard input"


def test_a_terminal_is_no_text(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert ends("-") == 2
    assert "terminal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["missing.txt"], 4),
        (["."], 4),
        (["a\0b"], 4),
        (["x" * 300], 4),
        (["empty.txt"], 4),
        (["other.txt"], 4),
        (["perf.data"], 4),
        (["a.txt", "--kernel", "nonsense"], 2),
        (["a.txt", "--kernel", "2.4"], 2),
        (["a.txt", "--format", "dtrace"], 2),
        (["a.txt", "-o", "no/such/folder.ksm"], 1),
        (["a.txt", "-o", "a.txt"], 1),
        (["a.txt", "--format", "trace-cmd"], 4),
        ([], 2),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(
    arguments: list[str], status: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty.txt").touch()
    (here / "other.txt").write_text("something else\n")
    (here / "perf.data").write_bytes(b"PERFILE2h\0\0\0\n")
    before = sorted(here.iterdir())
    assert ends(*arguments) == status
    told = capsys.readouterr()
    assert told.out == ""
    assert "ksmtrace" in told.err
    assert "Traceback" not in told.err
    if status == 4 and len(arguments[0]) < 80:
        assert all(len(line) <= 80 for line in told.err.splitlines())
    assert sorted(here.iterdir()) == before


def test_a_recording_is_told_from_a_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("a.txt") == 0
    capsys.readouterr()
    assert ends("a.ksm") == 4
    assert "ksmtrace report" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pipe_keeps_what_came(number: signal.Signals, here: Path) -> None:
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "ksmtrace.cli.main", "import", "-", "-o", "b.ksm"],
        stdin=read, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.close(read)
        os.write(write, text_of(RUN, "tracefs"))
        while not (here / "b.ksm").exists():
            assert process.poll() is None
        process.send_signal(number)
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(20) == 0, told
    os.close(write)
    manifest = json.loads((here / "b.ksm" / "manifest.json").read_text())
    assert manifest["events"] == len(RUN)
    assert manifest["ended"] == number.name
    assert "Traceback" not in told
