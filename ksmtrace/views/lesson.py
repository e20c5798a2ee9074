"""A stop of a lesson as lines of text that fit a terminal: what `ksmtrace learn` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ksmtrace.amounts import count
from ksmtrace.lessons.frames import Frame, Kind, View
from ksmtrace.lessons.lesson import Lesson, Question
from ksmtrace.lessons.stepping import LETTERS
from ksmtrace.processes.identity import clean
from ksmtrace.views.lesson_pages import AROUND, page_map, page_table
from ksmtrace.views.lesson_words import (
    USUAL,
    changed_counters,
    content_words,
    does_words,
    place_words,
    region_of,
    tree_words,
    where_words,
)
from ksmtrace.views.tree import draw_tree

_MOST_EVENTS = 6
_CONSOLE = Console(width=80)
"""What wraps text; nothing is printed on it."""


@dataclass(frozen=True)
class Look:
    """How a stop is to be shown. height: lines, None for as many as it takes.

    answer: what was answered to its question, from 0; None: not yet. answered: show the right one.
    """

    width: int = 80
    height: int | None = None
    answer: int | None = None
    answered: bool = False
    keys: str = ""
    position: str = ""


@dataclass
class _Section:
    """Some lines. Where there is no room, those of lower order go first.

    keep: how many stay as long as possible. whole: they make sense together only.
    """

    lines: list[Text]
    order: int
    keep: int = 0
    whole: bool = False


def render_frame(lesson: Lesson, frame: Frame, look: Look) -> list[Text]:
    """The lines of a stop, none longer than the width, no more than the height."""
    sections = [_Section(_head(lesson, frame, look), 9, 99)]
    if frame.kind is Kind.OPENING:
        sections.append(_Section(_opening(lesson, frame, look.width), 8, 99))
    elif frame.kind is Kind.CLOSING:
        sections.append(_Section(_words(frame.text, look.width, "default"), 8, 99))
        sections.append(_Section(_otherwise(frame, look.width), 8, 4))
        if lesson.reading:
            sections.append(
                _Section(_words(f"Read on: {', '.join(lesson.reading)}", look.width, "dim"), 3)
            )
    else:
        sections += _body(frame, look)
    return _fit(sections, look)


def _head(lesson: Lesson, frame: Frame, look: Look) -> list[Text]:
    where = where_words(frame)
    position = f"{look.position}  " if look.position else ""
    room = look.width - len(where) - len(position) - 3
    title = textwrap.shorten(clean(lesson.title), max(12, room), placeholder=" …")
    left = Text.assemble((title, "bold"))
    right = Text.assemble((position, "dim"), (where, "bold cyan"))
    gap = look.width - left.cell_len - right.cell_len
    return [Text.assemble(left, " " * max(1, gap), right), Text("─" * look.width, style="dim")]


def _opening(lesson: Lesson, frame: Frame, width: int) -> list[Text]:
    lines = _words(frame.text, width, "default")
    if lesson.goal:
        lines += [Text(""), *_words(f"Afterwards you can: {lesson.goal}", width, "cyan")]
    lines.append(Text(""))
    notes = [f"{place.name}: {place.profile.note}" for place in lesson.places if place.profile.note]
    for note in notes:
        lines += _words(note, width, "yellow")
    facts = [f"shown on {', '.join(place.name for place in lesson.places)}"]
    if lesson.minutes:
        facts.append(f"about {lesson.minutes} minutes")
    if lesson.questions:
        facts.append(f"{len(lesson.questions)} questions")
    if lesson.live:
        facts.append("may be run on the real ksmd: --live")
    return lines + _words("; ".join(facts), width, "dim")


def _body(frame: Frame, look: Look) -> list[_Section]:
    width = look.width
    sections: list[_Section] = []
    if frame.does and frame.kind is not Kind.VISIT:
        verb = "next: " if frame.kind is Kind.BEFORE else "done: "
        sections.append(_Section(_words(verb + does_words(frame.does), width, "dim")[:2], 6, 1))
    if frame.text:
        sections.append(_Section(_words(frame.text, width, "cyan"), 8, 99))
    if frame.unmet:
        sections.append(_Section(_otherwise(frame, width), 8, 4))
    if frame.note:
        sections.append(_Section(_words(f"({frame.note})", width, "yellow"), 7, 1))
    if frame.question is not None:
        sections.append(_Section(_question(frame.question, look), 9, 99))
    several = len(frame.views) > 1
    for view in frame.views:
        sections += _view(frame, view, width, several=several)
    if several and frame.kind in (Kind.DONE, Kind.BEFORE):
        sections.append(_Section(_side_by_side(frame, width), 7, 6))
    return sections


def _otherwise(frame: Frame, width: int) -> list[Text]:
    """What the words above don't fit: they were written for another kernel, or are wrong."""
    lines: list[Text] = []
    for words in frame.unmet:
        lines += _words(f"Otherwise than written: {words}.", width, "bold yellow", hang=2)
    return lines


