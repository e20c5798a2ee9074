from __future__ import annotations

import io
import json
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from support.exported import NAMES, busy_recording, read_chrome, read_perfetto
from support.sharing import leaks

from ksmtrace.cli import export
from ksmtrace.cli.main import main
from ksmtrace.exports.formats import FORMATS
from ksmtrace.exports.gather import DERIVED, STORED
from ksmtrace.exports.tracks import LIMIT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    busy_recording(tmp_path / "a.ksm")
    return tmp_path


def ends(*arguments: str) -> int:
    """The exit status, however it ends."""
    try:
        return main(["export", *arguments])
    except SystemExit as end:
        return int(end.code or 0)


def test_the_formats_and_the_limit_are_those_there_are() -> None:
    assert set(export._FORMATS) == set(FORMATS)
    assert export._LIMIT == LIMIT


def test_traces_get_a_name_and_say_what_opens_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("a.ksm", "--to", "chrome") == 0
    assert ends("a.ksm", "--to", "perfetto") == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "a.json: 80 points on 22 tracks; open https://ui.perfetto.dev" in told.err
    assert all(len(line) <= 80 for line in told.err.splitlines())
    assert read_chrome(Path("a.json").read_bytes()) == read_perfetto(Path("a.pftrace").read_bytes())
    assert {Path(n).stat().st_mode & 0o777 for n in ("a.json", "a.pftrace")} == {0o600}


def test_what_is_aggregated_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("a.ksm", "--to", "chrome", "--limit", "5") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "36 merges and breaks are too many to show each: the first 5 are, and all are" in told


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_fill_a_folder(here: Path, suffix: str) -> None:
    assert ends("a.ksm", "--to", suffix) == 0
    assert {p.name for p in Path(f"a-{suffix}").iterdir()} == {f"{n}.{suffix}" for n in DERIVED}
    assert ends("a.ksm", "--to", suffix, "--stored", "-o", "all") == 0
    assert {p.stem for p in Path("all").iterdir()} == {*DERIVED, *STORED}
    assert {p.stat().st_mode & 0o777 for p in Path("all").iterdir()} == {0o600}
    (told,) = duckdb.sql(f"select count(*) from 'all/pages.{suffix}'").fetchall()
    assert told == (33,)


def test_one_table_is_a_file_or_goes_to_standard_output(
    here: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert ends("a.ksm", "--to", "csv", "--table", "scans") == 0
    capsysbinary.readouterr()
    assert ends("a.ksm", "--to", "csv", "--table", "scans", "-o", "-") == 0
    told = capsysbinary.readouterr()
    assert told.out == Path("a-scans.csv").read_bytes()
    assert told.err == b""
    assert ends("a.ksm", "--to", "csv", "--table", "events", "-o", "-") == 0
    assert len(pd.read_csv(io.BytesIO(capsysbinary.readouterr().out))) == 50
    assert ends("a.ksm", "--to", "chrome", "-o", "-") == 0
    assert json.loads(capsysbinary.readouterr().out)["traceEvents"]


def test_nothing_is_overwritten_without_force(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, made in (
        (("--to", "chrome"), "a.json"),
        (("--to", "csv"), "a-csv"),
        (("--share",), "a-shared.ksm"),
    ):
        assert ends("a.ksm", *arguments) == 0
        before = sorted(p.read_bytes() for p in [Path(made), *Path(made).glob("*")] if p.is_file())
        capsys.readouterr()
        assert ends("a.ksm", *arguments) == 1
        assert f"{made} exists" in capsys.readouterr().err
        after = sorted(p.read_bytes() for p in [Path(made), *Path(made).glob("*")] if p.is_file())
        assert before == after
        assert ends("a.ksm", *arguments, "--force") == 0


def test_a_shared_recording_is_one_like_any_other(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("a.ksm", "--share", "-o", "b.ksm") == 0
    capsys.readouterr()
    told = []
    for name in ("a.ksm", "b.ksm"):
        assert main(["report", name, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["totals"] == told[1]["totals"]
    assert told[0]["scans"] == told[1]["scans"]


@pytest.mark.parametrize("form", [(), ("csv",), ("parquet",), ("perfetto",), ("chrome",)])
def test_share_leaves_no_name_in_any_format(here: Path, form: tuple[str, ...]) -> None:
    to = (
        ("--to", *form, *(("--stored",) if form in (("csv",), ("parquet",)) else ()))
        if form
        else ()
    )
    assert ends("a.ksm", *to, "-o", "plain" if form else "plain.ksm") == (0 if form else 2)
    assert ends("a.ksm", *to, "--share", "-o", "shared") == 0
    if form:
        assert leaks(NAMES, Path("plain")), "without --share they are there"
    assert leaks({*NAMES, "sekrit"}, Path("shared")) == []
    assert {p.name for p in here.iterdir()} <= {"a.ksm", "plain", "shared"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what to export"),
        (("--to", "perfetto", "--table", "scans"), "--table and --stored are for csv"),
        (("--to", "csv", "--limit", "3"), "--limit is for perfetto and chrome"),
        (("--to", "chrome", "--limit", "-1"), "can't be negative"),
        (("--to", "csv", "-o", "-"), "a folder can't go to standard output"),
        (("--share", "-o", "-"), "a recording can't go to standard output"),
        (("--to", "csv", "--table", "nope"), "there is no table nope"),
    ],
)
def test_wrong_usage_is_said_in_words(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert ends("a.ksm", *arguments) == 2
    assert words in capsys.readouterr().err
    assert [p.name for p in here.iterdir()] == ["a.ksm"]


def test_what_is_no_recording_is_refused_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("b.ksm", "--to", "csv") == 4
    (here / "a.ksm/events.parquet").write_bytes(b"PAR1")
    for to in FORMATS:
        assert ends("a.ksm", "--to", to) == 4
    assert "damaged" in capsys.readouterr().err
    assert [p.name for p in here.iterdir()] == ["a.ksm"]
