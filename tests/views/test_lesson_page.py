"""The page of a lesson as a file: nothing is lost, nothing hostile gets through, it stays small."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.html_pages import Elements, unpacked
from support.lesson_pages import HOSTILE, hostile_lesson

from ksmtrace.amounts import count
from ksmtrace.cli.main import main
from ksmtrace.lab.scenario import parse_scenario
from ksmtrace.lessons.lesson import find_lesson, lesson_of, read_lesson
from ksmtrace.lessons.play import play
from ksmtrace.model.scene import Standing
from ksmtrace.processes.identity import clean
from ksmtrace.views.html.lesson import CLASSES, MOST_EVENTS, MOST_LISTED, lesson_page
from ksmtrace.views.lesson_data import frames_as_dicts
from ksmtrace.views.lesson_words import MARKS

RECORDINGS = Path(__file__).parents[2] / "recordings"
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def page_of(name: str, on: list[str] | None = None) -> str:
    lesson = read_lesson(find_lesson(name), on)
    return lesson_page(lesson, play(lesson).all())


def lines_of(page: str) -> list[Any]:
    text = unpacked(Elements(page).data("lesson")).tobytes().decode()
    return [json.loads(line) for line in text.split("\n")]


def stops_of(page: str) -> list[Any]:
    """The stops as lesson.js reads them: rows of pages put back."""
    plan, *stops = lines_of(page)
    for stop in stops:
        for view in stop["views"]:
            looked_at = view.pop("looked_at")
            assert view.pop("events_left_out") == 0
            for tree in view["trees"]:
                assert tree.pop("left_out_before") == tree.pop("left_out_after") == 0
            view["pages"] = [
                {**plan["rows"][row], "looked_at": place == looked_at}
                for place, row in enumerate(view["pages"])
            ]
    return stops


@pytest.mark.parametrize("on", [None, ["ksm:2011", "uksm:full", "ksm:6.12"]])
def test_a_page_holds_every_stop_as_it_is(on: list[str] | None) -> None:
    lesson = read_lesson(find_lesson("why-two-scans"), on)
    frames = play(lesson).all()
    page = lesson_page(lesson, frames)
    assert stops_of(page) == json.loads(json.dumps(frames_as_dicts(frames)))
    assert page == lesson_page(lesson, play(lesson).all())


def test_the_plan_says_where_stops_questions_and_scans_are() -> None:
    page = page_of("why-two-scans")
    plan, stops = lines_of(page)[0], stops_of(page)
    letters = {"opening": "o", "before a step": "b", "visit": "v", "step done": "d", "closing": "c"}
    assert plan["kinds"] == "".join(letters[stop["kind"]] for stop in stops)
    assert plan["scans"] == [stop["scan"] for stop in stops]
    assert plan["asks"] == [n for n, stop in enumerate(stops) if stop["question"]]
    changed = {c[0] for stop in stops for view in stop["views"] for c in view["changed"]}
    assert changed <= set(plan["shown"])
    assert plan["shown"][:2] == ["pages_shared", "pages_sharing"]
    assert "stable_node_chains" not in plan["shown"]


def test_however_a_page_may_stand_it_has_a_colour_and_a_mark_of_its_own() -> None:
    assert set(CLASSES) == set(MARKS) == set(Standing)
    assert len(set(MARKS.values())) == len(MARKS)


def test_all_words_are_there_without_scripts() -> None:
    lesson = read_lesson(find_lesson("why-two-scans"))
    frames = play(lesson).all()
    page = lesson_page(lesson, frames)
    # Backticks in a lesson's words become elements of their own.
    elements = Elements(page.replace("<code>", "").replace("</code>", ""))
    texts = " ".join(" ".join(text.split()) for tag, _, text in elements.found if tag != "script")
    assert len(elements.of("noscript")) == 1
    asked = [frame.question for frame in frames if frame.question is not None]
    assert asked
    for frame in frames:
        for part in frame.text.split("\n\n"):
            assert " ".join(part.replace("`", "").split()) in texts
        for view in frame.views:
            for step in view.steps:
                assert step.words in texts
    for question in asked:
        assert question.question in texts
        assert {*question.answers} <= {text for _, text in elements.of("li")}
        right = f"✓ {'abcdefghi'[question.right]}) {question.answers[question.right]}. "
        assert right in texts
        assert question.because.replace("`", "") in texts
    [last] = frames[-1].views
    cells = [text for tag, _, text in elements.found if tag == "td"]
    for name, value in last.counters.items():
        assert cells[cells.index(name) + 1] == count(value)


def test_a_hostile_lesson_is_text_everywhere() -> None:
    lesson = hostile_lesson()
    page = lesson_page(lesson, play(lesson).all())
    elements = Elements(page)
    assert {tag for tag, _, _ in elements.found}.isdisjoint({"img", "svg", "iframe", "b9"})
    assert page.count("<script") == 7
    assert not CONTROLS.search(page)
    for line in lines_of(page):
        assert not CONTROLS.search("".join(strings_in(line)))
    assert clean(HOSTILE["title"]) in [text for _, text in elements.of("h1")]
    assert [text for _, text in elements.of("title")] == [clean(HOSTILE["title"])]


def strings_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for one in value.values() for text in strings_in(one))]
    if isinstance(value, list):
        return [text for one in value for text in strings_in(one)]
    return [value] if isinstance(value, str) else []


@given(
    st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("<>&\"'`/\n\r\x1b\u202e"))),
    st.lists(st.text(max_size=9), min_size=2, max_size=9),
)
@settings(max_examples=53)
def test_any_words_come_through_harmless(words: str, answers: list[str]) -> None:
    lesson = lesson_of(
        parse_scenario(
            f"title = {quoted(words)}\n[lesson]\ngoal = {quoted(words)}\n[[step]]\nscan = 1\n"
            f"say = {quoted(words)}\n[step.ask]\nquestion = {quoted(words)}\n"
            f"answers = [{', '.join(map(quoted, answers))}]\nright = 1\n"
            f"because = {quoted(words)}\n",
            "lesson.toml",
        ),
        "lesson",
    )
    page = lesson_page(lesson, play(lesson).all())
    elements = Elements(page)
    assert page.count("<script") == 7
    assert not {tag for tag, _, _ in elements.found} - EXPECTED
    assert not CONTROLS.search(page)
    [stop] = [stop for stop in stops_of(page) if stop["question"]]
    assert stop["question"]["question"] == "\n".join(
        clean(line.rstrip("\r").expandtabs(1)) for line in words.split("\n")
    )
    assert len(stop["question"]["answers"]) == len(answers)


EXPECTED = {
    "html", "head", "meta", "title", "link", "style", "script", "body", "a", "header", "div", "h1",
    "p", "button", "main", "noscript", "section", "details", "summary", "h3", "code", "ol", "ul",
    "li", "bdi", "b", "table", "caption", "thead", "tbody", "tr", "th", "td", "footer", "abbr",
}  # fmt: skip


def quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's, but for the one that it leaves out."""
    plain = text.encode(errors="replace").decode()
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")