def _question(question: Question, look: Look) -> list[Text]:
    lines = _words(f"What will happen? {question.question}", look.width, "bold yellow")
    for number, answer in enumerate(question.answers):
        right = look.answered and number == question.right
        wrong = look.answered and number == look.answer and not right
        mark = "✓" if right else "✗" if wrong else " "
        style = "bold green" if right else "red" if wrong else "default"
        lines += _words(f"{mark} {LETTERS[number]}) {answer}", look.width, style, hang=5)
    if look.answered:
        lines += _words(question.because, look.width, "green")
    return lines


def _view(frame: Frame, view: View, width: int, *, several: bool) -> Iterator[_Section]:
    if view.scene is None or (several and frame.kind is Kind.BEFORE):
        return
    if several:
        yield _Section([Text(f"on {view.on}", style="bold underline")], 8, 1)
    if view.page is not None:
        yield from _visit(view, width)
    elif frame.kind is Kind.VISIT:
        yield _Section([Text("no visit here", style="dim")], 7, 1)
    if view.events:
        yield _Section(_events(view, width), 6, 1)
    if not several or frame.kind is Kind.VISIT:
        yield _Section(_counters(frame, view, width), 7, 1)
    if view.refused:
        yield _Section([Text(f"refused: {view.refused}", style="yellow")], 8, 1)
    yield from _trees(view, width)
    yield _Section(_figures(view, width), 4)
    yield _Section(page_table(view, view.scene, width), 3, 1 + AROUND)
    yield _Section(page_map(view, view.scene, width), 2)


def _visit(view: View, width: int) -> Iterator[_Section]:
    assert view.scene is not None
    page = next((p for p in view.scene.pages if (p.mm, p.address) == view.visit), None)
    about = ""
    if page is not None:
        about = f' holds "{content_words(page.content)}"'
        if page.age:
            again = f", {page.skips} skips to come" if page.skips else ""
            about += f"; age {page.age}{again}"
    head = Text.assemble("looks at ", (str(view.page), "bold"), about)
    yield _Section([head[:width]], 8, 99)
    told = set()
    for number, step in enumerate(view.steps, start=1):
        rule = step.rule.value
        style = "green" if rule.good else "default"
        compared = f" ({len(step.path)} compared)" if step.path else ""
        yield _Section(_words(f"• {step.words}{compared}", width, style, hang=2), 8, 99)
        if step.rule not in told:
            words = f"rule: {rule.says} [{rule.source}]"
            order = 7 if number == len(view.steps) else 1
            yield _Section(_words(words, width, "dim", indent=2, hang=8), order, whole=True)
        told.add(step.rule)


def _events(view: View, width: int) -> list[Text]:
    shown = ", ".join(view.events[:_MOST_EVENTS])
    if len(view.events) > _MOST_EVENTS:
        shown += f", and {count(len(view.events) - _MOST_EVENTS)} more"
    return _words(f"events: {shown}", width, "green", hang=8)


def _counters(frame: Frame, view: View, width: int) -> list[Text]:
    changed = changed_counters(frame, view)
    line = Text()
    lines = [line]
    told = {name for name, _, _ in changed}
    parts = [
        Text.assemble(name, " ", (count(before or 0), "dim"), " → ", (count(now), "bold"))
        for name, before, now in changed
    ]
    parts += [
        Text(f"{name} {count(view.counters[name])}", style="dim")
        for name in USUAL
        if name in view.counters and name not in told
    ]
    for part in parts:
        if line.cell_len and line.cell_len + part.cell_len + 2 > width:
            line = Text()
            lines.append(line)
        line.append_text(part if not line.cell_len else Text.assemble("  ", part))
    return lines


