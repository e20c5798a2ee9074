"""Where one is in a lesson, and what each key does: a pure state, without a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ksmtrace.lessons.frames import Frame, Frames, Kind

LETTERS = "abcdefghi"


@dataclass
class Stepping:
    """A walk through frames. at: the frame shown. answers: by frame, from 0.

    typed: a number being typed for a jump, None when none is. message: a word for the reader.
    """

    frames: Frames
    at: int = 0
    answers: dict[int, int] = field(default_factory=dict)
    typed: str | None = None
    message: str = ""
    help: bool = False
    over: bool = False

    @property
    def frame(self) -> Frame:
        """What is shown."""
        frame = self.frames.get(self.at)
        assert frame is not None
        return frame

    @property
    def asks(self) -> bool:
        """Whether the frame has a question that is not answered yet."""
        return self.frame.question is not None and self.at not in self.answers

    @property
    def score(self) -> tuple[int, int]:
        """(right answers, answers) so far."""
        right = 0
        for number, answer in self.answers.items():
            frame = self.frames.get(number)
            assert frame is not None
            assert frame.question is not None
            right += answer == frame.question.right
        return right, len(self.answers)

    def press(self, key: str) -> None:
        """Do what a key stands for."""
        self.message = ""
        if self.help:
            self.help = False
        elif self.typed is not None:
            self._type(key)
        elif self.asks and key in LETTERS[: self._choices()]:
            self.answers[self.at] = LETTERS.index(key)
        elif (command := self._commands().get(key)) is not None:
            command()
        else:
            self.message = "? tells the keys"

    def _commands(self) -> dict[str, Callable[[], None]]:
        groups: dict[Callable[[], None], tuple[str, ...]] = {
            lambda: self._go(self.at + 1): ("enter", " ", "right", "n", "down"),
            lambda: self._go(self.at - 1): ("left", "b", "p", "backspace", "up"),
            lambda: self._next_stop(1): ("page down", "s"),
            lambda: self._next_stop(-1): ("page up", "S"),
            lambda: self._go(0): ("home", "0"),
            self._go_to_end: ("end", "G"),
            self._begin_number: ("g",),
            self._show_help: ("?", "h"),
            self._leave: ("q", "escape"),
        }
        return {key: command for command, keys in groups.items() for key in keys}

    def _go_to_end(self) -> None:
        self._go(len(self.frames.all()) - 1)

    def _begin_number(self) -> None:
        self.typed = ""

    def _show_help(self) -> None:
        self.help = True

    def _leave(self) -> None:
        self.over = True

    def _choices(self) -> int:
        question = self.frame.question
        return len(question.answers) if question is not None else 0

    def _go(self, number: int) -> None:
        if number < 0:
            self.message = "this is the beginning"
        elif self.frames.get(number) is None:
            self.message = "this is the end; q leaves"
        else:
            self.at = number

    def _next_stop(self, direction: int) -> None:
        """To the next frame, that way, that is not a visit."""
        number = self.at + direction
        while (frame := self.frames.get(number)) is not None and frame.kind is Kind.VISIT:
            number += direction
        self._go(number)

    def _type(self, key: str) -> None:
        assert self.typed is not None
        if key.isdecimal():
            self.typed += key
        elif key == "backspace" and self.typed:
            self.typed = self.typed[:-1]
        elif key == "enter" and self.typed:
            found = self.frames.find_scan(int(self.typed[:9]))
            if found is None:
                self.message = f"there is no scan {self.typed}"
            else:
                self.at = found
            self.typed = None
        else:
            self.typed = None
