from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, NoReturn

import pytest

from ksmtrace.capture import choose, record
from ksmtrace.capture.choose import Choice
from ksmtrace.cli.main import main
from ksmtrace.errors import KsmtraceError, Obstacle, host_cannot
from ksmtrace.inspect.stat import experiment
from ksmtrace.inspect.stat.figures import STAT_MEASURES
from ksmtrace.inspect.stat.request import AB, StatRequest
from ksmtrace.inspect.stat.result import Run, StatResult
from ksmtrace.inspect.stat.watch import Until
from ksmtrace.kernel import host, sysfs
from ksmtrace.processes.identity import identify
from ksmtrace.timeline.host_figures import Missing


class Fake:
    """A source that works."""

    name = "fake"
    summary = "a source of these tests"
    fields_unknown = ()


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test gives, no kernel is touched."""

    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        pytest.fail("this would have begun to measure")

    source: Any = Fake()
    monkeypatch.setattr(choose, "choose_source", lambda _name: Choice((source,), asked_for=True))
    monkeypatch.setattr(experiment, "measure", refuse)
    monkeypatch.setattr(record, "tidy_up", lambda: None)
    monkeypatch.setattr(host, "ksm_obstacles", list)
    monkeypatch.setattr(sysfs, "read_knob", lambda _name: "1")


def ends(*arguments: str) -> int:
    try:
        return main(["stat", *arguments])
    except SystemExit as end:
        return int(end.code or 0)


BAD = [
    (["--ab", "smart_scan"], 2, "KNOB=VALUE"),
    (["--ab", "smart_scan=1"], 2, "KNOB=V1,V2"),
    (["--ab", "smart_scan=,1"], 2, "KNOB=V1,V2"),
    (["--ab", "smart_scan=0,1,2", "--", "true"], 2, "KNOB=V1,V2"),
    (["--ab", "smart_scan=1,1", "--", "true"], 2, "compare a setting with itself"),
    (["--ab", "mood=1,2", "--", "true"], 2, "mood"),
    (["--ab", "smart_scan=0,1"], 2, "--unmerge"),
    (["--ab", "smart_scan=0,1", "-p", "1"], 2, "--unmerge"),
    (["--ab", "smart_scan=0,1", "-p", "1", "--unmerge"], 2, "--duration"),
    (["--repeat", "3"], 2, "--unmerge"),
    (["--repeat", "0", "--", "true"], 2, "positive"),
    (["--repeat", "many", "--", "true"], 2, "--repeat"),
    (["--set", "smart_scan=1", "--ab", "smart_scan=0,1", "--", "true"], 2, "leave one out"),
    (["--run", "--ab", "run=0,1", "--", "true"], 2, "leave one out"),
    (["--metric", "ksmd_cpu_s", "--", "true"], 2, "--ab"),
    (["--metric", "mood", "--ab", "smart_scan=0,1", "--", "true"], 2, "time_to_90_percent_s"),
    (["-p", "1", "--", "true"], 2, "exclude"),
    (["-p", "0"], 2, "positive"),
    (["--merge"], 2, "--merge needs a command"),
    (["--set", "run=0", "--run", "--", "true"], 2, "contradict"),
    (["stray"], 2, "stray"),
    (["--interval", "0"], 2, "positive"),
    (["--duration", "nan"], 2, "positive"),
    (["--until-converged", "0"], 2, "positive"),
    (["--wait-scans", "-1"], 2, "positive"),
    (["--", "no-such-command-anywhere"], 1, "no-such-command-anywhere"),
]


@pytest.mark.parametrize(("arguments", "status", "words"), BAD, ids=[" ".join(a) for a, *_ in BAD])
def test_what_makes_no_sense_is_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    assert ends(*arguments) == status
    told = capsys.readouterr()
    assert words in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_a_host_without_ksm_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lack = [Obstacle("this kernel has no KSM", "boot another one")]
    monkeypatch.setattr(host, "ksm_obstacles", lambda: lack)
    assert ends("--duration", "1") == 3
    assert "boot another one" in capsys.readouterr().err


@pytest.fixture(name="requests")
def take_requests(monkeypatch: pytest.MonkeyPatch) -> list[StatRequest]:
    """What would have been measured."""
    requests: list[StatRequest] = []

    def pretend(request: StatRequest, **_callbacks: object) -> StatResult:
        requests.append(request)
        values = {measure.name: Missing("nothing was measured") for measure in STAT_MEASURES}
        run = Run(None, "command", 7, values, 3, 0.1, 0.01)
        return StatResult("true", "6.18", None, request.repeats, (run,), request.knobs)

    monkeypatch.setattr(experiment, "measure", pretend)
    return requests


def test_options_become_a_request(requests: list[StatRequest]) -> None:
    assert ends(
        "--run", "--set", "pages_to_scan=5003", "--merge", "--repeat", "7", "--ab",
        "smart_scan=0,1", "--metric", "ksmd_cpu_s", "--duration", "1.5", "--until-converged", "4",
        "--interval", "0.25", "--wait-scans", "3", "--unmerge", "--", "true", "--json",
    ) == 0  # fmt: skip
    (request,) = requests
    assert request.command == ["true", "--json"]
    assert request.knobs == {"run": "1", "pages_to_scan": "5003"}
    assert request.ab == AB("smart_scan", "0", "1")
    assert request.until == Until(1.5, 4)
    assert (request.repeats, request.metric, request.interval) == (7, "ksmd_cpu_s", 0.25)
    assert (request.wait_scans, request.unmerge, request.merge) == (3, True, True)
    assert request.stdout is None


def test_nothing_is_changed_or_unmerged_unless_asked_for(requests: list[StatRequest]) -> None:
    assert ends() == 0
    (request,) = requests
    assert request == StatRequest(command=[], choice=request.choice, blind="")


def test_two_settings_are_repeated_often_enough_to_decide(requests: list[StatRequest]) -> None:
    assert ends("--ab", "smart_scan=0,1", "--", "true") == 0
    assert requests[0].repeats == 6


def test_the_commands_output_does_not_mix_with_json(
    requests: list[StatRequest], capfd: pytest.CaptureFixture[str]
) -> None:
    assert ends("--json", "--", "true") == 0
    assert requests[0].stdout == sys.stderr.fileno()
    told = json.loads(capfd.readouterr().out)
    assert set(told["runs"][0]["figures"]) == {measure.name for measure in STAT_MEASURES}
    assert told["runs"][0]["figures"]["merges"] is None
    assert told["runs"][0]["command_status"] == 7


def test_no_backend_is_no_error_unless_one_was_named(
    requests: list[StatRequest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def incapable(_name: str) -> NoReturn:
        raise host_cannot([Obstacle("missing CAP_BPF", "run with sudo")], "trace KSM")

    monkeypatch.setattr(choose, "choose_source", incapable)
    assert ends("--duration", "1") == 0
    assert requests[0].choice is None
    assert "CAP_BPF" in capsys.readouterr().err
    assert ends("--backend", "core", "--duration", "1") == 3


def test_an_unknown_backend_is_told_with_all_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    assert ends("--backend", "foo", "--duration", "1") == 2
    told = capsys.readouterr().err
    for name in ("auto", "core", "tracefs", "none"):
        assert name in told.split("the backends are")[1]


def test_without_a_backend_nothing_is_chosen(requests: list[StatRequest]) -> None:
    assert ends("--backend", "none", "--duration", "1") == 0
    assert requests[0].choice is None


@pytest.mark.usefixtures("requests")
def test_a_switched_off_ksmd_is_told_unless_run_is_what_is_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sysfs, "read_knob", lambda _name: "0")
    assert ends("--", "true") == 0
    assert "ksmd is off" in capsys.readouterr().err
    assert ends("--ab", "run=0,1", "--", "true") == 0
    assert "ksmd is off" not in capsys.readouterr().err


def test_a_zombie_a_kernel_thread_a_thread_and_nobody_are_told_apart() -> None:
    from ksmtrace.inspect.stat.subject import attached

    def refused(pid: int) -> str:
        with pytest.raises(KsmtraceError) as caught, attached(pid):
            pass
        return caught.value.message

    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert "is a zombie" in refused(child.pid)
    child.wait()
    assert "no process" in refused(child.pid)
    here = identify(2)
    if here is not None and here.comm == "kthreadd":
        assert "is a kernel thread" in refused(2)


def test_a_process_is_held_fast() -> None:
    from ksmtrace.inspect.stat.subject import attached

    with attached(os.getpid()) as (fd, who):
        assert fd > 0
        assert who.tgid == os.getpid()
