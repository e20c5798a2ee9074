"""A lesson as a page with a stepper: its stops as packed data, and all of it in words below.

Each stop is a line of JSON, read only when it is shown: a page of 2,000 stops opens at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from ksmtrace import __version__
from ksmtrace.amounts import count
from ksmtrace.kernel.sysfs import COUNTERS
from ksmtrace.lessons.frames import Frame, Kind
from ksmtrace.lessons.lesson import Lesson
from ksmtrace.model.scene import Standing
from ksmtrace.processes.identity import clean
from ksmtrace.views.html.lesson_transcript import transcript
from ksmtrace.views.html.markup import Html, element, joined, note, paragraph, without_scripts
from ksmtrace.views.html.packing import packed
from ksmtrace.views.html.page import asset, render_page
from ksmtrace.views.lesson_data import frames_as_dicts, lesson_as_dict
from ksmtrace.views.lesson_words import MARKS, USUAL

CLASSES: Mapping[Standing, str] = {
    Standing.NOT_THERE: "absent",
    Standing.NOT_MERGEABLE: "never",
    Standing.UNSEEN: "never",
    Standing.WAITS: "unknown",
    Standing.UNSTABLE: "waiting",
    Standing.MERGED: "merged",
    Standing.INHERITED: "inherited",
    Standing.COPIED: "broken",
    Standing.ZERO: "zero",
    Standing.SWAPPED: "unknown",
}
"""Of how a page stands: the class that colours it."""
_KINDS = {
    Kind.OPENING: "o",
    Kind.BEFORE: "b",
    Kind.VISIT: "v",
    Kind.DONE: "d",
    Kind.CLOSING: "c",
}
_STARTS_IN_WORDS = (
    "The stepper is a script: with scripts off, the whole lesson is below in words instead."
)
MOST_EVENTS, MOST_LISTED = 40, 120
"""Of a stop, and of a tree whose places are listed: what a page tells one by one."""
_ROW = ("page", "holds", "checksum", "age", "skips", "standing", "stands")
_SUSPECT = re.compile(r"[^ -~\u2013\u00d7\u2026]|\\u00|\\[bfrt]")
"""In JSON: anything but plain text and the few signs that ksmtrace itself puts into it."""


def lesson_page(lesson: Lesson, stops: Sequence[Frame], *, cut: bool = False) -> str:
    """The file's content. The same stops give the same bytes. cut: the lesson has more of them."""
    told = frames_as_dicts(stops)
    rows = _Rows()
    lines = [
        _line({**stop, "views": [rows.shared(view) for view in stop["views"]]}) for stop in told
    ]
    plan = _plan(lesson, stops, told, cut=cut)
    text = "\n".join([_line({**plan, "rows": rows.all()}), *lines]).encode()
    return render_page(
        title=_title(lesson),
        subtitle=f"Goal: {' '.join(lesson.goal.split())}" if lesson.goal else f"{_facts(lesson)}.",
        body=_body(lesson, stops, told, cut=cut),
        styles=[asset("lesson.css")],
        scripts=[
            asset("packing.js"),
            asset("lesson_tree.js"),
            asset("lesson_stop.js"),
            asset("lesson.js"),
        ],
        data={"lesson": packed(np.frombuffer(text, np.uint8))},
        footer=paragraph(
            f"Made by ksmtrace {__version__}. This file is whole: it loads nothing and sends"
            " nothing. Unknown is –, never 0."
        ),
    )


