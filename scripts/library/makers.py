"""The ways a recording of the library is made. Each tells itself in words, for the README."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.sysfs import ksmd_pid
from ksmtrace.processes.registered import registered_tgids

LIBRARY = Path(__file__).parent
ROOT = LIBRARY.parents[1]
KSMTRACE = Path(sys.executable).with_name("ksmtrace")
_CGROUPS = Path("/sys/fs/cgroup")


class Maker(Protocol):
    """A way to make a recording. here: of this host's own ksmd."""

    here: ClassVar[bool]

    @property
    def words(self) -> str:
        """How it is made, as Markdown."""
        ...

    def make(self, target: Path) -> None:
        """Make it. Raises KsmtraceError."""
        ...


@dataclass(frozen=True)
class Lab:
    """A scenario on this host's ksmd, stepped scan by scan, and on the model beside it."""

    here: ClassVar[bool] = True
    scenario: str

    @property
    def path(self) -> Path:
        """The scenario's file."""
        return LIBRARY / "scenarios" / f"{self.scenario}.toml"

    @property
    def words(self) -> str:
        """See Maker."""
        return f"`ksmtrace lab run {self.path.relative_to(ROOT)} --record`"

    def make(self, target: Path) -> None:
        """See Maker."""
        with _cgroup("lab"):
            _ksmtrace("lab", "run", str(self.path), "--record", str(target))


@dataclass(frozen=True)
class InGuest:
    """A scenario on another kernel's ksmd, in a virtual machine. series: as 6.12."""

    here: ClassVar[bool] = False
    series: str
    scenario: str

    @property
    def words(self) -> str:
        """See Maker."""
        path = Lab(self.scenario).path.relative_to(ROOT)
        return f"`{path}` in a guest with the distribution's kernel {self.series}"

    def make(self, target: Path) -> None:
        """See Maker."""
        from ksmtrace.lab.run import load_plan
        from ksmtrace.recording.target import Target
        from ksmtrace.vm.guest import booted
        from ksmtrace.vm.record import perform_and_record

        plan = load_plan(str(Lab(self.scenario).path), {})
        with booted(self.series) as guest:
            guest.stage()
            perform_and_record(guest, plan, Target(target))


@dataclass(frozen=True)
class Live:
    """`ksmtrace record OPTIONS -- COMMAND`: ksmd at its own pace. command: a program and its words.

    A program without a slash is one of `programs`, run by the system's Python or by sh. A file
    that writes to merged pages is named in the recording: that Python is the one on any host.
    ksmd_nice: of ksmd meanwhile, where it matters that it gets the CPU it asks for.
    """

    here: ClassVar[bool] = True
    options: tuple[str, ...]
    command: tuple[str, ...]
    ksmd_nice: int | None = None

    @property
    def words(self) -> str:
        """See Maker."""
        told = " ".join([*self.options, "--", *self._told()])
        nice = "" if self.ksmd_nice is None else f", ksmd at nice {self.ksmd_nice}"
        return f"`ksmtrace record {told}`{nice}"

    def make(self, target: Path) -> None:
        """See Maker."""
        with _cgroup("lab"), _ksmd_at(self.ksmd_nice):
            _ksmtrace("record", "-o", str(target), *self.options, "--", *self._command())
            _wait_until_all_have_ended()

    def _command(self) -> list[str]:
        program, *rest = self.command
        if "/" in program:
            return [program, *rest]
        by = "/usr/bin/python3" if program.endswith(".py") else "/bin/sh"
        return [by, str(LIBRARY / "programs" / program), *rest]

    def _told(self) -> list[str]:
        return [
            str(Path(word).relative_to(ROOT)) if word.startswith(str(LIBRARY)) else
            "python" if word == sys.executable else word
            for word in self._command()
        ]  # fmt: skip


