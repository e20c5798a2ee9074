"""Walking through a lesson at a terminal: one screen a stop, steered with single keys."""

from __future__ import annotations

import os
import signal
import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

from ksmtrace.cli.keyboard import Keyboard
from ksmtrace.errors import Exit
from ksmtrace.lessons.frames import Frames
from ksmtrace.lessons.lesson import Lesson
from ksmtrace.lessons.stepping import Stepping
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
_ENTER_SCREEN, _LEAVE_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_BEGIN_UPDATE, _END_UPDATE = "\x1b[?2026h\x1b[H", "\x1b[J\x1b[?2026l"


def walk(lesson: Lesson, frames: Frames, scan: int | None = None) -> int:
    """Show stops until the learner leaves. scan: where to begin. Returns the exit code."""
    stepping = Stepping(frames)
    if scan is not None:
        stepping.at = frames.find_scan(scan) or 0
    out = sys.stdout
    resized = _Resized()
    with Keyboard() as keyboard, resized:
        out.write(_ENTER_SCREEN)
        try:
            _paint(out, lesson, stepping)
            while not stepping.over:
                # A signal ends the wait, so that a window of another size is drawn anew.
                key = keyboard.read(0.2)
                if key is not None:
                    if not frames.complete and stepping.at + 1 == frames.made:
                        # What comes next may take the scanners some seconds.
                        _foot(out, "the scanners are working ...")
                    stepping.press(key)
                elif not resized.taken():
                    continue
                _paint(out, lesson, stepping)
        finally:
            out.write(_LEAVE_SCREEN)
            out.flush()
    right, answers = stepping.score
    if answers:
        print(f"ksmtrace: {right} of {answers} questions answered rightly", file=sys.stderr)
    return Exit.OK


class _Resized:
    """Notices that the window has another size."""

    def __init__(self) -> None:
        self._size = _size()

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGWINCH, lambda *_: None)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGWINCH, self._before)

    def taken(self) -> bool:
        """Whether it changed since it was last asked."""
        before, self._size = self._size, _size()
        return before != self._size


def _size() -> tuple[int, int]:
    size = os.get_terminal_size(sys.stdout.fileno())
    return size.columns, size.lines


def _paint(out: TextIO, lesson: Lesson, stepping: Stepping) -> None:
    width, height = _size()
    console = Console(file=out, width=width, highlight=False, soft_wrap=True, force_terminal=True)
    with console.capture() as caught:
        for line in _lines(lesson, stepping, width, height):
            # Each line is wiped behind its end: a whole screen never flickers.
            console.print(line, end="\x1b[K\r\n")
    out.write(_BEGIN_UPDATE + caught.get().removesuffix("\r\n") + _END_UPDATE)
    out.flush()


def _foot(out: TextIO, words: str) -> None:
    """Words in the last line, until the next screen."""
    out.write(f"\x1b[{_size()[1]};1H{words}\x1b[K")
    out.flush()


def _lines(lesson: Lesson, stepping: Stepping, width: int, height: int) -> list[Text]:
    if width < _LEAST[0] or height < _LEAST[1]:
        words = f"{_LEAST[0]}x{_LEAST[1]} is the least a lesson needs; enlarge the window, or q"
        return [Text(words[:width])]
    if stepping.help:
        return [Text(line[:width]) for line in _HELP.splitlines()]
    last = f" of {stepping.frames.made}" if stepping.frames.complete else ""
    keys = stepping.message or (_ASKED if stepping.asks else _KEYS)
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
