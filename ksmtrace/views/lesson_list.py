"""What `ksmtrace learn` prints without a name: the lessons, in order."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.lessons.lesson import Lesson
from ksmtrace.processes.identity import clean


def render_lessons(lessons: Sequence[Lesson]) -> RenderableType:
    """A line for each lesson, and how to begin; fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("lesson", no_wrap=True, style="bold")
    table.add_column("min", justify="right", no_wrap=True)
    table.add_column("live", no_wrap=True)
    table.add_column("what it shows")
    for lesson in lessons:
        number = "" if lesson.number is None else str(lesson.number)
        minutes = "" if lesson.minutes is None else str(lesson.minutes)
        live = "yes" if lesson.live else ""
        table.add_row(number, clean(lesson.name), minutes, live, clean(lesson.title))
    total = sum(lesson.minutes or 0 for lesson in lessons)
    foot = (
        f"{len(lessons)} lessons, about {total} minutes. Begin: ksmtrace learn "
        f"{lessons[0].name if lessons else 'FILE'}"
    )
    return Group(table, Text(""), Text(foot, style="cyan"))
