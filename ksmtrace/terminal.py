"""The terminal: keys as they are pressed, its size, and a screen that is left as it was found."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
"""A terminal that knows these draws what is between them at once; others pass over them."""
_SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left",
    b"\x1bOA": "up", b"\x1bOB": "down", b"\x1bOC": "right", b"\x1bOD": "left",
    b"\x1b[H": "home", b"\x1b[F": "end", b"\x1b[1~": "home", b"\x1b[4~": "end",
    b"\x1bOH": "home", b"\x1bOF": "end", b"\x1b[7~": "home", b"\x1b[8~": "end",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down",
}  # fmt: skip
_CONTROLS = {b"\r": "enter", b"\n": "enter", b"\x7f": "backspace", b"\x08": "backspace"}
_REST = 0.05
"""Seconds that the rest of a key's sequence may take, on a slow line."""
_REST = 0.05
"""Seconds that the rest of a key's sequence may take, on a slow line."""
_LONGEST = max(map(len, _SEQUENCES))


def screen_obstacle() -> str | None:
    """Why there can be no screen on standard output, in words."""
    if not sys.stdout.isatty():
        return "the output is no terminal"
    if os.environ.get("TERM") in (None, "", "dumb"):
        return "this terminal can't be drawn on (TERM)"
    return None


def keys_of(data: bytes) -> list[str]:
    """The keys that a terminal's bytes stand for: characters, names of others; unknown ones none.

    A lone escape is the key; one that begins a sequence which is not known takes that with it.
    """
    keys = []
    while data:
        if data[:1] != b"\x1b":
            # What is no ASCII is no key of ours.
            named = _CONTROLS.get(data[:1])
            keys += [named] if named else [chr(data[0])] if 32 <= data[0] < 127 else []
            data = data[1:]
            continue
        length = next((n for n in range(_LONGEST, 2, -1) if data[:n] in _SEQUENCES), 0)
        if length:
            keys.append(_SEQUENCES[data[:length]])
        elif len(data) == 1:
            keys.append("escape")
            length = 1
        elif data[1:2] == b"\x1b":
            # Alt with a key that is a sequence itself: as without Alt.
            length = 1
        else:
            length = _unknown(data)
        data = data[length:]
    return keys


def _may_go_on(data: bytes) -> bool:
    """Whether what was read may end in the middle of a key's sequence."""
    begin = data.rfind(b"\x1b")
    rest = data[begin:] if begin >= 0 else b""
    if rest in (b"\x1b", b"\x1b[", b"\x1bO"):
        return True
    return rest[:2] == b"\x1b[" and not any(0x40 <= byte <= 0x7E for byte in rest[2:])


def _unknown(data: bytes) -> int:
    """How long an unknown sequence is: ESC [ parameters and a letter, ESC O x, or ESC x."""
    if data[1:2] != b"[":
        return 3 if data[1:2] == b"O" else 2
    end = next((n for n, byte in enumerate(data[2:], 2) if 0x40 <= byte <= 0x7E), len(data) - 1)
    return end + 1


class Terminal:
    """A screen of its own on the terminal, and the keyboard where there is one.

    Use as `with Terminal.opened() as terminal`; whatever happens inside, it is put back.
    """

    def __init__(self, console: Console, live: Live, keyboard: _Keyboard, wake: int) -> None:
        self._console = console
        self._live = live
        self._keyboard = keyboard
        self._wake = wake

    @staticmethod
    @contextmanager
    def opened() -> Iterator[Terminal]:
        """Take the screen and the keyboard."""
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False)
        live = Live(
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with _Keyboard() as keyboard, _woken() as wake, live:
            yield Terminal(console, live, keyboard, wake)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        return self._console.size.width, self._console.size.height

    def paint(self, screen: RenderableType) -> None:
        """Show it, at once."""
        out = self._console.file
        out.write(_BEGIN)
        self._live.update(screen, refresh=True)
        out.write(_END)
        out.flush()

    def keys(self, seconds: float) -> list[str] | None:
        """Keys pressed within so many seconds, at the first; [] if none; None: paint anew."""
        watched = [self._wake, *self._keyboard.descriptors]
        ready, _, _ = select.select(watched, [], [], max(seconds, 0))
        if self._wake in ready:
            with suppress(BlockingIOError):
                if bytes([signal.SIGTSTP]) in os.read(self._wake, 1024):
                    self._suspend()
            return None
        return self._keyboard.read() if ready else []

    def _suspend(self) -> None:
        """Stop as Ctrl-Z asks, the terminal as it was; here again, take it anew."""
        self._live.stop()
        self._keyboard.give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._keyboard.take()
        self._live.start()


class _Keyboard:
    """Standard input, a key at a time and unseen, while it is a terminal that we may read.

    descriptors: it, or none.
    """

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno()
        self._before: list[Any] | None = None
        self.descriptors: list[int] = []

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *_error: object) -> None:
        self.give_back()

    def take(self) -> None:
        """Have keys given one at a time."""
        if not os.isatty(self._descriptor) or self._in_background():
            return
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        self.descriptors = [self._descriptor]

    def _in_background(self) -> bool:
        """Whether to read, or to change the terminal, would stop us."""
        try:
            return os.tcgetpgrp(self._descriptor) != os.getpgrp()
        except OSError:
            # Some other session's terminal that we were given: nobody controls us by it.
            return False

    def give_back(self) -> None:
        """Leave it as it was."""
        if self._before is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
        self._before, self.descriptors = None, []

    def read(self) -> list[str]:
        """The keys that were pressed."""
        try:
            data = os.read(self._descriptor, 1024)
            while _may_go_on(data) and select.select([self._descriptor], [], [], _REST)[0]:
                more = os.read(self._descriptor, 1024)
                if not more:
                    break
                data += more
        except OSError:
            data = b""
        if not data:
            # Nobody can press a key any more; the screen goes on.
            self.descriptors = []
        return keys_of(data)


@contextmanager
def _woken() -> Iterator[int]:
    """A descriptor that has the numbers of signals: the size changed, or Ctrl-Z was pressed."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def told(number: int, _frame: FrameType | None) -> None:
        with suppress(BlockingIOError):
            os.write(writing, bytes([number]))

    before = {number: signal.signal(number, told) for number in (signal.SIGWINCH, signal.SIGTSTP)}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
