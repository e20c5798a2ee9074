"""Walking through a lesson at a terminal: one screen a stop, steered with single keys."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from rich.console import Group
from rich.text import Text

from ksmtrace.kernel.signals import signals_interrupt
from ksmtrace.lessons.frames import Frames
from ksmtrace.lessons.lesson import Lesson
from ksmtrace.lessons.stepping import Stepping
from ksmtrace.terminal import Terminal
from ksmtrace.views.lesson import Look, render_frame

_KEYS = "Enter next  b back  s next step  g N scan N  ? keys  q quit"
_ASKED = "press a letter to answer, Enter to go on without"
_LEAST = (60, 16)
_HELP = """Enter, space, n, right   the next stop
b, p, left               the stop before
s, page down             on to the end of this scan, or the next step
S, page up               back to the step before
g 3 Enter                jump to scan 3
0, home   G, end         the first stop, the last
a, b, c ...              answer a question
? q                      this help; leave

In the trees red places stand in parentheses. An arrow (\u203a) marks those that
were compared on the way down; x3 is how many pages map a KSM page, x2+1 a chain
of two. Any key goes back."""
_LONG = 3600.0
_PATIENCE = 0.3
"""Seconds without a word while the scanners work."""


def walk(lesson: Lesson, frames: Frames, scan: int | None = None) -> None:
    """Show stops until the learner leaves. scan: where to begin. Raises KeyboardInterrupt."""
    stepping = Stepping(frames)
    if scan is not None:
        stepping.at = frames.find_scan(scan) or 0
    with signals_interrupt(), Terminal.opened() as terminal:
        told = time.monotonic()

        def working(made: int) -> None:
            nonlocal told
            if time.monotonic() - told < _PATIENCE:
                return
            told = time.monotonic()
            words = f"the scanners are working: {made:,} stops so far; any key stops them"
            _paint(terminal, lesson, stepping, words)
            if terminal.keys(0):
                raise _Stopped

        frames.working = working
        _paint(terminal, lesson, stepping)
        while not stepping.over:
            for key in terminal.keys(_LONG) or ():
                told = time.monotonic()
                with suppress(_Stopped):
                    stepping.press(key)
            _paint(terminal, lesson, stepping)
    right, answers = stepping.score
    if answers:
        print(f"ksmtrace: {right} of {answers} questions answered rightly", file=sys.stderr)


class _Stopped(Exception):
    """A key was pressed while the scanners worked."""


def _paint(terminal: Terminal, lesson: Lesson, stepping: Stepping, foot: str = "") -> None:
    terminal.paint(Group(*_lines(lesson, stepping, *terminal.size, foot)))


def _lines(lesson: Lesson, stepping: Stepping, width: int, height: int, foot: str) -> list[Text]:
    if width < _LEAST[0] or height < _LEAST[1]:
        words = f"{_LEAST[0]}x{_LEAST[1]} is the least a lesson needs; enlarge the window, or q"
        return [Text(words[:width])]
    if stepping.help:
        return [Text(line[:width]) for line in _HELP.splitlines()]
    last = f" of {stepping.frames.made}" if stepping.frames.complete else ""
    keys = foot or stepping.message or (_ASKED if stepping.asks else _KEYS)
    if stepping.typed is not None:
        keys = f"go to scan: {stepping.typed}_   (Enter goes, any other key doesn't)"
    look = Look(
        width,
        height,
        answer=stepping.answers.get(stepping.at),
        answered=stepping.at in stepping.answers,
        keys=keys,
        position=f"{stepping.at + 1}{last}",
    )
    return render_frame(lesson, stepping.frame, look)
