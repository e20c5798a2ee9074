"""Single keys from a terminal, by name: what a screen that is steered needs."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Self

_NAMES = {
    "\r": "enter",
    "\n": "enter",
    " ": "space",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x1b": "escape",
    "\t": "tab",
    "\x03": "interrupt",
    "\x04": "end of input",
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
}
_SEQUENCE_SECONDS = 0.03


def key_names(typed: str) -> list[str]:
    """What was typed, key by key; unknown sequences are left out, letters are themselves."""
    names = []
    at = 0
    while at < len(typed):
        long = next(
            (n for n in (4, 3) if typed[at : at + n] in _NAMES and len(typed) >= at + n), None
        )
        if long is not None:
            names.append(_NAMES[typed[at : at + long]])
            at += long
        elif typed[at] == "\x1b" and typed[at + 1 : at + 2] in ("[", "O"):
            at += 2
            while at < len(typed) and not typed[at].isalpha() and typed[at] != "~":
                at += 1
            at += 1
        else:
            name = _NAMES.get(typed[at], typed[at])
            if len(name) > 1 or name.isprintable():
                names.append(name)
            at += 1
    return names


class Keyboard:
    """Reads keys while inside `with`; the terminal is as before afterwards."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._saved: list[object] | None = None
        self._waiting: list[str] = []

    def __enter__(self) -> Self:
        self._saved = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._saved is not None
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]  # as tcgetattr gave it

    def read(self, seconds: float | None) -> str | None:
        """The next key's name, or None if none was pressed in time. seconds: None waits forever."""
        if self._waiting:
            return self._waiting.pop(0)
        if not select.select([self._fd], [], [], seconds)[0]:
            return None
        typed = os.read(self._fd, 1024)
        if not typed:
            return "end of input"
        if typed == b"\x1b" and select.select([self._fd], [], [], _SEQUENCE_SECONDS)[0]:
            typed += os.read(self._fd, 1024)
        self._waiting = key_names(typed.decode(errors="ignore"))
        return self._waiting.pop(0) if self._waiting else None
