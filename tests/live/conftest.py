"""The live ring: real processes, the real ksmd, the real commands."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.capture.choose import load_source
from ksmtrace.kernel.knobs import recover
from ksmtrace.kernel.stepper import Stepper, parked
from ksmtrace.kernel.sysfs import KSM, HostSampler
from ksmtrace.processes.registered import registered_tgids

KSMTRACE = Path(sys.executable).parent / "ksmtrace"
_LOCK = Path("/run/ksmtrace-tests.lock")


def host_obstacle() -> str | None:
    """Why live tests can't run here, in the doctor's words, or None."""
    obstacles = load_source("core").check()
    if obstacles:
        return "; ".join(map(str, obstacles))
    if not os.access(KSM / "run", os.W_OK):
        return "KSM's knobs can't be written: run as root"
    strangers = registered_tgids()
    if strangers:
        return f"other processes are registered with KSM: {strangers[:5]}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    obstacle = host_obstacle() if mine else None
    for item in mine:
        item.add_marker(pytest.mark.live)
        if obstacle:
            item.add_marker(pytest.mark.skip(reason=f"this host can't: {obstacle}"))


@pytest.fixture(scope="session", autouse=True)
def one_at_a_time() -> Iterator[None]:
    """KSM's state is one per machine: only one test run may touch it, and it is put back."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        recover()
        sampler = HostSampler()
        before = sampler.knobs()
        yield
        after = sampler.knobs()
        sampler.close()
        assert after == before, "a test left a knob changed"


@pytest.fixture
def ksmd() -> Iterator[Stepper]:
    """ksmd parked, nothing merged, defaults that tests count on."""
    with parked({"smart_scan": "0", "use_zero_pages": "0"}) as stepper:
        yield stepper


@pytest.fixture
def counters() -> Iterator[Callable[[], dict[str, int]]]:
    """Read sysfs now."""
    sampler = HostSampler()
    yield sampler.counters
    sampler.close()


_ACTOR = """
import ctypes, os, signal, sys
from ksmtrace.lab.workload import PAGE, mergeable_memory, page_of
contents = [int(word) for word in sys.stdin.readline().split()]
memory = mergeable_memory(len(contents))
memory[:] = b"".join(bytes(PAGE) if c == 0 else page_of(c) for c in contents)
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "write":
        for number in rest[1:]:
            memory[int(number) * PAGE : (int(number) + 1) * PAGE] = page_of(int(rest[0]))
    elif word == "fork":
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(1, 9)
            signal.pause()
    elif word == "name":
        ctypes.CDLL(None).prctl(15, bytes.fromhex(rest[0]), 0, 0, 0)
    print("done", flush=True)
"""


class Actor:
    """A process with one mergeable range of pages of known contents (0: a zero page)."""

    def __init__(self, contents: list[int]) -> None:
        self.contents = contents
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ACTOR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, contents)) + "\n")
        self.process.stdin.flush()
        self.start = int(self.process.stdout.readline())
        self.pid = self.process.pid

    def address(self, number: int) -> int:
        """Where page `number` is."""
        return self.start + number * 4096

    def do(self, *words: object) -> None:
        """Let it write (content, page numbers...) or rename itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        """Let it exit."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)


@pytest.fixture
def actor() -> Iterator[Callable[[list[int]], Actor]]:
    """Start actors; they end with the test."""
    started: list[Actor] = []

    def start(contents: list[int]) -> Actor:
        started.append(Actor(contents))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end()


class Recorder:
    """A running `ksmtrace record`."""

    def __init__(self, target: Path, *options: str, wait: bool = True) -> None:
        self.target = target
        self.words_file = target.with_suffix(".words")
        self.words_file.touch()
        with self.words_file.open("w") as words:
            self.process = subprocess.Popen(
                [str(KSMTRACE), "record", "-o", str(target), *options], stderr=words
            )
        if wait:
            self.wait_for("recording to")

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Wait until it has said `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.words():
            assert self.process.poll() is None, self.words()
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.01)

    def words(self) -> str:
        """What it has said so far."""
        return self.words_file.read_text()

    def end(self, number: int = signal.SIGINT) -> int:
        """End it by a signal; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    """Start recorders; whatever is left is killed."""
    started: list[Recorder] = []

    def start(*options: str, name: str = "a.ksm", wait: bool = True) -> Recorder:
        started.append(Recorder(tmp_path / name, *options, wait=wait))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
    recover()


def run_ksmtrace(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a ksmtrace command to its end."""
    return subprocess.run(
        [str(KSMTRACE), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip


def pytest_unconfigure() -> None:
    """If live tests could not run, that is the run's last word."""
    obstacle = host_obstacle()
    if obstacle:
        print(f"live tests were skipped: {obstacle}")