def _trees(view: View, width: int) -> Iterator[_Section]:
    assert view.scene is not None
    here = {step.tree: set(step.path) for step in view.steps if step.tree}
    found = {
        page.ksm_page
        for page in view.scene.pages
        if (page.mm, page.address) == view.visit and page.ksm_page is not None
    } | _own_places(view)
    kinds = {tree.kind for tree in view.scene.trees}
    for tree in view.scene.trees:
        lines = _words(tree_words(tree), width, "bold", hang=2)
        path = here.get(tree.kind, set())
        drawn = draw_tree(tree, place_words, width - 2, path=path, found=found)
        lines += [Text.assemble("  ", row) for row in drawn]
        yield _Section(lines, 5, 2)
    for kind in ("stable", "unstable"):
        if kind not in kinds:
            yield _Section([Text(f"{kind} tree: empty", style="bold")], 4)


def _own_places(view: View) -> set[str]:
    """Where in the unstable tree the visited page itself stands."""
    assert view.scene is not None
    waiting = [tree.root for tree in view.scene.trees if tree.kind == "unstable"]
    found = set()
    while waiting:
        node = waiting.pop()
        if node is not None:
            waiting += [node.left, node.right]
            if view.visit is not None and node.members == (view.visit,):
                found.add(node.key)
    return found


def _figures(view: View, width: int) -> list[Text]:
    assert view.scene is not None
    lines: list[Text] = []
    if view.scene.figures:
        words = ", ".join(f"{name}: {value}" for name, value in view.scene.figures.items())
        lines += _words(words, width, "default", hang=2)
    for title, rows in view.scene.groups.items():
        if rows:
            lines.append(
                Text(f"{title}  {'  '.join(f'{key:>9}' for key in rows[0])}", style="bold")
            )
        for row in rows:
            cells = [
                f"{value:>9}"
                if isinstance(value, str)
                else " ".join(region_of(view.name(member)) for member in value)
                for value in row.values()
            ]
            lines.append(Text(f"{'':{len(title)}}  {'  '.join(cells)}")[:width])
    return lines


def _side_by_side(frame: Frame, width: int) -> list[Text]:
    """Counters of all scanners after a step."""
    on = [view.on for view in frame.views]
    names = dict.fromkeys(
        [*USUAL, *(name for view in frame.views for name, _, _ in changed_counters(frame, view))]
    )
    room = max(10, *(len(name) for name in on)) + 2
    head = f"{'':<24}" + "".join(f"{name:>{room}}" for name in on)
    lines = [Text(head[:width], style="bold")]
    for name in names:
        values = [view.counters.get(name) for view in frame.views]
        if any(values):
            differs = len({value for value in values if value is not None}) > 1
            cells = "".join(f"{count(value):>{room}}" for value in values)
            lines.append(Text(f"{name:<24}{cells}"[:width], style="bold" if differs else ""))
    return lines if len(lines) > 1 else []


def _words(text: str, width: int, style: str, *, indent: int = 0, hang: int = 0) -> list[Text]:
    """Words in lines. A line of the text begins a new one."""
    lines: list[Text] = []
    for line in text.strip().split("\n"):
        words = clean(" ".join(line.split()))
        room, before = width - indent, " " * indent
        parts = [words]
        if cell_len(words) > room:
            # Characters may be two cells wide, which textwrap doesn't know.
            parts = [part.plain.rstrip() for part in Text(words).wrap(_CONSOLE, width - hang)]
        for part in parts:
            lines.append(Text(before + part, style=style))
            before = " " * hang
    return lines


def _fit(sections: Sequence[_Section], look: Look) -> list[Text]:
    """All lines, or what matters most of them; then the keys in the last line."""
    for section in sections:
        for line in section.lines:
            line.truncate(look.width, overflow="ellipsis")
    foot = [Text(look.keys[: look.width], style="dim")] if look.keys else []
    if look.height is not None:
        room = look.height - len(foot)
        cut = False
        for keep in (True, False):
            for section in sorted(sections, key=lambda section: section.order):
                over = sum(len(one.lines) for one in sections) + cut - room
                least = section.keep if keep else (2 if section.order >= 8 else 0)
                if over > 0 and len(section.lines) > least:
                    left = 0 if section.whole else len(section.lines) - over
                    section.lines = section.lines[: max(least, left)]
                    cut = True
        lines = [line for section in sections for line in section.lines]
        if cut:
            lines = lines[: room - 1]
            more = "more than fits: enlarge the window"
            lines.append(Text(more[: look.width], style="dim italic"))
        lines += [Text("")] * (room - len(lines))
        return lines + foot
    return [line for section in sections for line in section.lines] + foot
