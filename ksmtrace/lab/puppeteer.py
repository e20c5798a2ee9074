"""The other end of the puppets: starts real processes for a scenario and tells them what to do."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ksmtrace.errors import KsmtraceError
from ksmtrace.lab import puppet

_PATIENCE = 60.0


class Channel:
    """The way to one puppet."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.settimeout(_PATIENCE)
        self.pid = 0

    def hello(self) -> None:
        """Wait until the puppet is there."""
        pid, _ = puppet.receive(self._end)
        if pid is None:
            raise KsmtraceError("a process of the scenario did not start")
        self.pid = int(str(pid))

    def tell(self, *order: object, fds: tuple[int, ...] = ()) -> None:
        """Give an order and wait until it is done. Raises KsmtraceError if it can't be."""
        try:
            puppet.send(self._end, order, fds)
            trouble, _ = puppet.receive(self._end)
        except OSError as error:
            raise KsmtraceError(f"a process of the scenario was lost: {error}") from error
        if trouble is None:
            raise KsmtraceError(
                f"process {self.pid} of the scenario died", "is there enough memory for it?"
            )
        if trouble:
            raise KsmtraceError(f"a process of the scenario failed: {trouble}")

    def order(self, *order: object) -> None:
        """Give an order that is not answered in the usual way."""
        puppet.send(self._end, order)

    def wait_for_end(self) -> None:
        """Wait until the process has closed its end, and so has lost its memory."""
        with contextlib.suppress(ConnectionError):
            while puppet.receive(self._end)[0] is not None:
                pass
        self._end.close()


class Puppeteer:
    """All processes of one scenario, by name. Use `puppeteer` for what they are forked from."""

    def __init__(self, nursery: Channel) -> None:
        self._nursery = nursery
        self.puppets: dict[str, Channel] = {}
        self._pins: dict[str, tuple[int, int]] = {}

    def start(self, name: str, parent: str | None = None) -> int:
        """Fork a process; from the nursery if no parent is named. Returns its process id."""
        ours, theirs = socket.socketpair()
        source = self._nursery if parent is None else self.puppets[parent]
        source.tell("fork", name, fds=(theirs.fileno(),))
        theirs.close()
        channel = self.puppets[name] = Channel(ours)
        channel.hello()
        return channel.pid

    def exec(self, name: str) -> None:
        """Let a process exec."""
        channel = self.puppets[name]
        channel.order("exec")
        channel.hello()

    def exit(self, name: str) -> None:
        """End a process; returns when its memory is gone."""
        channel = self.puppets.pop(name)
        channel.order("exit")
        channel.wait_for_end()

    def tell(self, name: str, *order: object) -> None:
        """Give a process an order."""
        self.puppets[name].tell(*order)

    def pin(self, name: str, address: int, label: str) -> None:
        """Hold a reference to a page of a process in a pipe of ours."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self._pins[label] = (reading, writing)
        self.puppets[name].tell("pin", address, fds=(writing,))

    def unpin(self, label: str) -> None:
        """Give a reference back."""
        for fd in self._pins.pop(label):
            os.close(fd)

    def clear(self) -> None:
        """End all processes and give back all references."""
        for label in list(self._pins):
            self.unpin(label)
        for name in list(self.puppets):
            with contextlib.suppress(OSError):
                self.exit(name)


@contextmanager
def nursery() -> Iterator[Channel]:
    """A small process from which a scenario's processes are forked; it dies with us."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(puppet.__file__)), str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
        )
    channel = Channel(ours)
    try:
        channel.hello()
        yield channel
    finally:
        ours.close()
        process.wait(_PATIENCE)
