"""Stops of lessons as text: they fit, say what was decided, and are harmless."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.lab.scenario import parse_scenario
from ksmtrace.lessons.frames import Frame, Kind
from ksmtrace.lessons.lesson import Lesson, find_lesson, lesson_of, read_lesson
from ksmtrace.lessons.play import play
from ksmtrace.model.decisions import Rule
from ksmtrace.model.scene import Node, Tree
from ksmtrace.views.lesson import Look, render_frame
from ksmtrace.views.lesson_data import frame_as_dict
from ksmtrace.views.lesson_words import content_words
from ksmtrace.views.tree import draw_tree


def shown(lesson: Lesson, frame: Frame, look: Look | None = None) -> str:
    return "\n".join(line.plain for line in render_frame(lesson, frame, look or Look(120)))


def test_what_a_stop_must_say_is_there_in_the_least_of_usual_windows() -> None:
    """80x24 has room for the words, the decisions, the last rule, both trees."""
    lesson = read_lesson(find_lesson("why-two-scans"))
    for frame in play(lesson).all():
        look = Look(80, 24, keys="keys")
        text = " ".join(shown(lesson, frame, look).split())
        if frame.kind in (Kind.DONE, Kind.BEFORE):
            assert " ".join(frame.text.split()) in text
        if frame.question is not None:
            for answer in frame.question.answers:
                assert answer in text
        if frame.kind is Kind.VISIT:
            [view] = frame.views
            for step in view.steps:
                assert step.words in text
            assert view.steps[-1].rule.value.source in text
            assert "stable tree:" in text
            assert "unstable tree:" in text


def test_the_right_answer_and_a_wrong_one_are_marked_without_colour() -> None:
    lesson = read_lesson(find_lesson("why-two-scans"))
    frame = next(frame for frame in play(lesson).all() if frame.question is not None)
    question = frame.question
    assert question is not None
    wrong = (question.right + 1) % len(question.answers)
    plain = shown(lesson, frame)
    assert "✓" not in plain
    assert question.because not in plain
    answered = shown(lesson, frame, Look(120, answer=wrong, answered=True))
    assert f"✓ {'abcdefghi'[question.right]}) " in answered
    assert f"✗ {'abcdefghi'[wrong]}) " in answered
    assert " ".join(question.because.split()) in " ".join(answered.split())


def test_hostile_words_of_a_lesson_are_shown_and_not_obeyed() -> None:
    text = (
        'title = "[red]x[/red]\\u001b[2J\\u202etxt"\n[lesson]\ngoal = "\\u001b]0;owned\\u0007"\n'
        '[[step]]\nmap = "a.heap"\npages = 1\nsay = "[bold]\\u0007 \\u001b[31m"\n'
    )
    lesson = lesson_of(parse_scenario(text, "x"), "x")
    for frame in play(lesson).all():
        told = shown(lesson, frame)
        assert all(c.isprintable() or c == "\n" for c in told)
    assert "[red]x[/red]" in shown(lesson, play(lesson).all()[0])


def test_every_rule_that_can_be_shown_has_a_sentence_and_a_source() -> None:
    for rule in Rule:
        assert rule.value.says.endswith(".")
        assert rule.value.source


def test_data_of_a_stop_holds_what_the_screen_shows() -> None:
    lesson = read_lesson(find_lesson("why-two-scans"))
    for frame in play(lesson).all():
        told = frame_as_dict(frame)
        [view] = told["views"]
        text = shown(lesson, frame, Look(200))
        for decision in view["decisions"]:
            assert decision["words"] in text
        for page in view["pages"] if frame.kind not in (Kind.OPENING, Kind.CLOSING) else ():
            assert page["stands"] in text
            assert page["looked_at"] == (page["page"] == view["page"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"apple", "apple"),
        (b"", "zeroes"),
        (None, "–"),
        (b"unique 000000017", "unique 17"),
        (b"sequence 000000000", "sequence 0"),
        (b"apple\0\0\0more", "apple+"),
        (b"\x01\x02\xff", "0x0102ff"),
        ("häß".encode(), "0x68c3a4c39f"),
        (b"x" * 64, "x" * 19 + "~"),
    ],
)
def test_contents_in_words(content: bytes | None, words: str) -> None:
    assert content_words(content) == words


TREES = st.recursive(
    st.none(),
    lambda inner: st.builds(
        lambda left, right, red: Node("", b"", red=red, left=left, right=right),
        inner, inner, st.booleans(),
    ),
    max_leaves=40,
)  # fmt: skip


def named(root: Node | None) -> tuple[Node | None, list[Node]]:
    """The same tree with keys in order, and its places in order."""
    places: list[Node] = []

    def copy(node: Node | None) -> Node | None:
        if node is None:
            return None
        left = copy(node.left)
        number = len(places)
        places.append(node)
        right = copy(node.right)
        places[number] = Node(f"p{number}", b"%03d" % number, red=node.red, left=left, right=right)
        return places[number]

    return copy(root), places


def depth_of(root: Node, key: str) -> int:
    def find(node: Node | None, depth: int) -> int:
        if node is None:
            return -1
        if node.key == key:
            return depth
        return max(find(node.left, depth + 1), find(node.right, depth + 1))

    return find(root, 0)


@settings(deadline=None)
@given(TREES, st.integers(20, 200))
def test_a_drawn_tree_has_each_place_in_its_row_and_in_order(root: Node | None, width: int) -> None:
    tree_root, places = named(root)
    tree = Tree("unstable", 0, len(places), len(places), None, tree_root)
    rows = [row.plain for row in draw_tree(tree, lambda n: n.key, width)]
    if tree_root is None:
        assert rows == []
        return
    assert max(map(len, rows)) <= width or width < 30
    columns = {}
    for number, place in enumerate(places):
        row = depth_of(tree_root, place.key)
        found = [r for r in (row,) if r < len(rows) and _has(rows[r], place.key)]
        if found:
            columns[number] = rows[row].index(place.key)
    assert columns
    in_order = [columns[number] for number in sorted(columns)]
    assert in_order == sorted(in_order)
    if len(columns) < len(places):
        # Cut for lack of room: then places say that there is more below.
        assert any("…" in row for row in rows)


def _has(row: str, key: str) -> bool:
    words = row.replace("(", " ").replace(")", " ").replace("…", " ").replace("─", " ")
    return key in words.replace("┌", " ").replace("┐", " ").split()