@dataclass(frozen=True)
class Script:
    """A script of its own, which takes the path of the recording to make."""

    here: ClassVar[bool] = True
    script: str

    @property
    def words(self) -> str:
        """See Maker."""
        return f"`{self.script}`"

    def make(self, target: Path) -> None:
        """See Maker."""
        _run(["/usr/bin/python3", str(ROOT / self.script), str(target)])


@dataclass(frozen=True)
class TwoGuests:
    """Two virtual machines on this host, whose memory QEMU registers with KSM by itself."""

    here: ClassVar[bool] = True
    series: str
    names: tuple[str, str]
    options: tuple[str, ...]
    seconds: float

    @property
    def words(self) -> str:
        """See Maker."""
        told = " ".join(self.options)
        return (
            f"`ksmtrace record {told}` while two QEMU guests with the distribution's kernel"
            f" {self.series} boot, one after the other"
        )

    def make(self, target: Path) -> None:
        """See Maker."""
        from library.guests import running

        with ExitStack() as stack:
            stack.enter_context(_cgroup("lab"))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ksmtrace-guests-"))
            first, second = (
                stack.enter_context(running(self.series, Path(folder) / name))
                for name in self.names
            )
            # Only now, and ended before anything else: it holds the knobs.
            recorder = stack.enter_context(_recording(target, *self.options))
            first.boot()
            time.sleep(self.seconds / 4)
            second.boot()
            time.sleep(self.seconds)
            recorder.terminate()
            if recorder.wait(60):
                raise KsmtraceError("ksmtrace record failed; what it said is above")


def recorded_facts(path: Path) -> dict[str, object]:
    """A recording's manifest, with its size on disk in bytes as `size`."""
    manifest: dict[str, object] = json.loads((path / "manifest.json").read_text())
    manifest["size"] = sum(file.stat().st_size for file in path.iterdir())
    return manifest


def _ksmtrace(*arguments: str) -> None:
    _run([str(KSMTRACE), *arguments])


def _run(command: list[str]) -> None:
    # What it prints is for whoever waits; data of another command is none of ours.
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise KsmtraceError(f"{' '.join(command)} ended with status {done.returncode}")


def _wait_until_all_have_ended() -> None:
    """A command may outlive its recording, which --duration ends; its processes end soon after."""
    deadline = time.monotonic() + 30
    while registered := registered_tgids():
        if time.monotonic() > deadline:
            raise KsmtraceError(f"processes of the recording still run: {registered[:5]}")
        time.sleep(0.1)


@contextmanager
def _recording(target: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A recorder that has begun to record; it ends with the block, if it has not before."""
    recorder = subprocess.Popen([str(KSMTRACE), "record", "-o", str(target), *options])
    try:
        deadline = time.monotonic() + 30
        while not any(target.parent.glob(f"*{target.name}*")):
            if recorder.poll() is not None or time.monotonic() > deadline:
                raise KsmtraceError("ksmtrace record did not start; what it said is above")
            time.sleep(0.01)
        yield recorder
    finally:
        if recorder.poll() is None:
            recorder.terminate()
            recorder.wait(60)


@contextmanager
def _ksmd_at(nice: int | None) -> Iterator[None]:
    """Let ksmd run at another priority. None: at its own."""
    ksmd = ksmd_pid()
    if nice is None or ksmd is None:
        yield
        return
    before = os.getpriority(os.PRIO_PROCESS, ksmd)
    os.setpriority(os.PRIO_PROCESS, ksmd, nice)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, ksmd, before)


@contextmanager
def _cgroup(name: str) -> Iterator[None]:
    """Run what is started inside in a cgroup of this name: a recording holds its path."""
    unified = _CGROUPS / "unified"  # beside version 1
    top = unified if unified.is_dir() else _CGROUPS
    place = top / name
    before = next(
        line.removeprefix("0::").lstrip("/")
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    place.mkdir(exist_ok=True)
    (place / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (top / before / "cgroup.procs").write_text(str(os.getpid()))
        with suppress(OSError):
            place.rmdir()
