"""Lessons and their stops as plain data with stable names: for --json, and for pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ksmtrace.lessons.frames import Frame, View
from ksmtrace.lessons.lesson import Lesson
from ksmtrace.model.scene import Node, Tree
from ksmtrace.views.lesson_words import (
    USUAL,
    changed_counters,
    checksum_words,
    content_words,
    does_words,
    ksm_page_names,
    place_words,
    region_of,
    standing_words,
    tree_words,
    where_words,
)


def lesson_as_dict(lesson: Lesson) -> dict[str, Any]:
    """What a lesson is: {"name", "number", "title", "about", "goal", "minutes", "on", ...}."""
    return {
        "name": lesson.name,
        "number": lesson.number,
        "title": lesson.title,
        "about": lesson.about,
        "goal": lesson.goal,
        "minutes": lesson.minutes,
        "on": [place.name for place in lesson.places],
        "live": lesson.live,
        "reading": list(lesson.reading),
        "questions": len(lesson.questions),
        "steps": len(lesson.plan.steps),
    }


def frames_as_dicts(frames: Iterable[Frame]) -> list[dict[str, Any]]:
    """Every stop; see `frame_as_dict`."""
    return [frame_as_dict(frame) for frame in frames]


def frame_as_dict(frame: Frame) -> dict[str, Any]:
    """A stop: {"kind", "step", "scan", "where", "does", "text", "question", "views": [...]}.

    A view is {"on", "page", "decisions", "counters", "changed", "events", "trees", "pages", ...}.
    """
    question = frame.question
    return {
        "kind": frame.kind.value,
        "step": frame.step,
        "scan": frame.scan,
        "visit": frame.visit,
        "visits": frame.visits,
        "where": where_words(frame),
        "does": does_words(frame.does),
        "text": frame.text,
        "note": frame.note,
        "unmet": list(frame.unmet),
        "question": None
        if question is None
        else {
            "question": question.question,
            "answers": list(question.answers),
            "right": question.right,
            "because": question.because,
        },
        "views": [_view(frame, view) for view in frame.views],
    }


def _view(frame: Frame, view: View) -> dict[str, Any]:
    told: dict[str, Any] = {
        "on": view.on,
        "page": view.page,
        "decisions": [
            {
                "rule": step.rule.name.lower(),
                "words": step.words,
                "says": step.rule.value.says,
                "source": step.rule.value.source,
                "merges": step.rule.value.good,
                "tree": step.tree,
                "path": list(step.path),
            }
            for step in view.steps
        ],
        "counters": dict(view.counters),
        "usual": [name for name in USUAL if name in view.counters],
        "changed": [list(change) for change in changed_counters(frame, view)],
        "events": list(view.events),
        "refused": view.refused,
        "trees": [],
        "pages": [],
        "pages_left_out": 0,
        "figures": {},
        "groups": {},
    }
    if view.scene is not None:
        names = ksm_page_names(view)
        told["trees"] = [_tree(view, tree) for tree in view.scene.trees]
        told["pages"] = [
            {
                "page": view.name((page.mm, page.address)),
                "holds": content_words(page.content),
                "checksum": checksum_words(page),
                "age": page.age,
                "skips": page.skips,
                "standing": page.standing.name.lower(),
                "stands": standing_words(page, names),
                "looked_at": (page.mm, page.address) == view.visit,
            }
            for page in view.scene.pages
        ]
        told["pages_left_out"] = view.scene.left_out
        told["figures"] = dict(view.scene.figures)
        told["groups"] = {
            title: [_row(view, row) for row in rows] for title, rows in view.scene.groups.items()
        }
    return told


def _row(view: View, row: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value
        if isinstance(value, str)
        else " ".join(region_of(view.name(member)) for member in value)
        for key, value in row.items()
    }


def _tree(view: View, tree: Tree) -> dict[str, Any]:
    return {
        "kind": tree.kind,
        "node": tree.nid,
        "words": tree_words(tree),
        "places": tree.nodes,
        "pages": tree.pages,
        "height": tree.height,
        "root": _node(view, tree.root),
        "listed": [_node(view, node) for node in tree.listed],
    }


def _node(view: View, node: Node | None) -> dict[str, Any] | None:
    if node is None:
        return None
    return {
        "key": node.key,
        "label": place_words(node),
        "red": node.red,
        "dead": node.dead,
        "hidden": node.hidden,
        "pages": [view.name(member) for member in node.members],
        "dups": [len(dup) for dup in node.dups],
        "left": _node(view, node.left),
        "right": _node(view, node.right),
    }
