from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.batches import batch_of, joins_ksm_page, loses, scan_stops
from support.recordings import make_recording

from ksmtrace import __version__
from ksmtrace.capture import doctor
from ksmtrace.capture.doctor import Diagnosis, Finding
from ksmtrace.cli.main import COMMANDS, _wrapped, main
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME

VERBS = [verb for verbs in COMMANDS.values() for verb in verbs]


def ends(arguments: list[str]) -> int:
    """The exit status, however it ends."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def test_help_names_every_command_and_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb} " in text
    assert "begin with:" in text
    assert "ksmtrace record -o a.ksm" in text


@pytest.mark.parametrize("verb", VERBS)
def test_each_commands_help_has_examples_of_that_command(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    examples = text.partition("examples:")[2]
    assert f"ksmtrace {verb}" in examples


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from ksmtrace.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'rich', 'pyroute2'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_command_prints_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends([]) == 2
    assert "begin with:" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(["--version"]) == 0
    assert capsys.readouterr().out == f"ksmtrace {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["reprot"], ["--verbose"], ["report"], ["report", "a", "b"], ["doctor", "x"]]
)
def test_an_unknown_command_or_argument_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "ksmtrace" in told.err


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_missing_recording_is_told_once_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str]
) -> None:
    assert ends(["report", str(tmp_path / "nowhere.ksm"), *extra]) == 4
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("ksmtrace: there is no ")
    assert told.err.count("nowhere.ksm") == 1
    assert "Traceback" not in told.err
    assert len(told.err.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments", [["report", "{}"], ["top", "{}", "--once"], ["report", "a", "{}"]]
)
def test_an_error_does_not_obey_a_files_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    name = "x\x1b[31m\u202e\r.ksm"
    assert ends([argument.format(name) for argument in arguments]) != 0
    told = capsys.readouterr().err
    assert "x\\x1b[31m\\u202e\\r.ksm" in told
    assert all(line.isprintable() for line in told.removesuffix("\n").split("\n"))


@pytest.mark.parametrize("kind", ["file", "folder", "long name", "below a file"])
def test_what_is_no_recording_ends_with_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    (tmp_path / "file").write_text("")
    path = {
        "file": tmp_path / "file",
        "folder": tmp_path,
        "long name": tmp_path / ("a" * 307),
        "below a file": tmp_path / "file" / "a.ksm",
    }[kind]
    assert ends(["report", str(path)]) == 4
    assert "Traceback" not in capsys.readouterr().err


@pytest.fixture(name="recording")
def make(tmp_path: Path) -> Path:
    rows = [*(joins_ksm_page(n, ts=n, tgid=11) for n in range(1, 8)), scan_stops(0, 11), loses(5)]
    identities = [{"ts": 1, "what": "enter", "tgid": 11, "comm": "[red]x[/red]"}]
    return make_recording(tmp_path / "a.ksm", [batch_of(rows)], tables={"identities": identities})


def test_a_recording_is_reported(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(["report", str(recording)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "[red]x[/red]" in told.out
    assert "5 LOST" in told.out
    assert max(len(line) for line in told.out.splitlines()) <= 80


def test_a_recording_is_reported_as_json(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(["report", str(recording), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["totals"]["merges"] == 7
    assert told["lost"] == 5
    assert told["processes"][0]["comm"] == "[red]x[/red]"


def test_a_reader_that_goes_away_is_no_error(recording: Path) -> None:
    command = f"{sys.executable} -m ksmtrace.cli.main report {recording} --json | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.parametrize(("can_trace", "status"), [(True, 0), (False, 3)])
def test_doctor_ends_with_3_where_nothing_can_be_traced(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    can_trace: bool,
    status: int,
) -> None:
    finding = Finding("KSM", "no", "this kernel has no KSM", "boot another one")
    monkeypatch.setattr(doctor, "examine", lambda: Diagnosis([finding], can_trace))
    assert ends(["doctor"]) == status
    assert "→ boot another one" in capsys.readouterr().out
    assert ends(["doctor", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["can_trace"] is can_trace


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """A shell's command line with $K for ksmtrace."""
    script = f"K='{sys.executable} -m ksmtrace.cli.main'; {command}"
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_traceback_and_the_others_are_as_ever(
    recording: Path, closed: str
) -> None:
    done = shell(f"$K report {recording} --json {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    if ">&-" not in closed.replace("2>&-", ""):
        assert json.loads(done.stdout)["totals"]["merges"] == 7


def test_an_error_with_standard_error_closed_keeps_its_status(tmp_path: Path) -> None:
    done = shell(f"$K report {tmp_path / 'nowhere.ksm'} 2>&-")
    assert (done.returncode, done.stdout) == (4, "")


def test_what_a_closed_stream_would_have_been_is_no_file_of_ours(tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    recording = make_recording(tmp_path / "a.ksm", [batch_of([scan_stops(0, 11)])])
    export = f"$K export {recording} --to chrome -o {copy}"
    assert shell(export).returncode == 0
    expected = copy.read_bytes()
    copy.unlink()
    assert shell(f"{export} >&- 2>&-").returncode == 0
    assert copy.read_bytes() == expected


@pytest.mark.parametrize("arguments", ["--help", "--version", "report --help", "", "report {}"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_finds_no_space_is_an_error(
    recording: Path, arguments: str, unbuffered: str
) -> None:
    command = f"PYTHONUNBUFFERED={unbuffered} $K {arguments.format(recording)}"
    done = shell(f"{command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "ksmtrace: [Errno 28] No space left on device\n"


def test_a_hint_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(["stat", "--set", "mood=1"]) == 2
    told = capsys.readouterr().err
    assert max(map(len, told.splitlines())) <= 80
    assert all(line.startswith(" " * 10) for line in told.splitlines()[1:])
    assert set(KNOBS_BY_NAME) <= set(told.replace(",", "").split())


def test_a_command_to_copy_stays_on_one_line() -> None:
    command = "echo 2 > /sys/kernel/mm/ksm/run"
    hint = f"unmerge everything that is merged on this host first, as by: {command}"
    assert _wrapped(hint)[-1].endswith(command)
    assert len(_wrapped(hint)) == 2
    path = f"mkdir -p /{'a' * 100}"
    assert _wrapped(path) == [path]
