"""What a lesson's stops show is what the scanner does without being watched."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksmtrace.kernel.costs import DEFAULT
from ksmtrace.lab.families import FAMILIES
from ksmtrace.lab.needs import OWN_PACE, needs_of
from ksmtrace.lab.notation import without_scans
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.on_uksm import UksmStage
from ksmtrace.lab.performance import Performance
from ksmtrace.lab.random_scenarios import random_scenario
from ksmtrace.lab.scenario import Scenario, ScenarioError, Step
from ksmtrace.lab.where import Where
from ksmtrace.lessons.frames import Frame, Kind, View
from ksmtrace.lessons.lesson import Lesson, lesson_of, shipped_lessons
from ksmtrace.lessons.play import play
from ksmtrace.model.decisions import Rule
from ksmtrace.model.scene import Node, Standing, Tree
from ksmtrace.views.lesson import Look, render_frame

LESSONS = shipped_lessons()
SIZES = [(80, 24), (60, 16), (200, 60)]


def plain(lesson: Lesson, place: Where) -> Performance:
    if place.uksm is not None:
        return UksmStage(lesson.plan, place, costs=DEFAULT).perform()
    return perform_on_model(lesson.plan, place.profile, on=place.name)


def views_on(frames: list[Frame], on: str) -> Iterator[tuple[Frame, View]]:
    for frame in frames:
        for view in frame.views:
            if view.on == on:
                yield frame, view


def agrees(lesson: Lesson) -> list[Frame]:
    """Check a lesson's frames against unwatched performances; returns them."""
    frames = play(lesson).all()
    for place in lesson.places:
        if place.uksm is None and OWN_PACE in needs_of(lesson.plan):
            # Nobody watches KSM at its own pace: that would be the same performance again.
            continue
        performance = plain(lesson, place)
        shown = [view for frame, view in views_on(frames, place.name) if frame.kind is Kind.DONE]
        last = {seen.step: seen for seen in performance.observations}
        done = [f for f in frames if f.kind is Kind.DONE and f.step in last]
        ends = {frame.step: frame for frame in done}
        for step, frame in ends.items():
            [view] = [view for view in frame.views if view.on == place.name]
            assert dict(view.counters) == dict(last[step].counters), (step, place.name)
        told = [line for _, view in views_on(frames, place.name) for line in view.events]
        seen = [line for o in performance.observations for line in without_scans(o.told)]
        assert told == seen
        assert shown
    return frames


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_every_lesson_runs_to_its_end_and_shows_what_the_scanners_do(lesson: Lesson) -> None:
    frames = agrees(lesson)
    assert [frame.kind for frame in frames].count(Kind.OPENING) == 1
    assert frames[-1].kind is Kind.CLOSING
    assert [frame.unmet for frame in frames if frame.unmet] == []
    asked = [frame.question for frame in frames if frame.question is not None]
    assert asked == list(lesson.questions.values())
    for step in lesson.plan.steps:
        assert any(frame.step == step.number and frame.text == step.say for frame in frames)
    for frame in frames:
        fits_every_window(lesson, frame)


def fits_every_window(lesson: Lesson, frame: Frame) -> None:
    for width, height in SIZES:
        for answered in (False, True) if frame.question else (False,):
            look = Look(width, height, answer=0, answered=answered, keys="k" * 99, position="7")
            lines = render_frame(lesson, frame, look)
            assert len(lines) == height
            assert max(line.cell_len for line in lines) <= width
    assert all(line.cell_len <= 80 for line in render_frame(lesson, frame, Look(80)))


@settings(max_examples=61, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(FAMILIES),
    st.integers(0, 10_000),
    st.sampled_from(["ksm:6.18", "ksm:6.10", "ksm:2011", "ksm:4.19", "uksm:full", "uksm:quiet"]),
)
def test_watching_changes_nothing(family: object, seed: int, on: str) -> None:
    scenario = random_scenario(family, seed)  # type: ignore[arg-type]
    try:
        lesson = lesson_of(scenario, scenario.name, [on])
        frames = agrees(lesson)
    except ScenarioError:
        return
    for _, view in views_on(frames, on):
        check_scene(view)


def nodes_of(tree: Tree) -> list[Node]:
    found: list[Node] = []

    def walk(node: Node | None) -> int:
        if node is None:
            return 0
        left = walk(node.left)
        found.append(node)
        right = walk(node.right)
        for child in (node.left, node.right):
            assert not (node.red and child is not None and child.red)
        return 1 + max(left, right)

    height = walk(tree.root)
    if tree.height is not None and tree.root is not None and not hidden(tree.root):
        assert height == tree.height <= tree.bound
        assert len(found) == tree.nodes
    return found


def hidden(node: Node | None) -> bool:
    return node is not None and (node.hidden or hidden(node.left) or hidden(node.right))


