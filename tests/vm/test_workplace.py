from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from ksmtrace.kernel.signals import signals_interrupt
from ksmtrace.vm.guest import _workplace


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_what_a_killed_run_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    dead, living = tmp_path / "ksmtrace-vm-dead", tmp_path / "ksmtrace-vm-living"
    for folder in (dead, living):
        folder.mkdir()
        (folder / "lock").touch()
        (folder / "swap.img").write_bytes(b"x")
    with (living / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _workplace() as folder:
            assert folder.parent == tmp_path
            assert not dead.exists()
            assert (living / "swap.img").exists()
    assert not folder.exists()


def test_a_hang_up_that_is_ignored_stays_so_and_each_signal_is_noted() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    noted: list[int] = []
    try:
        with pytest.raises(KeyboardInterrupt), signals_interrupt(noted.append):  # noqa: PT012 the signal comes inside
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert noted == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), signals_interrupt(), _workplace() as folder:  # noqa: PT012 the signal comes inside
        os.kill(os.getpid(), number)
        signal.pause()
    assert not folder.exists()
    assert signal.getsignal(number) is before
