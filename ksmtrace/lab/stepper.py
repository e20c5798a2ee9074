"""Stepping the real ksmd: exactly one full scan at a time.

The recipe: with pages_to_scan above the number of pages a batch is a full scan, and a batch ends
in a sleep that a huge sleep_millisecs never lets end. Writing another huge value wakes ksmd (since
5.0), which then looks at `run`: 0 parks it, 1 lets it do one batch.
"""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.host import read_text
from ksmtrace.kernel.knobs import changed
from ksmtrace.kernel.sysfs import KSM, PROC, ksmd_pid, read_number

_HUGE_SLEEP = 4_000_000_000
_ALL_PAGES = "4000000000"
_PATIENCE = 60.0
_MIGRATE_PAGES = {"x86_64": 256, "aarch64": 238}


class Stepper:
    """The parked ksmd. Use `parked` to get one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._turn = 0

    def park(self) -> None:
        """Stop ksmd and make sure that it waits for `run`."""
        self.wait_until_still()
        self._write("run", 0)
        self._wake()
        self.wait_until_still()

    def scan(self, times: int = 1) -> None:
        """Let ksmd do full scans, one at a time. Raises KsmtraceError if it doesn't."""
        for _ in range(times):
            before = self._scans()
            drain_lru_batches()
            self._write("run", 1)
            self._wait_for_scan(before)
            self.park()
            if self._scans() != before + 1:
                raise KsmtraceError("ksmd did more than one full scan in a step")

    def unmerge(self) -> None:
        """Undo all merging (run=2); ksmd stays parked."""
        drain_lru_batches()
        self._write("run", 2)
        self._write("run", 0)

    def wait_until_still(self) -> None:
        """Wait until ksmd sleeps outside a scan; inside one its waits are uninterruptible."""
        self._expect(self._sleeps)

    def _wait_for_scan(self, before: int) -> None:
        self._expect(lambda: self._scans() > before)

    def _sleeps(self) -> bool:
        stat = read_text(PROC / str(self._pid) / "stat") or ""
        return stat.rpartition(")")[2].split()[:1] == ["S"]

    def _wake(self) -> None:
        self._turn += 1
        self._write("sleep_millisecs", _HUGE_SLEEP + self._turn % 2)

    def _scans(self) -> int:
        return read_number(KSM / "full_scans") or 0

    def _write(self, knob: str, value: int) -> None:
        (KSM / knob).write_text(str(value))

    def _expect(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise KsmtraceError(
                    "ksmd did not finish a scan in time",
                    "is a process registered, and nobody else changing KSM's knobs?",
                )
            time.sleep(0.0005)


@contextmanager
def parked(
    knobs: Mapping[str, str] | None = None, directory: Path | None = None
) -> Iterator[Stepper]:
    """Ksmd parked and everything unmerged, with `knobs` set; all knobs are restored afterwards.

    Raises KsmtraceError where there is no ksmd or its knobs can't be changed.
    """
    pid = ksmd_pid()
    if pid is None:
        raise KsmtraceError("there is no ksmd", "boot a kernel with CONFIG_KSM=y", Exit.HOST_CANNOT)
    fixed = {"run": "0", "pages_to_scan": _ALL_PAGES, "sleep_millisecs": str(_HUGE_SLEEP)}
    wanted = {**fixed, **(knobs or {})}
    with changed(wanted, directory) if directory else changed(wanted):
        stepper = Stepper(pid)
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
        one = ctypes.c_ulong(1)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(number, 0, 2, ctypes.byref(one), ctypes.byref(one))
