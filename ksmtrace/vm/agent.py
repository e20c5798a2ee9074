"""What runs in a guest, as its first process: makes it a system, then does what it is asked.

Requests come over the second serial port as (word, arguments); each is answered by any number of
("seen", value) and then ("done", value) or ("failed", error). The console is the first port.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
import sys
import termios
import traceback
import tty
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtrace.errors import KsmtraceError
from ksmtrace.vm.channel import Channel, ChannelClosed

if TYPE_CHECKING:
    from ksmtrace.lab.on_kernel import Host
    from ksmtrace.lab.performance import Performance
    from ksmtrace.lab.plan import Plan

PORT = "/dev/ttyS1"
ENDED = "GUEST ENDED"
"""The last line on the console, with the agent's exit status behind it."""
SWAP_DISK = "/dev/nvme0n1"
_SWAP_MAGIC = b"SWAPSPACE2"
_POWER_OFF = 0x4321FEDC
_MOUNTS = (
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),  # noqa: S108 the guest's own
    ("tracefs", "/sys/kernel/tracing"),
    ("securityfs", "/sys/kernel/security"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
)
_ENVIRONMENT = {
    "PATH": "/bin:/usr/bin",
    "HOME": "/root",
    "PYTHONPATH": "/site",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


def main() -> None:
    """The guest's first process. Does not return."""
    status = 1
    try:
        _mount_all()
        if Path(SWAP_DISK).exists():
            _use_for_swap(SWAP_DISK)
        agent = os.fork()
        if agent == 0:
            os._exit(_serve())
        status = _wait_for(agent)
    except BaseException:  # noqa: BLE001 the first process must not end: the kernel would panic
        traceback.print_exc()
    print(f"{ENDED} {status}", flush=True)
    os.sync()
    ctypes.CDLL(None).reboot(ctypes.c_int(_POWER_OFF))


def _mount_all() -> None:
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, place in _MOUNTS:
        with contextlib.suppress(OSError):
            Path(place).mkdir(parents=True, exist_ok=True)
        # What a kernel doesn't have is missing then, as on any machine.
        libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None)


def _use_for_swap(disk: str) -> None:
    """What mkswap and swapon do. The header: include/linux/swap.h, version 1."""
    page = os.sysconf("SC_PAGE_SIZE")
    with Path(disk).open("r+b") as device:
        pages = device.seek(0, os.SEEK_END) // page
        device.seek(0)
        head = bytes(1024) + struct.pack("<III", 1, pages - 1, 0)
        device.write(head.ljust(page - len(_SWAP_MAGIC), b"\0") + _SWAP_MAGIC)
    ctypes.CDLL(None).swapon(disk.encode(), 0)


def _wait_for(agent: int) -> int:
    """Reap whatever ends, until the agent does."""
    while True:
        pid, status = os.wait()
        if pid == agent:
            return os.waitstatus_to_exitcode(status)


def _serve() -> int:
    port = os.open(PORT, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(port, termios.TCSANOW)

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(port, view) :]

    channel = Channel(lambda size: os.read(port, size), write)
    try:
        Agent(channel).serve()
    except BaseException:  # noqa: BLE001 told on the console, which is all there is
        traceback.print_exc()
        return 1
    return 0


class Agent:
    """Does what comes over the channel. Its requests are its methods called do_WORD."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stage = ExitStack()
        self._host: Host | None = None

    def serve(self) -> None:
        """Until it is told to end."""
        self._channel.send(("done", None))
        while True:
            try:
                word, arguments = self._channel.receive()
            except ChannelClosed:
                return
            try:
                self._channel.send(("done", getattr(self, f"do_{word}")(*arguments)))
            except Exception as error:  # noqa: BLE001 whoever asked is told
                self._channel.send(("failed", error_told(error)))
            if word == "end":
                return

    def do_end(self) -> None:
        """Leave the stage; the guest switches itself off."""
        self.do_unstage()

    def do_obstacles(self) -> dict[str, list[str]]:
        """What keeps each capture backend from working here."""
        from ksmtrace.vm.backends import backend_obstacles

        return backend_obstacles()

    def do_needs(self) -> list[str]:
        """What this machine has of that which not every one has, see `lab.needs`."""
        from ksmtrace.lab.needs import NEEDS

        return [need.name for need in NEEDS if not need.obstacles()]

    def do_stage(self, backend: str) -> tuple[str, str, tuple[str, ...]]:
        """Make the guest's ksmd ready for scenarios; the source's name, why, and what it lacks."""
        from ksmtrace.lab.on_kernel import host_stage

        self.do_unstage()
        self._host = self._stage.enter_context(host_stage(backend))
        source = self._host.source
        return source.name, self._host.why, tuple(source.fields_unknown)

    def do_unstage(self) -> None:
        """Let go of ksmd."""
        self._host = None
        self._stage.close()

    def do_perform(self, plan: Plan, record_as: str | None) -> Performance:
        """Perform a scenario; each observation is sent as it is made, none is in the answer."""
        assert self._host is not None

        def watch(seen: object) -> None:
            self._channel.send(("seen", seen))

        if record_as is None:
            performance = self._host.perform(plan, watch=watch)
        else:
            from ksmtrace.lab.recorder import record_performance
            from ksmtrace.recording.target import Target

            performance = record_performance(
                self._host, plan, Target(Path(record_as), force=True), watch=watch
            )
        performance.observations = []
        return performance

    def do_run(self, arguments: list[str], seconds: float) -> tuple[int, str, str]:
        """Run `ksmtrace ARGUMENTS`; its exit code, output and words."""
        command = [sys.executable, "-m", "ksmtrace.cli.main", *arguments]
        return _run(command, seconds)

    def do_python(self, program: str, seconds: float) -> tuple[int, str, str]:
        """Run a Python program; its exit code, output and words."""
        return _run([sys.executable, "-c", program], seconds)

    def do_folder(self, path: str) -> dict[str, bytes]:
        """The files of a folder, by name."""
        return {file.name: file.read_bytes() for file in Path(path).iterdir() if file.is_file()}


def _run(command: list[str], seconds: float) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise KsmtraceError(f"{command[-1]!r} took longer than {seconds} s in the guest") from None
    return done.returncode, done.stdout, done.stderr


def error_told(error: Exception) -> tuple[str, str | None, int]:
    """An error as it travels: its message, hint and exit code."""
    if isinstance(error, KsmtraceError):
        return error.message, error.hint, int(error.exit_code)
    traceback.print_exc()
    return f"the guest failed with {type(error).__name__}: {error}", None, 1