def test_a_lesson_cut_short_says_so() -> None:
    lesson = read_lesson(find_lesson("why-two-scans"))
    frames = play(lesson).all(7)
    page = lesson_page(lesson, frames, cut=True)
    assert "these are the first 7 stops: ksmtrace learn why-two-scans goes on" in page
    assert "these are the first" not in lesson_page(lesson, frames)


def test_a_recording_of_many_stops_stays_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.html"
    assert main(["learn", str(RECORDINGS / "volatile-pages.ksm"), "--html", str(path)]) == 0
    assert "1,540 stops" in capsys.readouterr().err
    assert path.stat().st_size < 1 << 20
    assert len(lines_of(path.read_text())) == 1 + 1540


def test_of_very_long_lists_the_surroundings_are_kept() -> None:
    lesson = read_lesson(find_lesson("uksm"))
    frames = play(lesson).all()
    page = lesson_page(lesson, frames)
    told = frames_as_dicts(frames)
    long = 0
    for stop, whole in zip(lines_of(page)[1:], told, strict=True):
        for view, all_of_it in zip(stop["views"], whole["views"], strict=True):
            assert len(view["pages"]) == len(all_of_it["pages"])
            assert view["events"] == all_of_it["events"][:MOST_EVENTS]
            assert len(view["events"]) + view["events_left_out"] == len(all_of_it["events"])
            for tree, whole_tree in zip(view["trees"], all_of_it["trees"], strict=True):
                first, kept = tree["left_out_before"], len(tree["listed"])
                assert tree["listed"] == whole_tree["listed"][first : first + kept]
                assert first + kept + tree["left_out_after"] == len(whole_tree["listed"])
                assert kept <= MOST_LISTED
                long += len(whole_tree["listed"]) > MOST_LISTED
    assert long
    assert len(page) < 1 << 20


def test_an_existing_page_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.html"
    path.write_text("mine")
    assert main(["learn", "why-two-scans", "--html", str(path)]) != 0
    assert path.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert main(["learn", "why-two-scans", "--html", str(path), "--force"]) == 0
    assert path.read_text().startswith("<!doctype html>")
