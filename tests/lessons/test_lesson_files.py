"""A lesson's file: what it may hold, and how a mistake is told."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import KsmtraceError
from ksmtrace.lab.scenario import ScenarioError, parse_scenario, scenario_of, to_toml
from ksmtrace.lessons.lesson import find_lesson, lesson_of, read_lesson, shipped_lessons

GOOD = """
title = "T"
[lesson]
goal = "Say why"
number = 3
on = ["ksm:6.1", "ksm:6.18"]
[[step]]
map = "a.heap"
pages = 2
[[step]]
intro = "Look."
ask = { question = "How many?", answers = ["one", "two"], right = 2, because = "So." }
scan = 1
shows = "scans"
"""


def test_a_good_one_has_its_questions_by_step() -> None:
    lesson = lesson_of(parse_scenario(GOOD, "x.toml"), "x")
    assert (lesson.number, lesson.goal) == (3, "Say why")
    assert [place.name for place in lesson.places] == ["ksm:6.1", "ksm:6.18"]
    assert lesson.questions[2].right == 1
    assert lesson.stops_at(lesson.plan.steps[1]) == "scans"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("number = 3", 'number = "3"', "number must be a whole number"),
        ("number = 3", "number = true", "number must be a whole number"),
        ("number = 3", "level = 3", r"\[lesson\] has no 'level'"),
        ('"ksm:6.1", ', '"ksm:6.1", "ksm:6.4", "ksm:6.6", ', "at most 3"),
        ('"ksm:6.1", ', '"host", ', "names models"),
        ('"ksm:6.1", ', '"ksm:6.18", ', "twice"),
        ('"ksm:6.1", ', "6, ", "list of texts"),
        ("right = 2", "right = 3", "x.toml:10.*right must be from 1 to 2"),
        ("right = 2", "right = 0", "right must be from 1 to 2"),
        ("right = 2, ", "", "ask must have"),
        ('["one", "two"]', '["one"]', "two to 9"),
        ('"How many?"', "7", "must be texts"),
        ('shows = "scans"', 'shows = "all"', "x.toml:10.*shows must be"),
        ('intro = "Look."', "intro = 5", "x.toml:10.*intro must be a text"),
        ("[lesson]", "lesson = 5\n[knobs]", "lesson must be a table"),
        ("scan = 1", 'scan = "one"', "x.toml:10"),
    ],
)
def test_a_mistake_is_told_where_it_is(old: str, new: str, what: str) -> None:
    assert old in GOOD
    with pytest.raises(KsmtraceError, match=what):
        lesson_of(parse_scenario(GOOD.replace(old, new, 1), "x.toml"), "x")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(["number", "goal", "minutes", "on", "live", "shows", "closing", "reading"])


@given(
    st.dictionaries(KEYS, ANY),
    st.dictionaries(st.sampled_from(["ask", "intro", "shows", "say"]), ANY),
)
def test_nothing_but_an_error_in_words_comes_of_any_table(
    table: dict[str, object], step: dict[str, object]
) -> None:
    document = {"title": "x", "lesson": table, "step": [step]}
    # Anything else that is raised fails here.
    with suppress(KsmtraceError):
        lesson_of(scenario_of(document, "x"), "x")


def test_a_lesson_survives_being_written_and_read() -> None:
    scenario = parse_scenario(GOOD, "x.toml")
    again = parse_scenario(to_toml(scenario), "x.toml")
    assert (again.lesson, again.title) == (scenario.lesson, scenario.title)
    assert [s.values for s in again.steps] == [s.values for s in scenario.steps]


def test_lessons_are_found_by_name_number_and_path(tmp_path: Path) -> None:
    first = shipped_lessons()[0]
    assert find_lesson(first.name) == find_lesson(str(first.number))
    mine = tmp_path / "mine.toml"
    mine.write_text(GOOD)
    assert read_lesson(find_lesson(str(mine))).title == "T"
    for name in ("none", "999", "../texts/why-two-scans", ""):
        with pytest.raises(KsmtraceError, match="there is no lesson"):
            find_lesson(name)


def test_a_scenario_without_a_lesson_is_stepped_too() -> None:
    lesson = lesson_of(
        parse_scenario('title = "x"\n[[step]]\nmap = "a.heap"\npages = 1\n', "x"), "x"
    )
    assert (lesson.number, lesson.questions) == (None, {})
    with pytest.raises(ScenarioError):
        parse_scenario("title = 5", "x")
