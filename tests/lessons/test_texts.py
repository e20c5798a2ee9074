"""The lessons that come with ksmtrace: complete, readable, and true wherever they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.lab.disappointments import disappointments
from ksmtrace.lab.on_model import ModelStage, perform_on_model
from ksmtrace.lab.on_uksm import perform_on_uksm
from ksmtrace.lab.operations import Batch, Migrate, Run, Scan, SwapOut
from ksmtrace.lab.plan import BESIDE, Plan
from ksmtrace.lab.scenario import parse_scenario
from ksmtrace.lab.where import Where, parse_where
from ksmtrace.lessons.lesson import (
    _ASK_KEYS,
    _KEYS,
    Lesson,
    lesson_of,
    read_lesson,
    shipped_lessons,
)
from ksmtrace.model.rbtree import RedBlackNode, RedBlackTree

ROOT = Path(__file__).parents[2]
LESSONS = {lesson.name: lesson for lesson in shipped_lessons()}
SHOWN = [(name, place) for name, lesson in LESSONS.items() for place in lesson.places]
TOPICS = {
    "why-two-scans", "the-process-of-2011", "the-unstable-tree", "volatile-pages", "copy-on-write",
    "sharing-limit", "zero-pages", "smart-scan", "pages-to-scan", "the-advisor", "fork-and-exit",
    "numa-trees", "fast-changing-pages", "releases-to-6.6", "releases-to-6.12", "pages-sharing",
    "uksm", "ksm-against-uksm", "nothing-merges",
}  # fmt: skip
MODEL = parse_where("ksm:6.18")
LONGEST = {"say": 300, "intro": 300, "question": 200, "because": 330, "answer": 72}


@pytest.fixture(autouse=True)
def _built_in_costs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def texts(lesson: Lesson) -> Iterator[tuple[str, str, str]]:
    """Every text of a lesson: its kind, where it stands, and itself."""
    for step in lesson.plan.steps:
        for kind in ("say", "intro"):
            yield kind, step.step.where, step.step.values.get(kind, "")
        if step.number in lesson.questions:
            question = lesson.questions[step.number]
            yield "question", step.step.where, question.question
            yield "because", step.step.where, question.because
            yield from (("answer", step.step.where, answer) for answer in question.answers)


def test_there_is_a_lesson_for_each_topic() -> None:
    assert LESSONS.keys() >= TOPICS


def test_they_are_numbered_from_one_without_a_gap() -> None:
    assert [lesson.number for lesson in shipped_lessons()] == list(range(1, len(LESSONS) + 1))


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_has_all_that_a_learner_needs(name: str) -> None:
    lesson = LESSONS[name]
    assert lesson.title != lesson.plan.scenario.name
    assert lesson.about
    assert re.match(r"[A-Z][a-z]+ .*\.$", lesson.goal)
    assert lesson.minutes is not None
    assert 3 <= lesson.minutes <= 15
    assert len(lesson.closing) > 200
    assert len(lesson.questions) >= 3
    assert all((ROOT / page).is_file() for page in lesson.reading)


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_s_texts_can_be_read_at_a_glance(name: str) -> None:
    for kind, where, text in texts(LESSONS[name]):
        assert len(text) <= LONGEST[kind], f"{where}: {kind} has {len(text)} characters"
        assert "\n" not in text, where
        assert not re.search(r"(^|\s)[*_]\w", text), f"{where}: plain text has no markup: {text}"
        assert kind == "answer" or not text or text[-1] in ".?)", f"{where}: {text}"


@pytest.mark.parametrize("name", LESSONS)
def test_answers_differ_and_the_right_one_is_not_always_in_the_same_place(name: str) -> None:
    questions = list(LESSONS[name].questions.values())
    assert all(len(set(question.answers)) == len(question.answers) for question in questions)
    assert len({question.right for question in questions}) > 1


@pytest.mark.parametrize("name", LESSONS)
def test_whatever_the_scanner_does_is_expected(name: str) -> None:
    for step in LESSONS[name].plan.steps:
        works = any(isinstance(done, Scan | Batch | Run) for done in step.operations)
        assert step.expect or not works, f"{step.step.where}: what must be seen after it?"
        assert step.say or not works, f"{step.step.where}: what has happened?"


@pytest.mark.parametrize("name", [name for name, lesson in LESSONS.items() if lesson.live])
def test_a_live_lesson_asks_nothing_that_a_machine_may_not_have(name: str) -> None:
    lesson = LESSONS[name]
    operations = [done for step in lesson.plan.steps for done in step.operations]
    assert [place.name for place in lesson.places] == ["ksm:6.18"]
    assert not any(isinstance(done, Run | Migrate | SwapOut) for done in operations)
    assert not any("node" in step.does for step in lesson.plan.steps)


@pytest.mark.parametrize(("name", "place"), SHOWN, ids=lambda one: getattr(one, "name", one))
def test_what_a_lesson_expects_is_what_one_sees(name: str, place: Where) -> None:
    plan = LESSONS[name].plan
    assert [str(one) for one in unmet(plan, place)] == []


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("why-two-scans", "ksm:6.10"),
        ("smart-scan", "ksm:6.6"),
        ("zero-pages", "ksm:6.10"),
        ("fork-and-exit", "ksm:6.11"),
        ("sharing-limit", "ksm:2011"),
    ],
)
def test_elsewhere_one_would_see_something_else(name: str, place: str) -> None:
    assert unmet(LESSONS[name].plan, parse_where(place))


def unmet(plan: Plan, place: Where) -> list[Any]:
    if place.uksm is not None:
        return disappointments(plan, perform_on_uksm(plan, place), "uksm")
    return list(disappointments(plan, perform_on_model(plan, place.profile)))


class Leaf(RedBlackNode):
    """A node with a key."""

    __slots__ = ("key",)

    def __init__(self, key: int) -> None:
        self.key = key


def height(node: RedBlackNode | None) -> int:
    return 0 if node is None else 1 + max(height(node.left), height(node.right))


def sorted_tree(nodes: int) -> RedBlackTree[Leaf]:
    """A tree into which keys came in order; the greatest is always at the right end."""
    tree: RedBlackTree[Leaf] = RedBlackTree()
    for key in range(nodes):
        last: Any = tree.root
        while last is not None and last.right is not None:
            last = last.right
        tree.insert(Leaf(key), last, left=False)
    return tree


def test_the_heights_that_the_lesson_of_2011_tells() -> None:
    plan = LESSONS["the-process-of-2011"].plan
    (last,) = [step for step in plan.steps if "height is 6" in step.say]
    for kernel in ("ksm:2011", "ksm:6.18"):
        stage = ModelStage(plan, parse_where(kernel).profile, on=kernel)
        stage.perform()
        (tree,) = stage.scanner._cycle.visit.unstable.all_trees()
        assert height(tree.root) == 6
    assert stage.counters()["pages_unshared"] == 18
    assert "the bound for 18 is 8.5" in last.say
    assert round(2 * math.log2(18 + 1), 1) == 8.5
    assert math.ceil(math.log2(18 + 1)) == 5


@pytest.mark.parametrize("doublings", range(2, 14))
def test_sorted_keys_nearly_reach_the_bound_as_that_lesson_says(doublings: int) -> None:
    """It grows at 3 * 2**n - 2 keys, by two a doubling: 37 from 786,430 to 1,048,573 keys."""
    enough = 3 * 2 ** (doublings - 1) - 2
    assert height(sorted_tree(enough).root) == 2 * doublings - 1
    assert height(sorted_tree(enough - 1).root) == 2 * doublings - 2


def scenario(knobs: str, *steps: str) -> Plan:
    """Steps in one line each, as in a scenario file."""
    text = f'title = "Said in a lesson"\nknobs = {{ {knobs} }}\n'
    text += "".join("[[step]]\n" + step.replace("; ", "\n") + "\n" for step in steps)
    return lesson_of(parse_scenario(text, "said.toml"), "said").plan


def twins(before: int, *steps: str) -> Plan:
    """Smart scan: a page from the beginning, and an equal one that appears after some scans."""
    return scenario(
        "smart_scan = 1",
        'map = "a.old"; pages = 1', 'write = "a.old"; content = "melon"', f"scan = {before}",
        'map = "a.new"; pages = 1', 'write = "a.new"; content = "melon"', *steps,
    )  # fmt: skip


def test_some_twins_never_meet_and_others_as_late_as_the_lesson_says() -> None:
    late = {0: 14, 1: 4, 2: 3, 3: 2, 5: 9, 8: 6}
    for phase in range(9):
        for before in (9 + phase, 18 + phase):
            after = late.get(phase)
            steps = (
                (f"scan = {after - 1}; expect = {{ pages_shared = 0 }}",
                 "scan = 1; expect = { pages_shared = 1 }")
                if after
                else ("scan = 100; expect = { pages_shared = 0, events = [] }",)
            )  # fmt: skip
            assert [str(one) for one in unmet(twins(before, *steps), MODEL)] == [], before
    closing = LESSONS["smart-scan"].closing
    assert "six of nine lead to a merge, after 2, 3, 4, 6, 9 or 14 scans, three to none" in closing
    assert sorted(late.values()) == [2, 3, 4, 6, 9, 14]


def test_memory_filled_anew_begins_at_age_0_while_a_write_changes_nothing() -> None:
    """The old page is visited in scans 32 and 41; filled before 38, the new one in 38 to 41."""
    rewritten = twins(
        13, "scan = 18", 'write = "a.new"; content = "plum"', "scan = 9",
        'write = "a.new"; content = "melon"',
        "scan = 1000; expect = { pages_shared = 0, events = [] }",
    )  # fmt: skip
    assert unmet(rewritten, MODEL) == []
    anew = twins(
        13, "scan = 17", 'discard = "a.new"', "scan = 7", 'write = "a.new"; content = "melon"',
        "scan = 3; expect = { full_scans = 40, pages_shared = 0 }",
        "scan = 1; expect = { pages_shared = 1 }",
    )  # fmt: skip
    assert [str(one) for one in unmet(anew, MODEL)] == []


def test_what_a_late_6_1_does_with_inaccessible_pages_is_as_the_lesson_says() -> None:
    plan = scenario(
        "smart_scan = 0",
        'map = "a.guard"; pages = 2', 'write = "a.guard"; content = "plum"',
        'map = "a.heap"; pages = 2', 'write = "a.heap"; content = "melon"',
        "scan = 2; expect = { pages_shared = 2, pages_sharing = 2 }",
        'write = "a.guard"; content = "lemon"', 'protect = "a.guard"; access = "none"',
        'map = "b.guard"; pages = 1', 'write = "b.guard"; content = "melon"',
        'protect = "b.guard"; access = "none"',
        "scan = 4; expect = { pages_shared = 1, pages_sharing = 2 }",
    )  # fmt: skip
    assert [str(one) for one in unmet(plan, parse_where("ksm:6.1.192"))] == []
    assert unmet(plan, parse_where("ksm:6.1"))
    assert unmet(plan, parse_where("ksm:6.0"))


def test_full_ksm_pages_may_become_one_for_each_mapping_as_the_lesson_says() -> None:
    plan = scenario(
        "smart_scan = 0, max_page_sharing = 4",
        'map = "a.heap"; pages = 40', 'write = "a.heap"; content = "melon"',
        "scan = 2; expect = { pages_shared = 10, pages_sharing = 30 }",
        *(f'discard = "a.heap[{first}:{first + 3}]"' for first in range(1, 40, 4)),
        "scan = 5; expect = { pages_shared = 10, pages_sharing = 0, events = [] }",
    )  # fmt: skip
    assert [str(one) for one in unmet(plan, MODEL)] == []


def test_a_moved_ksm_page_with_one_mapping_leaves_the_books_as_the_lesson_says() -> None:
    plan = scenario(
        "smart_scan = 0, merge_across_nodes = 0",
        'map = "a.heap"; pages = 2', 'write = "a.heap"; content = "melon"',
        'map = "b.heap"; pages = 2; node = 1', 'write = "b.heap"; content = "melon"',
        "scan = 2; expect = { pages_shared = 2, pages_sharing = 2 }",
        'discard = "a.heap[0]"', "scan = 1; expect = { pages_shared = 2, pages_sharing = 1 }",
        'migrate = "a.heap[1]"; node = 1',
        *(2 * ('scan = 1; expect = { pages_shared = 1, events = ["ADD! a.heap[1]"] }',)),
    )  # fmt: skip
    assert [str(one) for one in unmet(plan, MODEL)] == []


def test_a_lesson_file_is_read_from_anywhere(tmp_path: Path) -> None:
    copy = tmp_path / "mine.toml"
    copy.write_text(Path(LESSONS["why-two-scans"].plan.scenario.name).read_text(encoding="utf-8"))
    assert read_lesson(copy).questions == LESSONS["why-two-scans"].questions


TEACHING = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
EXERCISES = dict(re.findall(r'```toml\n(title = "([^"]+)".*?)```', TEACHING, re.DOTALL))


@pytest.mark.parametrize("text", EXERCISES, ids=EXERCISES.get)
def test_the_figures_of_the_teacher_s_page_are_what_one_sees(text: str) -> None:
    lesson = lesson_of(parse_scenario(text, "docs/teaching.md"), "teaching")
    assert any(step.expect for step in lesson.plan.steps)
    for place in lesson.places:
        assert [str(one) for one in unmet(lesson.plan, place)] == []


def test_there_are_six_exercises_and_an_example_in_it() -> None:
    assert len(EXERCISES) == 7
    assert len(re.findall(r"^### \d", TEACHING, re.MULTILINE)) == 6


def test_the_hour_has_sixty_minutes_and_names_lessons_that_there_are() -> None:
    table = re.findall(r"^\| (\d+) to (\d+) \| (.*)", TEACHING, re.MULTILINE)
    assert [int(begin) for begin, _end, _what in table] == [
        0, *(int(end) for _begin, end, _what in table[:-1])
    ]  # fmt: skip
    assert int(table[-1][1]) == 60
    named = set(re.findall(r"ksmtrace learn ([a-z][a-z0-9.-]+)", TEACHING)) - {"my.toml"}
    assert named <= LESSONS.keys()


def test_every_key_of_a_lesson_is_told() -> None:
    for key in (*_KEYS, *_ASK_KEYS, *BESIDE):
        assert f"`{key}`" in TEACHING or key == "refused", key


def test_code_in_the_teacher_s_page_fits_a_terminal() -> None:
    code = re.findall(r"```toml\n(.*?)```", TEACHING, re.DOTALL)
    code += re.findall(r"^    (\S.*)$", TEACHING, re.MULTILINE)
    assert max(len(line) for block in code for line in block.splitlines()) <= 80
