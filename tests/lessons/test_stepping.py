"""Walking through stops with keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.lab.scenario import parse_scenario
from ksmtrace.lessons.frames import Frame, Frames, Kind
from ksmtrace.lessons.lesson import lesson_of
from ksmtrace.lessons.play import play
from ksmtrace.lessons.stepping import Stepping

TEXT = """
title = "T"
[[step]]
map = "a.heap"
pages = 3
[[step]]
write = "a.heap"
content = "same"
[[step]]
ask = { question = "How many?", answers = ["one", "two", "none"], right = 3, because = "So." }
scan = 3
"""
ALL = play(lesson_of(parse_scenario(TEXT, "x"), "x")).all()
KEYS = st.sampled_from(
    ["enter", " ", "left", "b", "s", "S", "home", "end", "g", "1", "2", "9", "a", "c", "?", "x"]
)


def begun() -> Stepping:
    return Stepping(Frames(iter(ALL)))


@given(st.lists(KEYS, max_size=40))
def test_whatever_is_pressed_there_is_something_to_show(keys: list[str]) -> None:
    stepping = begun()
    for key in keys:
        stepping.press(key)
        assert 0 <= stepping.at < len(ALL)
        assert stepping.frame is ALL[stepping.at]
        right, answers = stepping.score
        assert 0 <= right <= answers <= 1
    assert not stepping.over


def test_forth_and_back_is_where_one_was() -> None:
    stepping = begun()
    for number in range(len(ALL) - 1):
        stepping.press("enter")
        assert stepping.at == number + 1
    stepping.press("enter")
    assert stepping.message == "this is the end; q leaves"
    for number in reversed(range(len(ALL) - 1)):
        stepping.press("left")
        assert stepping.at == number
    stepping.press("left")
    assert stepping.message == "this is the beginning"


def test_a_jump_goes_to_the_first_visit_of_the_scan() -> None:
    stepping = begun()
    for key in ("g", "3", "enter"):
        stepping.press(key)
    assert (stepping.frame.kind, stepping.frame.scan, stepping.frame.visit) == (Kind.VISIT, 3, 1)
    for key in ("g", "4", "backspace", "2", "enter"):
        stepping.press(key)
    assert (stepping.frame.scan, stepping.frame.visit) == (2, 1)
    for key in ("g", "7", "enter"):
        stepping.press(key)
    assert (stepping.frame.scan, stepping.message) == (2, "there is no scan 7")
    for key in ("g", "enter"):
        stepping.press(key)
    assert stepping.typed is None


def test_steps_leave_visits_out() -> None:
    stepping = begun()
    kinds = []
    for _ in range(7):
        stepping.press("s")
        kinds.append(stepping.frame.kind)
    assert Kind.VISIT not in kinds
    assert kinds[-1] is Kind.CLOSING
    stepping.press("S")
    assert stepping.frame.kind is Kind.DONE


def test_an_answer_counts_once_and_letters_are_keys_again_after_it() -> None:
    stepping = begun()
    while stepping.frame.question is None:
        stepping.press("enter")
    assert stepping.asks
    stepping.press("d")
    assert stepping.asks
    stepping.press("c")
    assert stepping.score == (1, 1)
    before = stepping.at
    stepping.press("b")
    assert stepping.at == before - 1
    stepping.press("enter")
    assert not stepping.asks
    stepping.press("q")
    assert stepping.over


def test_frames_are_made_only_as_far_as_they_were_asked_for() -> None:
    made: list[int] = []

    def source() -> object:
        for number in range(5):
            made.append(number)
            yield Frame(Kind.DONE, number, ())

    frames = Frames(source())  # type: ignore[arg-type]
    frames.get(1)
    assert made == [0, 1]
    assert frames.get(7) is None
    assert (frames.complete, frames.made) == (True, 5)
    assert frames.get(-1) is None
