from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.cli.main import main
from ksmtrace.errors import Exit
from tests.support.recordings import make_recording

ROOT = Path(__file__).parents[2]
ANALYSIS = ROOT / "recordings" / "analysis.ksm"
KSMTRACE = Path(sys.executable).parent / "ksmtrace"
_ENTERED, _LEFT, _CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class OnTerminal:
    """`ksmtrace top` on a terminal of its own."""

    def __init__(self, *arguments: object, size: tuple[int, int] = (24, 80)) -> None:
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.shown = b""
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [str(KSMTRACE), "top", *map(str, arguments)],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 it does no more
            env={**environment, "TERM": "xterm-256color"},
        )  # fmt: skip

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            self.shown += os.read(self.master, 1 << 16)

    def until(self, text: str, seconds: float = 20) -> None:
        """Wait until it shows a text from here on."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.shown:
            assert time.monotonic() < deadline, (text, self.shown[-3000:].decode(errors="replace"))
            self.read(0.1)

    def press(self, keys: bytes) -> None:
        """Press keys; what was shown before is forgotten."""
        self.shown = b""
        os.write(self.master, keys)

    def end(self) -> int:
        """Wait for its end; its exit code."""
        deadline = time.monotonic() + 20
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.shown[-3000:]
            self.read(0.05)
        self.read(0.05)
        return self.process.returncode

    def is_restored(self) -> bool:
        """Whether the terminal is as it was: its modes, the screen, the cursor."""
        last = self.shown.rfind(_LEFT)
        back = last >= 0 and self.shown.rfind(_CURSOR) >= 0
        return back and termios.tcgetattr(self.slave) == self.before


@pytest.fixture
def terminal() -> Iterator[Callable[..., OnTerminal]]:
    """Run it on terminals; whatever is left is killed."""
    started: list[OnTerminal] = []

    def start(*arguments: object, **options: Any) -> OnTerminal:
        started.append(OnTerminal(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        os.close(one.master)
        os.close(one.slave)


def test_keys_work_on_a_real_terminal_and_q_leaves_it_as_it_was(
    terminal: Callable[..., OnTerminal],
) -> None:
    one = terminal(ANALYSIS, "--at", "20")
    one.until("playing")
    assert _ENTERED in one.shown
    for key, shown in (
        (b" ", "paused"), (b"s", "▼merged"), (b"g", "procs  cgroup"), (b"r", "▲"),
        (b"?", "sort by the next column"), (b"?", "procs  cgroup"), (b".", "scan"),
        (b"0", " 0.0 ms of 44.04 s"), (b"\x1b[C\x1b[C", "10.00 s of 44.04 s"), (b"$", "at the end"),
    ):  # fmt: skip
        one.press(key)
        one.until(shown)
    one.press(b"q")
    assert one.end() == Exit.OK
    assert one.is_restored()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_success_and_the_terminal_as_it_was(
    terminal: Callable[..., OnTerminal], number: int
) -> None:
    one = terminal(ANALYSIS)
    one.until("playing")
    one.process.send_signal(number)
    assert one.end() == Exit.OK
    assert one.is_restored()
    assert b"Traceback" not in one.shown


def test_what_would_print_once_and_is_interrupted_has_not_succeeded() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ksmtrace.cli.main", "top", "--json", "--no-capture",
         "--interval", "60"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) in ((Exit.INTERRUPTED, b""), (Exit.HOST_CANNOT, b""))


def test_ctrl_c_on_the_keyboard_ends_it_with_success(terminal: Callable[..., OnTerminal]) -> None:
    one = terminal(ANALYSIS)
    one.until("playing")
    one.press(b"\x03")
    assert one.end() == Exit.OK
    assert one.is_restored()


def test_a_damaged_recording_is_a_sentence_on_a_terminal_as_it_was(
    terminal: Callable[..., OnTerminal], tmp_path: Path
) -> None:
    shutil.copytree(ANALYSIS, tmp_path / "a.ksm")
    (tmp_path / "a.ksm" / "events.parquet").write_bytes(b"PAR1 no more")
    one = terminal(tmp_path / "a.ksm")
    assert one.end() == Exit.BAD_RECORDING
    assert one.is_restored()
    after = one.shown[one.shown.rfind(_LEFT) :]
    assert b"ksmtrace: " in after
    assert b"is damaged" in after
    assert b"Traceback" not in after


def test_a_terminal_made_smaller_is_told_so_until_it_is_enlarged(
    terminal: Callable[..., OnTerminal],
) -> None:
    one = terminal(ANALYSIS, size=(30, 100))
    one.until("playing")
    one.shown = b""
    one.resize(10, 40)
    one.until("ksmtrace top needs")
    one.shown = b""
    one.resize(24, 80)
    one.until("playing")
    one.press(b"q")
    assert one.end() == Exit.OK


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(KSMTRACE), "top", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_where_the_output_is_no_terminal_it_prints_once_and_says_so() -> None:
    done = run(ANALYSIS)
    assert done.returncode == Exit.OK
    assert done.stderr == "ksmtrace: the output is no terminal, so this is printed once\n"
    assert "44.04 s of 44.04 s" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    asked = run(ANALYSIS, "--once")
    assert (asked.stdout, asked.stderr) == (done.stdout, "")


def test_json_is_one_snapshot_at_the_moment_asked_for() -> None:
    told = json.loads(run(ANALYSIS, "--json", "--at", "20", "--by", "cgroup").stdout)
    assert told["at_s"] == 20
    assert told["figures"]["saved_bytes"] == (560 + 53) * 4096
    assert {line["cgroup"] for line in told["cgroup"]} == {"/shop", "/reports"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--speed", "4"], "--speed is about a recording"),
        (["--at", "4"], "--at is about a recording"),
        ([ANALYSIS, "--cow"], "--cow is about a live host"),
        ([ANALYSIS, "--interval", "3"], "--interval is about a live host"),
        (["--no-capture", "--cow"], "--cow and --no-capture contradict"),
    ],
)
def test_what_contradicts_is_told(
    arguments: list[object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", *map(str, arguments)]) == Exit.USAGE
    assert words in capsys.readouterr().err


def test_no_recording_and_one_of_uksm_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", str(tmp_path / "no.ksm"), "--once"]) == Exit.BAD_RECORDING
    assert "there is no" in capsys.readouterr().err
    path = make_recording(tmp_path / "a.ksm", facts={"system": "uksm"})
    assert main(["top", str(path), "--once"]) == Exit.BAD_RECORDING
    assert "UKSM" in capsys.readouterr().err


def test_nothing_heavy_is_imported_before_the_first_screen() -> None:
    code = (
        "import sys, time\n"
        "from ksmtrace.top.live import LiveSource, Wanted\n"
        "from ksmtrace.top.ui import Ui\n"
        "from ksmtrace.views.top import render_top\n"
        "import ksmtrace.cli.watching, ksmtrace.terminal\n"
        "state = LiveSource(Wanted()).state(time.monotonic_ns())\n"
        "render_top(state, Ui(), 80, 24)\n"
        "print(*{'numpy', 'pandas', 'pyarrow', 'numba', 'scipy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(
    terminal: Callable[..., OnTerminal],
) -> None:
    one = terminal(ANALYSIS)
    one.until("playing")
    one.press(b"\x1a")
    deadline = time.monotonic() + 20
    state = Path(f"/proc/{one.process.pid}/stat")
    while state.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        one.read(0.05)
    one.read(0.05)
    assert one.is_restored()
    one.shown = b""
    one.process.send_signal(signal.SIGCONT)
    one.until("playing")
    assert _ENTERED in one.shown
    one.press(b"q")
    assert one.end() == Exit.OK
    assert one.is_restored()


@pytest.mark.parametrize("speed", ["x", "0", "-1", "nan", "1e99"])
def test_a_speed_that_is_none_is_told_with_what_to_write(
    capsys: pytest.CaptureFixture[str], speed: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", str(ANALYSIS), f"--speed={speed}"])
    assert ended.value.code == Exit.USAGE
    assert "is not a positive number: write 4 or 0.5" in capsys.readouterr().err
