"""The two ends of the channel, without a guest between them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.lab.needs import NEEDS
from ksmtrace.vm.agent import Agent
from ksmtrace.vm.channel import Channel
from ksmtrace.vm.guest import Guest
from ksmtrace.vm.packages import KernelPackage
from ksmtrace.vm.qemu import Qemu

KERNEL = KernelPackage("6.12", "6.12.117", "linux-image", Path("/nowhere"))


class Process:
    """Stands for QEMU's process."""

    def lost(self, what: str) -> KsmtraceError:
        return KsmtraceError(f"the guest {what}")


@pytest.fixture(name="far")
def far_end() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def guest(far: tuple[socket.socket, socket.socket]) -> Guest:
    """A guest whose agent runs in a thread of ours."""
    ours, theirs = far

    def serve() -> None:
        with suppress(OSError):
            Agent(Channel(theirs.recv, theirs.sendall)).serve()

    threading.Thread(target=serve, daemon=True).start()
    return Guest(KERNEL, cast("Qemu", Process()), ours)


def test_what_the_guest_has_is_asked_of_it(guest: Guest) -> None:
    assert guest.has == tuple(need for need in NEEDS if not need.obstacles())
    assert set(guest.obstacles()) >= {"core", "fentry", "bcc", "tracefs"}


def test_an_error_there_is_the_same_error_here(guest: Guest) -> None:
    with pytest.raises(KsmtraceError, match="no backend called 'nonsense'") as caught:
        guest.stage("nonsense")
    assert caught.value.exit_code == Exit.USAGE
    assert caught.value.hint


def test_a_fault_of_the_agent_s_is_one_sentence(guest: Guest) -> None:
    with pytest.raises(KsmtraceError, match="the guest failed with AttributeError") as caught:
        guest.ask("nonsense")
    assert "Traceback" not in caught.value.message
    guest.unstage()


def test_a_command_s_exit_code_output_and_words_come_back(guest: Guest) -> None:
    status, told, words = guest.run("kernels", "0.1")
    assert (status, told) == (2, "")
    assert "no profile" in words


def test_a_folder_comes_out_as_it_is(guest: Guest, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    files = {"a": b"", "b": os.urandom(70_001)}
    for name, content in files.items():
        (there / name).write_bytes(content)
    guest.fetch(str(there), here)
    assert {file.name: file.read_bytes() for file in here.iterdir()} == files


@pytest.mark.parametrize("last", [b"", b"\xff" * 9, (5).to_bytes(8, "little") + b"nothi"], ids=repr)
def test_a_guest_that_is_gone_or_garbled_is_told_and_never_waited_for(
    last: bytes, far: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = far
    channel = Channel(theirs.recv, theirs.sendall)
    channel.send(("done", None))
    channel.send(("done", []))
    guest = Guest(KERNEL, cast("Qemu", Process()), ours)
    theirs.sendall(last)
    theirs.close()
    for _ in range(2):
        with pytest.raises(KsmtraceError, match="the guest was lost"):
            guest.ask("unstage")


def test_one_that_never_answers_did_not_boot(far: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = far
    theirs.close()
    with pytest.raises(KsmtraceError, match="did not boot"):
        Guest(KERNEL, cast("Qemu", Process()), ours)


def test_observations_arrive_before_the_answer(far: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = far
    channel = Channel(theirs.recv, theirs.sendall)
    for message in (("done", None), ("done", []), ("seen", 1), ("seen", 2), ("done", 3)):
        channel.send(message)
    guest = Guest(KERNEL, cast("Qemu", Process()), ours)
    seen: list[Any] = []
    assert guest.ask("perform", seen=seen.append) == 3
    assert seen == [1, 2]
