"""Stepping the real ksmd: exactly one batch, or one full scan, at a time.

The recipe: a batch ends in a sleep that a huge sleep_millisecs never lets end. Writing another
huge value wakes ksmd (since 5.0), which then looks at `run`: 0 parks it, 1 lets it do one batch.
With pages_to_scan above the number of pages a batch is the rest of a full scan. Inside a batch all
of ksmd's waits are uninterruptible, so state S in /proc/PID/stat means that the batch is over.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.host import read_text
from ksmtrace.kernel.knobs import changed
from ksmtrace.kernel.sysfs import KNOBS, KSM, PROC, ksmd_pid, read_knob, read_number

ALL_PAGES = 4_000_000_000
"""A pages_to_scan that makes every batch the rest of a full scan."""
_HUGE_SLEEP = 4_000_000_000
_PATIENCE = 60.0
_SPINS = 200
_MIGRATE_PAGES = {"x86_64": 256, "aarch64": 238}


class Stepper:
    """The parked ksmd. Use `parked` to get one."""

    def __init__(self, pid: int) -> None:
        self._stat = PROC / str(pid) / "stat"
        self._wchan = PROC / str(pid) / "wchan"
        self._turn = 0

    def park(self) -> None:
        """Stop ksmd and make sure that it waits for `run`."""
        self.wait_until_still()
        self.write("run", "0")
        self._turn += 1
        self.write("sleep_millisecs", str(_HUGE_SLEEP + self._turn % 2))
        self.wait_until_still()

    def batch(self) -> None:
        """Let ksmd do one batch of pages_to_scan; nothing happens if nobody is registered."""
        drain_lru_batches()
        self.write("run", "1")
        self.park()

    def scan(self, times: int = 1) -> None:
        """Let ksmd do full scans, one at a time. Raises KsmtraceError if it doesn't."""
        for _ in range(times):
            before = self.full_scans()
            self.batch()
            if self.full_scans() != before + 1:
                raise KsmtraceError(
                    "ksmd did not do exactly one full scan in a step",
                    "is a process registered, and nobody else changing KSM's knobs?",
                )

    def unmerge(self) -> None:
        """Undo all merging (run=2); ksmd stays parked."""
        drain_lru_batches()
        self.write("run", "2")
        self.write("run", "0")

    def full_scans(self) -> int:
        """The counter."""
        return read_number(KSM / "full_scans") or 0

    def write(self, knob: str, value: str) -> None:
        """Write a knob. Raises OSError as the kernel answers."""
        fd = os.open(KSM / knob, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def wait_until_still(self) -> None:
        """Wait until ksmd sleeps outside a batch."""
        expect(self._sleeps, "ksmd did not finish a batch in time")

    def _sleeps(self) -> bool:
        stat = self._stat.read_bytes()
        if stat.rpartition(b")")[2].split(None, 1)[:1] != [b"S"]:
            return False
        # A thread that was woken is in state S once more while it looks what for; that lasts where
        # its virtual CPU isn't given time just then. It has no place to wait at meanwhile.
        return read_text(self._wchan) != "0"


def expect(holds: Callable[[], bool], otherwise: str) -> None:
    """Wait until something holds. Raises KsmtraceError with `otherwise` after a minute."""
    deadline = time.monotonic() + _PATIENCE
    spins = 0
    while not holds():
        spins += 1
        if spins < _SPINS:
            continue
        if time.monotonic() > deadline:
            raise KsmtraceError(otherwise, "is somebody else changing KSM's knobs?")
        time.sleep(0.0005)


STEPPING_KNOBS = {
    "run": "0",
    "pages_to_scan": str(ALL_PAGES),
    "sleep_millisecs": str(_HUGE_SLEEP),
}
"""What must be set before ksmd can be stepped."""


def default_knobs() -> dict[str, str]:
    """Every knob of this kernel with its default, but stopped and ready to be stepped."""
    knobs = {knob.name: knob.default for knob in KNOBS if read_knob(knob.name) is not None}
    return knobs | STEPPING_KNOBS


def the_stepper() -> Stepper:
    """A stepper for this machine's ksmd; STEPPING_KNOBS must be set. Raises KsmtraceError."""
    pid = ksmd_pid()
    if pid is None:
        raise KsmtraceError("there is no ksmd", "boot a kernel with CONFIG_KSM=y", Exit.HOST_CANNOT)
    return Stepper(pid)


@contextmanager
def parked(
    knobs: Mapping[str, str] | None = None, directory: Path | None = None
) -> Iterator[Stepper]:
    """Ksmd parked and everything unmerged, with `knobs` set; all knobs are restored afterwards.

    Raises KsmtraceError where there is no ksmd or its knobs can't be changed.
    """
    stepper = the_stepper()
    wanted = default_knobs() | dict(knobs or {})
    with changed(wanted, directory) if directory else changed(wanted):
        stepper.park()
        stepper.unmerge()
        try:
            yield stepper
        finally:
            stepper.park()
            stepper.unmerge()


def drain_lru_batches() -> None:
    """Make every CPU hand over the page references it holds back, which would fail merges.

    migrate_pages() from and to the same node moves nothing but drains them (mm/swap.c).
    """
    number = _MIGRATE_PAGES.get(platform.machine())
    if number is not None:
        _LIBC.syscall(number, 0, 2, ctypes.byref(_NODE_0), ctypes.byref(_NODE_0))


_LIBC = ctypes.CDLL(None, use_errno=True)
_NODE_0 = ctypes.c_ulong(1)
