"""The commands on a kernel with UKSM in KSM's place, played by files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pandas as pd
import pytest
from support.fake_uksm import FakeUksm
from support.recordings import make_recording

import ksmtrace
from ksmtrace.cli.main import main
from ksmtrace.errors import KsmtraceError
from ksmtrace.recording.reader import StoredRecording

ROOT = Path(__file__).parents[2]
FIRST = {"ts": 1_000_000_007, "reason": "start", "pages_shared": 7, "pages_sharing": 101,
         "full_scans": 3, "knob_run": "1", "knob_cpu_ratios": "20 40 MAX/4 MAX/1",
         "knob_max_cpu_percentage": "50", "uksmd_cpu_ns": 0}  # fmt: skip
LAST = {**FIRST, "ts": 6_000_000_007, "reason": "end", "pages_sharing": 53, "knob_run": "0",
        "uksmd_cpu_ns": 500_000_000}  # fmt: skip


@pytest.fixture(name="fake")
def make_fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeUksm:
    fake = FakeUksm(tmp_path)
    fake.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return fake


@pytest.fixture(name="recording")
def record_by_hand(tmp_path: Path) -> Path:
    return make_recording(
        tmp_path / "u.ksm",
        tables={"uksm": [FIRST, LAST]},
        facts={"system": "uksm", "backend": "uksm"},
    )


def ends(*arguments: str) -> int:
    try:
        return main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)


def wait_for(words: str, stream: IO[str]) -> str:
    seen = ""
    for line in stream:
        seen += line
        if words in line:
            break
    return seen


def recorded_while_it_changes(fake: FakeUksm, path: Path) -> tuple[int, str]:
    """Record from outside until SIGINT; the files change after the first sample."""
    process = subprocess.Popen(
        [sys.executable, "-c", fake.script(), "record", "-o", str(path), "--interval", "0.1"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        said = wait_for("recording to", process.stderr)
        rows = path / "uksm.arrow"
        until = time.monotonic() + 20
        # An empty stream is its schema; the first flush of samples makes it longer.
        begun = rows.stat().st_size
        while rows.stat().st_size == begun and time.monotonic() < until:
            time.sleep(0.02)
        fake.put(pages_sharing="2003", full_scans="19", cpu_governor="full [medium] low quiet ")
        fake.zero_pages(0)
        fake.cpu(1_700_000_003)
        (fake.uksm / "hash_strength").write_text("no number\n")
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, said + rest


def test_a_changing_host_is_recorded_until_ctrl_c_and_reported(
    fake: FakeUksm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ksm"
    status, said = recorded_while_it_changes(fake, path)
    assert status == 0, said
    assert "backend uksm: the best that works here (this kernel has UKSM in place of KSM" in said
    assert "samples of UKSM's counters in a.ksm (ended by SIGINT)" in said
    assert "Traceback" not in said
    recording = ksmtrace.open(path)
    samples = recording.uksm
    assert samples["reason"].iloc[0] == "start"
    assert samples["reason"].iloc[-1] == "end"
    assert len(samples) > 3
    assert samples["ts"].is_monotonic_increasing
    assert samples[["pages_sharing", "full_scans", "zero_pages", "uksmd_cpu_ns"]].iloc[
        0
    ].tolist() == [1009, 17, 211, 1_500_000_007]
    assert samples[["pages_sharing", "full_scans", "zero_pages", "uksmd_cpu_ns"]].iloc[
        -1
    ].tolist() == [2003, 19, 0, 1_700_000_003]
    assert samples["hash_strength"].iloc[0] == 67
    assert pd.isna(samples["hash_strength"].iloc[-1])
    assert samples["knob_cpu_governor"].unique().tolist() == ["full", "medium"]
    manifest = recording.manifest
    assert (manifest["system"], manifest["events"], manifest["sealed"]) == ("uksm", 0, True)
    assert manifest["knobs"]["cpu_ratios"] == "20 40 MAX/4 MAX/1"
    assert [len(StoredRecording(path).table(name)) for name in ("counters", "identities")] == [0, 0]
    assert ends("report", str(path)) == 0
    told = capsys.readouterr().out
    for words in ("UKSM", "rounds", "medium at the end", "23.75, 95 % of one CPU", "+994"):
        assert words in told
    assert "are no full scans as KSM has them" in told
    assert max(map(len, told.splitlines())) <= 80


def test_a_command_is_recorded_to_its_end(fake: FakeUksm, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", fake.script(), "record", "-o", "a.ksm", "--", "sleep", "0.3"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "(ended by command)" in done.stderr
    assert ksmtrace.open(tmp_path / "a.ksm").manifest["command_status"] == 0


def test_the_report_in_json_has_uksms_counters_and_no_zero_for_what_is_unknown(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("report", str(recording), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["system"] == "uksm"
    assert told["samples"] == 2
    assert told["saved_bytes_peak"] == 101 * 4096
    assert told["saved_bytes_last"] == 53 * 4096
    assert told["uksm_counters_last"]["pages_sharing"] == 53
    assert told["uksm_counters_last"]["zero_pages"] is None
    assert told["uksm_knobs_first"]["run"] == "1"
    assert told["uksm_knobs_last"]["run"] == "0"
    assert told["uksmd"] == {"cpu_s": 0.5, "percent_of_one_core": 10.0}
    assert "totals" not in told


def test_the_report_says_what_is_missing_and_what_the_ratios_come_to(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert ends("report", str(recording)) == 0
    told = capsys.readouterr().out
    assert "0.2, 0.4, 12.5, 50 % of one CPU" in told
    assert "zero_pages is not known" in told
    assert "hash_strength" not in told
    assert "1 at first, 0 at the end" in told


def test_the_frame_of_counters_keeps_both_systems_apart(recording: Path) -> None:
    counters = ksmtrace.open(recording).counters
    assert counters["uksm_pages_sharing"].tolist() == [101, 53]
    assert counters["uksm_full_scans"].tolist() == [3, 3]
    assert counters["ts"].tolist() == [FIRST["ts"], LAST["ts"]]
    assert counters["pages_sharing"].isna().all()
    assert counters["full_scans"].isna().all()
    assert "uksm" in ksmtrace.open(recording)._repr_html_()


def test_a_recording_of_before_reads_and_has_none() -> None:
    demo = ksmtrace.open(ROOT / "recordings" / "demo.ksm")
    assert "uksm" not in demo.manifest["tables"]
    assert len(demo.uksm) == 0
    assert not [name for name in demo.counters if name.startswith("uksm_")]


def test_a_copy_without_names_is_reported_alike(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("export", str(recording), "--share", "-o", str(tmp_path / "s.ksm")) == 0
    capsys.readouterr()
    told = []
    for path in (recording, tmp_path / "s.ksm"):
        assert ends("report", str(path), "--json") == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0]["uksm_counters_last"] == told[1]["uksm_counters_last"]
    assert told[0]["uksm_knobs_last"] == told[1]["uksm_knobs_last"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["timeline"], ["timeline", "--scan"], ["replay"], ["replay", "--check"],
        ["replay", "--predict"], ["diff", "{}"], ["advise"], ["simulate"],
        ["export", "--to", "csv", "-o", "x"], ["export", "--to", "perfetto", "-o", "y"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_needs_events_says_that_there_are_none(
    recording: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    verb, *rest = (word.replace("{}", str(recording)) for word in arguments)
    assert ends(verb, str(recording), *rest) == 4
    told = capsys.readouterr()
    assert "UKSM: it holds counters, and this needs events" in told.err
    assert f"ksmtrace report {recording}" in " ".join(told.err.split())
    assert told.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["u.ksm"]


def test_derived_tables_are_refused_rather_than_empty(recording: Path) -> None:
    with pytest.raises(KsmtraceError, match="needs events"):
        _ = ksmtrace.open(recording).scans


def test_the_samples_can_be_exported(recording: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ends("export", str(recording), "--to", "csv", "--table", "uksm", "-o", "-") == 0
    head, first, _ = capfd.readouterr().out.splitlines()
    assert head.startswith('"ts","reason","pages_shared","pages_sharing"')
    assert first.startswith('1000000007,"start",7,101,,')


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    "arguments",
    [
        ["why", str(os.getpid())], ["advise", "--duration", "1"], ["stat", "--duration", "1"],
        ["exporter"], ["record", "--backend", "core"],
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_what_needs_ksm_says_that_uksm_stands_in_its_place(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert ends(*arguments) == 3
    told = capsys.readouterr()
    assert "this kernel has UKSM in place of KSM" in told.err
    assert told.out == ""


@pytest.mark.usefixtures("fake")
def test_an_estimate_says_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("estimate", str(os.getpid()), "--once") == 0
    assert "UKSM" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option",
    [
        ["--scans", "3"], ["--pid", "1"], ["--census-interval", "1"], ["--run"],
        ["--set", "run=1"], ["--merge", "--", "true"], ["--contents"], ["--cow"],
    ],
    ids=lambda option: option[0],
)  # fmt: skip
def test_options_that_mean_nothing_there_are_refused_by_name(
    fake: FakeUksm, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert ends("record", "-o", "a.ksm", *option) == 2
    assert f"{option[0]} can't be had with UKSM" in capsys.readouterr().err
    assert not (fake.uksm.parent / "a.ksm").exists()


@pytest.mark.usefixtures("fake")
def test_doctor_ends_well_and_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("doctor") == 0
    told = capsys.readouterr().out
    assert "UKSM in KSM's place" in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= 80
    assert ends("doctor", "--json") == 0
    assert json.loads(capsys.readouterr().out)["system"] == "uksm"
