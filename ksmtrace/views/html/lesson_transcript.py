"""A lesson's stops in words, without scripts: what is read with them off, and what is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from ksmtrace.amounts import count
from ksmtrace.lessons.frames import Frame, Kind
from ksmtrace.lessons.lesson import Lesson
from ksmtrace.lessons.stepping import LETTERS
from ksmtrace.views.html.markup import Column, Html, element, html, joined, paragraph, table

Told = Mapping[str, Any]
_MOST_EVENTS = 12
_MOST_PRINTED = 40
"""Longer runs of visits are left off paper."""


def transcript(lesson: Lesson, stops: Sequence[Frame], told: Sequence[Told]) -> Html:
    """The section of all stops in words. told: the same stops as plain data."""
    content: list[Html] = []
    if lesson.goal:
        content.append(paragraph(element("b", "Afterwards you can: "), _prose(lesson.goal)))
    numbered = list(enumerate(zip(stops, told, strict=True), start=1))
    for visits, run in groupby(numbered, key=lambda one: one[1][0].kind is Kind.VISIT):
        if visits:
            content.append(_visits([(number, stop) for number, (_, stop) in run]))
        else:
            content += [_stop(number, frame, stop) for number, (frame, stop) in run]
    if lesson.reading:
        content.append(paragraph("Read on: ", ", ".join(lesson.reading)))
    if told:
        content.append(_last_counters(told[-1]))
    return element(
        "section",
        Html(
            f'<details id="transcript" open><summary>All {count(len(stops))} stops in words'
            f"</summary>{joined(content)}</details>"
        ),
        cls="card transcript",
        aria_label="All stops in words",
    )


def _paragraphs(text: str) -> Html:
    """Text in which an empty line parts paragraphs."""
    return joined(paragraph(_prose(part)) for part in text.split("\n\n") if part.strip())


def _prose(text: str) -> Html:
    """Text in which backticks enclose code."""
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0:
        return html("`".join(parts))
    return joined(element("code", part) if n % 2 else part for n, part in enumerate(parts))


def _link(number: int) -> Html:
    return element("a", str(number), href=f"#stop-{number}", title=f"show stop {number}")


def _stop(number: int, frame: Frame, stop: Told) -> Html:
    does = ""
    if stop["does"] and frame.kind in (Kind.BEFORE, Kind.DONE):
        does = element("code", stop["does"])
    parts = [
        element("h3", _link(number), " ", stop["where"], " " if does else "", does),
        _paragraphs(frame.text),
    ]
    if frame.note:
        parts.append(paragraph(_prose(frame.note), cls="muted"))
    if frame.question is not None:
        parts.append(_question(stop["question"]))
    for view in stop["views"]:
        if frame.kind not in (Kind.OPENING, Kind.CLOSING) and (words := _happened(view)):
            on = f"{view['on']}: " if len(stop["views"]) > 1 else ""
            parts.append(paragraph(on, words, cls="muted"))
    return element("div", *parts, cls="told")


def _happened(view: Told) -> str:
    words = [f"{name} {count(before or 0)} → {count(now)}" for name, before, now in view["changed"]]
    words += [f"refused: {view['refused']}"] if view["refused"] else []
    events = view["events"][:_MOST_EVENTS]
    if more := len(view["events"]) - len(events):
        events = [*events, f"and {count(more)} more events"]
    return ", ".join([*events, *words])


def _question(question: Told) -> Html:
    answers = (element("li", answer, type="a") for answer in question["answers"])
    right = question["right"]
    return joined(
        [
            paragraph(element("b", "What will happen? "), _prose(question["question"])),
            element("ol", *answers, type="a"),
            element(
                "details",
                element("summary", "The answer"),
                paragraph(element("b", f"✓ {LETTERS[right]}) {question['answers'][right]}. "),
                          _prose(question["because"])),
            ),
        ]
    )  # fmt: skip


def _visits(run: Sequence[tuple[int, Told]]) -> Html:
    lines = (element("li", _link(number), " ", joined(_visit(stop))) for number, stop in run)
    first, last = run[0][1], run[-1][1]
    where = first["where"] if len(run) == 1 else f"{first['where']}, to {last['where']}"
    long = len(run) > _MOST_PRINTED
    return element(
        "div",
        element("h3", where),
        element("ul", *lines, cls="visits long" if long else "visits"),
        paragraph(f"{count(len(run))} visits, left off paper.", cls="on-paper") if long else "",
        cls="told",
    )


def _visit(stop: Told) -> Iterator[Html]:
    several = len(stop["views"]) > 1
    for view in stop["views"]:
        if view["page"] is None:
            continue
        if several:
            yield html(f"{view['on']}: ")
        yield element("bdi", view["page"], cls="mono")
        yield html(f": {'; '.join(one['words'] for one in view['decisions'])}. ")
    if stop["text"]:
        yield _paragraphs(stop["text"])


def _last_counters(stop: Told) -> Html:
    names = dict.fromkeys(name for view in stop["views"] for name in view["counters"])
    columns = [Column("counter", "text"), *(Column(view["on"]) for view in stop["views"])]
    rows = [
        [name, *(count(view["counters"].get(name)) for view in stop["views"])] for name in names
    ]
    return table("Counters at the end", columns, rows)
