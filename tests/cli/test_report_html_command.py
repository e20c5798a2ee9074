from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.exported import busy_recording
from support.recordings import make_recording

from ksmtrace.cli.main import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    busy_recording(tmp_path / "a.ksm")
    return tmp_path


def ends(*arguments: str) -> int:
    """The exit status, however it ends."""
    try:
        return main(["report", *arguments])
    except SystemExit as end:
        return int(end.code or 0)


def test_it_writes_a_private_file_and_says_how_large_it_is(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("a.ksm", "--html", "a.html") == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("a.html: ")
    assert "KiB" in told.err
    page = here / "a.html"
    assert page.read_text().startswith("<!doctype html>")
    assert page.stat().st_mode & 0o777 == 0o600


def test_it_says_what_was_cut(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ksmtrace.views.html import page_maps

    monkeypatch.setattr(page_maps, "_MOST_CELLS", 16)
    assert ends("a.ksm", "--html", "a.html") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "cut: single pages: a cell of the maps is up to 4 pages" in told


def test_a_file_that_exists_stays_without_force(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.html").write_text("mine")
    assert ends("a.ksm", "--html", "a.html") == 1
    told = capsys.readouterr().err
    assert "a.html exists" in told
    assert "--force" in told
    assert "with --html" in told
    assert (here / "a.html").read_text() == "mine"
    assert ends("a.ksm", "--html", "a.html", "--force") == 0
    assert (here / "a.html").read_text() != "mine"


def test_a_folder_that_is_not_there_or_not_to_be_written_is_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("a.ksm", "--html", "none/a.html") == 1
    assert "the folder none does not exist" in capsys.readouterr().err
    assert ends("a.ksm", "--html", "/proc/a.html") == 1
    told = capsys.readouterr().err
    assert "/proc/a.html" in told
    assert "Traceback" not in told
    (here / "b").mkdir()
    assert ends("a.ksm", "--html", "b", "--force") == 1
    assert "b is a folder" in capsys.readouterr().err


def test_a_bad_recording_leaves_no_file(here: Path) -> None:
    (here / "a.ksm" / "manifest.json").write_text("{")
    assert ends("a.ksm", "--html", "a.html") == 4
    assert not list(here.glob("*.html"))


def test_a_recording_of_uksm_says_what_to_do_instead(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_recording(here / "u.ksm", facts={"system": "uksm"})
    manifest = json.loads((here / "u.ksm" / "manifest.json").read_text())
    assert manifest["system"] == "uksm"
    assert ends("u.ksm", "--html", "u.html") == 2
    assert "without --html" in capsys.readouterr().err


def test_json_and_html_exclude_each_other(here: Path) -> None:
    assert ends("a.ksm", "--html", "a.html", "--json") == 2


def test_force_without_html_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("a.ksm", "--force") == 2
    assert "--html" in capsys.readouterr().err
