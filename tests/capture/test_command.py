from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import pytest

from ksmtrace.capture import command
from ksmtrace.capture.command import Command, merge_warning
from ksmtrace.errors import Exit, KsmtraceError


def ended(running: Command) -> int | None:
    assert select.select([running.fileno()], [], [], 13)[0]
    return running.end()


@pytest.mark.parametrize("status", [0, 7])
def test_a_commands_status_is_told(status: int) -> None:
    assert ended(Command([sys.executable, "-c", f"raise SystemExit({status})"])) == status


def test_a_commands_signal_is_told_as_a_shell_does() -> None:
    running = Command([sys.executable, "-c", "import time; time.sleep(61)"])
    os.kill(running.pid, signal.SIGTERM)
    assert ended(running) == 128 + 15


def test_a_command_that_outlives_the_recording_is_left_alone() -> None:
    running = Command([sys.executable, "-c", "import time; time.sleep(61)"])
    assert running.end() is None
    os.kill(running.pid, 0)
    running._process.kill()
    running._process.wait()


def test_a_command_that_does_not_exist_is_told_in_words() -> None:
    with pytest.raises(KsmtraceError, match="there is no command"):
        Command(["no-such-command-anywhere"])


def test_a_file_that_is_no_program_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no program")
    with pytest.raises(KsmtraceError, match="may not be run"):
        Command([str(tmp_path / "notes.txt")])


def test_a_kernel_without_merge_any_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "kernel_release", lambda: "6.1.192")
    with pytest.raises(KsmtraceError, match=r"6\.4") as raised:
        merge_warning()
    assert raised.value.exit_code == Exit.HOST_CANNOT


@pytest.mark.parametrize(("release", "warned"), [("6.6.3", True), ("6.8.1", True), ("6.18", False)])
def test_a_kernel_that_forgets_merge_any_warns(
    monkeypatch: pytest.MonkeyPatch, release: str, warned: bool
) -> None:
    monkeypatch.setattr(command, "kernel_release", lambda: release)
    assert (merge_warning() is not None) is warned
