from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.recordings import make_recording

from ksmtrace.capture import choose, record
from ksmtrace.capture.choose import Choice
from ksmtrace.capture.cow import CowWatch
from ksmtrace.capture.record import Recorded, RecordRequest
from ksmtrace.cli.main import main
from ksmtrace.errors import Obstacle, host_cannot


class Fake:
    """A source that works, with or without owners."""

    name = "fake"
    summary = "a source of these tests"

    def __init__(self, *fields_unknown: str) -> None:
        self.fields_unknown = fields_unknown


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test gives, no kernel is touched."""

    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        pytest.fail("this would have begun to trace")

    source: Any = Fake()
    monkeypatch.setattr(
        choose, "choose_source", lambda _name, _watch: Choice((source,), asked_for=True)
    )
    monkeypatch.setattr(record, "record", refuse)
    monkeypatch.setattr(record, "tidy_up", lambda: None)


def ends(*arguments: str) -> int:
    try:
        return main(["record", *arguments])
    except SystemExit as end:
        return int(end.code or 0)


BAD = [
    (["--ring", "3"], 2, "power of two"),
    (["--ring", "4096"], 2, "2048"),
    (["--ring", "0"], 2, "positive"),
    (["--ring", "many"], 2, "--ring"),
    (["--set", "nonsense"], 2, "KNOB=VALUE"),
    (["--set", "mood=7"], 2, "mood"),
    (["--set", "run=1", "pages_to_scan"], 2, "KNOB=VALUE"),
    (["--set", "run=2", "--run"], 2, "contradict"),
    (["--merge"], 2, "--merge needs a command"),
    (["--merge", "--"], 2, "--merge needs a command"),
    (["stray", "words"], 2, "stray"),
    (["--duration", "0"], 2, "positive"),
    (["--duration", "-3"], 2, "positive"),
    (["--duration", "nan"], 2, "positive"),
    (["--duration", "inf"], 2, "positive"),
    (["--duration", "soon"], 2, "--duration"),
    (["--interval", "0"], 2, "positive"),
    (["--census-interval", "-1"], 2, "positive"),
    (["--scans", "0"], 2, "positive"),
    (["--scans", "1.5"], 2, "--scans"),
    (["--pid", "0"], 2, "positive"),
    (["--pid", "self"], 2, "--pid"),
    (["--pid", "4194399"], 1, "no process 4194399"),
    (["--no-such-option"], 2, "--no-such-option"),
    (["--", "no-such-command-anywhere"], 1, "no-such-command-anywhere"),
]
MAKES_NO_SENSE = [(arguments, words) for arguments, status, words in BAD if status == 2]
EVERY_BAD = pytest.mark.parametrize(
    ("arguments", "status", "words"), BAD, ids=[" ".join(arguments) for arguments, *_ in BAD]
)


@EVERY_BAD
def test_what_makes_no_sense_is_told_and_leaves_nothing_behind(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    assert ends("-o", "a.ksm", *arguments) == status
    told = capsys.readouterr()
    assert words in told.err
    assert "Traceback" not in told.err
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"), MAKES_NO_SENSE, ids=[" ".join(a) for a, _ in MAKES_NO_SENSE]
)
def test_a_usage_error_is_told_before_what_the_host_cannot_do(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    def incapable(_name: str) -> NoReturn:
        raise host_cannot([Obstacle("this kernel has no KSM", "boot another one")], "trace KSM")

    monkeypatch.setattr(choose, "choose_source", incapable)
    assert ends("-o", "a.ksm", *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_bad_name_for_the_recording_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").mkdir()
    assert ends("-o", "home") == 1
    assert ends("-o", "no/such/folder/a.ksm") == 1
    make_recording(tmp_path / "a.ksm")
    assert ends("-o", "a.ksm") == 1
    assert "add --force" in capsys.readouterr().err


def test_pids_need_a_backend_that_knows_owners(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source: Any = Fake("addr", "tgid")
    monkeypatch.setattr(
        choose, "choose_source", lambda _name, _watch: Choice((source,), asked_for=True)
    )
    assert ends("-o", "a.ksm", "--pid", str(os.getpid())) == 2
    assert "--backend core" in capsys.readouterr().err


@pytest.fixture(name="requests")
def take_requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RecordRequest]:
    """What would have been recorded."""
    requests: list[RecordRequest] = []

    def pretend(request: RecordRequest, **_callbacks: object) -> Recorded:
        requests.append(request)
        status = 7 if request.command else None
        return Recorded(tmp_path / "a.ksm", "duration", 13, lost=5, scans=3,
                        command_status=status)  # fmt: skip

    monkeypatch.setattr(record, "record", pretend)
    monkeypatch.setattr("ksmtrace.kernel.sysfs.read_knob", lambda _name: "1")
    return requests


def test_options_become_a_request(requests: list[RecordRequest]) -> None:
    me = str(os.getpid())
    assert ends(
        "-o", "a.ksm", "--duration", "1.5", "--scans", "3", "--pid", me, "--interval", "0.25",
        "--ring", "16", "--run", "--set", "pages_to_scan=5003", "--set", "smart_scan=0",
        "--raw-pointers", "--", "true", "--flag", "-o", "x",
    ) == 0  # fmt: skip
    (request,) = requests
    assert request.target.path.name == "a.ksm"
    assert (request.options.duration, request.options.scans) == (1.5, 3)
    assert request.options.pids == frozenset({int(me)})
    assert request.options.interval == 0.25
    assert request.ring_bytes == 16 << 20
    assert request.knobs == {"pages_to_scan": "5003", "smart_scan": "0", "run": "1"}
    assert list(request.command) == ["true", "--flag", "-o", "x"]
    assert (request.raw_pointers, request.cmdlines, request.merge) == (True, False, False)


def test_nothing_is_changed_or_filtered_unless_asked_for(requests: list[RecordRequest]) -> None:
    assert ends() == 0
    (request,) = requests
    assert request.knobs == {}
    assert request.options.pids is None
    assert (request.options.duration, request.options.scans) == (None, None)
    assert request.ring_bytes == 64 << 20
    assert (request.raw_pointers, request.cmdlines) == (False, False)
    assert request.watch is None
    assert request.target.path.name.startswith("ksm-")
    assert request.target.path.suffix == ".ksm"


def test_breaks_are_watched_on_demand_and_told(
    requests: list[RecordRequest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source: Any = Fake()
    given: list[CowWatch] = []

    def choose_and_see(_name: str, watch: CowWatch) -> Choice:
        watch.breaks, watch.unchecked = 1013, 7
        watch.obstacles.append("ranges are not seen")
        given.append(watch)
        return Choice((source,), asked_for=True)

    monkeypatch.setattr(choose, "choose_source", choose_and_see)
    assert ends("-o", "a.ksm", "--cow") == 0
    (request,) = requests
    assert request.watch is given[0]
    told = capsys.readouterr().err
    assert "1,013 writes to merged pages were seen" in told
    assert "of 7 of them" in told
    assert "ranges are not seen" in told


@pytest.mark.usefixtures("requests")
def test_losses_are_told_and_are_an_error_only_under_strict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ends("-o", "a.ksm") == 0
    assert "5 events were lost" in capsys.readouterr().err
    assert ends("-o", "a.ksm", "--strict") == 5


@pytest.mark.usefixtures("requests")
def test_a_commands_status_is_told_and_ours_stays_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("-o", "a.ksm", "--", "true") == 0
    told = capsys.readouterr()
    assert "true ended with status 7" in told.err
    assert told.out == ""


@pytest.mark.usefixtures("requests")
def test_a_switched_off_ksmd_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ksmtrace.kernel.sysfs.read_knob", lambda _name: "0")
    assert ends("-o", "a.ksm") == 0
    assert "ksmd is off" in capsys.readouterr().err
    assert ends("-o", "a.ksm", "--run") == 0
    assert "ksmd is off" not in capsys.readouterr().err
