"""A guest as a place to trace and to perform scenarios: another kernel, booted here.

What `lab.on_kernel.Host` is for this machine's kernel, `Guest` is for another: the scenario is
performed in the guest, what was observed is compared out here.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.releases import Profile, profile
from ksmtrace.kernel.signals import signals_interrupt
from ksmtrace.lab.needs import NEEDS
from ksmtrace.lab.performance import Performance, Watch
from ksmtrace.lab.plan import Plan
from ksmtrace.vm.channel import Channel, ChannelClosed
from ksmtrace.vm.initramfs import write_initramfs
from ksmtrace.vm.packages import KernelPackage, kernel_package
from ksmtrace.vm.qemu import LAB_MACHINE, Machine, Qemu

_PATIENCE = 300.0
_PREFIX, _LOCK = "ksmtrace-vm-", "lock"


class Guest:
    """A booted guest. Use `booted` to get one. has: what it has that not every machine has."""

    def __init__(self, kernel: KernelPackage, qemu: Qemu, end: socket.socket) -> None:
        self.kernel = kernel
        self.profile: Profile = profile(kernel.version)
        self.backend = ""
        self.why = ""
        self._qemu = qemu
        end.settimeout(_PATIENCE)
        self._channel = Channel(end.recv, end.sendall)
        self._answer("did not boot")
        there = self.ask("needs")
        self.has = tuple(need for need in NEEDS if need.name in there)

    def obstacles(self) -> dict[str, list[str]]:
        """What keeps each capture backend from working there, in words; best backend first."""
        found: dict[str, list[str]] = self.ask("obstacles")
        return found

    def stage(self, backend: str = "auto") -> None:
        """Make its ksmd ready for scenarios, with this capture backend. Raises KsmtraceError."""
        try:
            self.backend, self.why, _ = self.ask("stage", backend)
        except KsmtraceError as error:
            told = error.message.replace("this host", f"Linux {self.kernel.version} in the guest")
            raise KsmtraceError(told, error.hint, error.exit_code) from None

    def unstage(self) -> None:
        """Let go of its ksmd, so that other commands can have it."""
        self.ask("unstage")

    def perform(
        self, plan: Plan, *, watch: Watch = lambda _seen: None, record_as: str | None = None
    ) -> Performance:
        """Perform a scenario in the guest; nothing of it is left there afterwards.

        record_as: a folder in the guest to keep it in. Raises KsmtraceError.
        """
        observations = []

        def seen(observation: Any) -> None:
            observations.append(observation)
            watch(observation)

        performance: Performance = self.ask("perform", plan, record_as, seen=seen)
        performance.observations = observations
        return performance

    def run(self, *arguments: str, seconds: float = 120) -> tuple[int, str, str]:
        """Run `ksmtrace ARGUMENTS` there; its exit code, output and words."""
        done: tuple[int, str, str] = self.ask("run", list(arguments), seconds)
        return done

    def python(self, program: str, seconds: float = 120) -> tuple[int, str, str]:
        """Run a Python program there; its exit code, output and words."""
        done: tuple[int, str, str] = self.ask("python", program, seconds)
        return done

    def fetch(self, folder: str, target: Path) -> None:
        """Copy the files of a folder out of the guest, into a folder here."""
        files: dict[str, bytes] = self.ask("folder", folder)
        for name, content in files.items():
            (target / name).write_bytes(content)

    def ask(self, word: str, *arguments: Any, seen: Watch = lambda _seen: None) -> Any:
        """Ask the agent. Raises KsmtraceError as it was raised there, or if the guest is gone."""
        try:
            self._channel.send((word, arguments))
        except OSError:
            raise self._qemu.lost("was lost") from None
        return self._answer("was lost", seen)

    def _answer(self, otherwise: str, seen: Watch = lambda _seen: None) -> Any:
        while True:
            try:
                word, value = self._channel.receive()
            except (ChannelClosed, OSError):
                raise self._qemu.lost(otherwise) from None
            if word == "seen":
                seen(value)
            elif word == "failed":
                message, hint, code = value
                raise KsmtraceError(message, hint, Exit(code))
            else:
                return value

    def end(self) -> None:
        """Switch it off. Raises KsmtraceError if it ended badly."""
        self.ask("end")
        self._qemu.wait()


@contextmanager
def booted(
    series: str,
    machine: Machine = LAB_MACHINE,
    *,
    bcc: bool = False,
    found: Callable[[KernelPackage], None] = lambda _kernel: None,
) -> Iterator[Guest]:
    """A guest with the distribution's kernel of a series; it is switched off afterwards.

    bcc: with what the bcc backend needs. found: called with the kernel before it is booted. Raises
    KsmtraceError.
    """
    with signals_interrupt(), _workplace() as folder:
        kernel = kernel_package(series)
        found(kernel)
        initramfs = folder / "initramfs.cpio"
        try:
            write_initramfs(initramfs, bcc=bcc)
        except OSError as error:
            raise KsmtraceError(
                f"a guest's files can't be written to {folder.parent}: {error.strerror}",
                "free 1 GB there, or set TMPDIR",
                Exit.HOST_CANNOT,
            ) from None
        with Qemu(machine, kernel.image, initramfs, folder) as qemu, qemu.connect() as end:
            guest = Guest(kernel, qemu, end)
            # QEMU has read it.
            initramfs.unlink()
            yield guest
            guest.end()


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder for a guest's files, gone afterwards. Those of killed runs are removed, too."""
    base = Path(tempfile.gettempdir())
    for left in base.glob(f"{_PREFIX}*"):
        with suppress(OSError), (left / _LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