class _Rows:
    """How pages stood, each way once: at most stops one page of many changes.

    Beside that, of very long lists only so much is kept as a page shows.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, ...], int] = {}

    def shared(self, view: Mapping[str, Any]) -> dict[str, Any]:
        """A view whose pages are numbers of rows, with the place of the one that is looked at."""
        looked_at = None
        pages = []
        for place, page in enumerate(view["pages"]):
            if page["looked_at"]:
                looked_at = place
            row = tuple(page[key] for key in _ROW)
            pages.append(self._numbers.setdefault(row, len(self._numbers)))
        return {
            **view,
            "pages": pages,
            "looked_at": looked_at,
            "events": view["events"][:MOST_EVENTS],
            "events_left_out": max(0, len(view["events"]) - MOST_EVENTS),
            "trees": [_shorter(tree, view) for tree in view["trees"]],
        }

    def all(self) -> list[dict[str, Any]]:
        """The rows by number."""
        return [dict(zip(_ROW, row, strict=True)) for row in self._numbers]


def _shorter(tree: Mapping[str, Any], view: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of whose list the surroundings of what was compared are left."""
    listed = tree["listed"]
    way = {
        key for step in view["decisions"] if step["tree"] == tree["kind"] for key in step["path"]
    }
    seen = [
        n for n, node in enumerate(listed) if node["key"] in way or view["page"] in node["pages"]
    ]
    last = max(len(listed) - MOST_LISTED, 0)
    first = min(max(seen[-1] - MOST_LISTED // 2, 0), last) if seen else 0
    kept = listed[first : first + MOST_LISTED]
    return {**tree, "listed": kept, "left_out_before": first,
            "left_out_after": len(listed) - first - len(kept)}  # fmt: skip


def _title(lesson: Lesson) -> str:
    return " ".join(lesson.title.split()) or lesson.name


def _facts(lesson: Lesson) -> str:
    """Where it is shown, how long it takes."""
    facts = [f"shown on {', '.join(place.name for place in lesson.places)}"]
    if lesson.minutes:
        facts.append(f"about {lesson.minutes} minutes")
    if lesson.questions:
        facts.append(f"{count(len(lesson.questions))} questions")
    if lesson.live:
        facts.append(f"on the real ksmd: ksmtrace learn {lesson.name} --live")
    words = "; ".join(facts)
    return words[0].upper() + words[1:]


def _plan(
    lesson: Lesson, stops: Sequence[Frame], told: Sequence[Mapping[str, Any]], *, cut: bool
) -> dict[str, Any]:
    """What the stepper must know of all stops, and what is the same at each of them."""
    return {
        **lesson_as_dict(lesson),
        "facts": _facts(lesson),
        "cut": cut,
        "kinds": "".join(_KINDS[stop.kind] for stop in stops),
        "scans": [stop.scan for stop in stops],
        "asks": [number for number, stop in enumerate(stops) if stop.question is not None],
        "shown": _shown_counters(told),
        "meanings": {counter.name: counter.meaning for counter in COUNTERS},
        "states": {
            standing.name.lower(): {"class": cls, "mark": MARKS[standing], "words": standing.value}
            for standing, cls in CLASSES.items()
        },
    }


def _shown_counters(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Counters that change anywhere, in one order throughout, so that the eye finds them again."""
    there: dict[str, None] = {}
    changing = set(USUAL)
    for stop in told:
        for view in stop["views"]:
            there |= dict.fromkeys(view["counters"])
            changing |= {name for name, _, _ in view["changed"]}
    return [name for name in dict.fromkeys([*USUAL, *there]) if name in changing and name in there]


def _line(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if _SUSPECT.search(text) is None:
        return text
    return json.dumps(_harmless(value), separators=(",", ":"), allow_nan=False)


def _harmless(value: Any) -> Any:
    """The same with control characters and marks of direction shown, not obeyed."""
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, dict):
        return {_clean_text(key): _harmless(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_harmless(one) for one in value]
    return value


@cache
def _clean_text(text: str) -> str:
    # Paragraphs stay: the page makes them of empty lines.
    return "\n".join(clean(line.rstrip("\r").expandtabs(1)) for line in text.split("\n"))


def _body(
    lesson: Lesson, stops: Sequence[Frame], told: Sequence[Mapping[str, Any]], *, cut: bool
) -> Html:
    words: list[Html] = [
        without_scripts(_STARTS_IN_WORDS),
        element("div", id="lesson", cls="lesson"),
    ]
    if cut:
        words.append(
            note(
                f"Of a longer lesson these are the first {count(len(stops))} stops:"
                f" ksmtrace learn {lesson.name} goes on in the terminal."
            )
        )
    words.append(transcript(lesson, stops, told))
    return joined(words)