def check_scene(view: View) -> None:
    """A scene must not contradict itself, nor the counters."""
    assert view.scene is not None
    of_ksm = view.on.startswith("ksm:")
    for tree in view.scene.trees:
        if tree.kind == "stable" and of_ksm:
            # A chain whose last page is gone has no content until it is pruned.
            alive = [node for node in nodes_of(tree) if not node.dead]
            contents = [node.content for node in alive if node.content is not None]
            assert contents == sorted(contents)
    rules_hold(view)
    if view.scene.left_out or not of_ksm:
        return
    standing = [page.standing for page in view.scene.pages]
    members = sum(
        len(n.members) for t in view.scene.trees if t.kind == "stable" for n in nodes_of(t)
    )
    shared = view.counters["pages_shared"] + view.counters["pages_sharing"]
    # Those that moved to another node are in no tree for a while.
    assert members <= shared
    assert standing.count(Standing.MERGED) <= shared
    keys: dict[str, set[str]] = {"stable": set(), "unstable": set()}
    for tree in view.scene.trees:
        keys[tree.kind] |= {node.key for node in nodes_of(tree)}
    for step in view.steps:
        if step.rule in (Rule.UNSTABLE_INSERTED, Rule.UNSTABLE_BLOCKED):
            # Nothing else left the tree in this visit: what was compared with is there.
            assert set(step.path) <= keys["unstable"]


def rules_hold(view: View) -> None:
    """What a visit is said to have done is what has become of its page."""
    assert view.scene is not None
    page = next((p for p in view.scene.pages if (p.mm, p.address) == view.visit), None)
    if page is None or not view.steps:
        return
    last = view.steps[-1].rule
    if last in (Rule.ALREADY_MERGED, Rule.UKSM_ALREADY, Rule.UKSM_JOINED, Rule.UKSM_TWIN):
        assert page.standing is Standing.MERGED
    elif last in (Rule.ZERO_PAGE, Rule.UKSM_ZERO):
        assert page.standing is Standing.ZERO
    elif last in (Rule.UNSTABLE_INSERTED, Rule.UKSM_WAITS, Rule.UKSM_WAITS_BESIDE):
        assert page.standing is Standing.UNSTABLE
    elif last in (Rule.FIRST_SIGHT, Rule.CHANGED, Rule.SKIPPED, Rule.UNSTABLE_BLOCKED):
        assert page.standing in (Standing.WAITS, Standing.INHERITED)
    if view.on.startswith("uksm") and last is Rule.UKSM_TWIN:
        assert any(event.startswith("NEW ") for event in view.events)
    if view.on.startswith("uksm") and last is Rule.UKSM_JOINED:
        assert not any(event.startswith("NEW ") for event in view.events)
    new = any(event.startswith("NEW ") for event in view.events)
    assert new == (Rule.BECAME_KSM_PAGE in {s.rule for s in view.steps}) or not view.on.startswith(
        "ksm:"
    )


def scenario(*steps: dict[str, object]) -> Scenario:
    told = tuple(Step(f"x:{n}", values) for n, values in enumerate(steps))
    return Scenario("x", "x", steps=told)


SAME = ({"map": "a.heap", "pages": 5}, {"write": "a.heap", "content": "same"})


def test_each_visit_is_a_stop_and_scans_can_be_one() -> None:
    visits = play(lesson_of(scenario(*SAME, {"scan": 2}), "x")).all()
    assert [f.visit for f in visits if f.kind is Kind.VISIT] == [1, 2, 3, 4, 5] * 2
    assert [f.scan for f in visits if f.kind is Kind.DONE] == [0, 0, 1, 2]
    scans = play(lesson_of(scenario(*SAME, {"scan": 2, "shows": "scans"}), "x")).all()
    assert [f.kind for f in scans if f.step == 3] == [Kind.DONE, Kind.DONE]


def test_more_visits_than_anybody_would_step_through_are_told_in_a_word() -> None:
    many = scenario(
        {"map": "a.heap", "pages": 401}, {"write": "a.heap", "content": "x"}, {"scan": 1}
    )
    frames = play(lesson_of(many, "x")).all()
    assert [f.kind for f in frames if f.step == 3] == [Kind.DONE]
    assert frames[-2].note == "401 visits, not shown one by one"


def test_the_second_visit_of_a_scan_of_equals_tells_its_decisions_and_their_rules() -> None:
    frames = play(lesson_of(scenario(*SAME, {"scan": 2}), "x")).all()
    [second] = [f for f in frames if f.kind is Kind.VISIT and (f.scan, f.visit) == (2, 2)]
    [view] = second.views
    assert view.page == "a.heap[1]"
    assert [step.rule for step in view.steps] == [
        Rule.UNCHANGED,
        Rule.STABLE_NONE,
        Rule.UNSTABLE_TWIN,
        Rule.BECAME_KSM_PAGE,
        Rule.MERGED,
    ]
    assert view.events == ("NEW a.heap[1]", "ADD a.heap[0] to a.heap[1]")
    assert view.changed["pages_sharing"] == (0, 1)
    assert len(view.steps[2].path) == 1


def test_a_scanner_that_cannot_do_a_step_says_so() -> None:
    lesson = lesson_of(scenario(*SAME, {"batch": 2}), "x", ["uksm:full"])
    with pytest.raises(ScenarioError, match="batch"):
        play(lesson).all()
