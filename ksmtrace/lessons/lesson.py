"""A lesson: a scenario file with a table [lesson], and questions and words beside its steps.

docs/teaching.md describes the file. Everything of it is checked before it begins, and a mistake is
told with file and line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.lab.plan import Plan, PlannedStep
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import Scenario, ScenarioError, read_scenario
from ksmtrace.lab.where import HOST, Where, parse_all

TEXTS = Path(__file__).parent / "texts"
VISITS, SCANS = "visits", "scans"
MOST_PLACES = 3
_KEYS = {
    "number": int,
    "goal": str,
    "minutes": int,
    "on": list,
    "live": bool,
    "shows": str,
    "closing": str,
    "reading": list,
}
_ASK_KEYS = ("question", "answers", "right", "because")
_MOST_ANSWERS = 9


@dataclass(frozen=True)
class Question:
    """What is asked before a step. right: which answer, from 0. because: why."""

    question: str
    answers: tuple[str, ...]
    right: int
    because: str


@dataclass(frozen=True)
class Lesson:
    """A checked lesson. number: its place in the list, None for one that isn't of it.

    places: the scanners, side by side. live: it may be run on the real ksmd. shows: where one
    stops, VISITS or SCANS, unless a step says otherwise (`stops_at`). questions: by the step's
    number.
    """

    name: str
    plan: Plan
    places: tuple[Where, ...]
    number: int | None = None
    goal: str = ""
    minutes: int | None = None
    live: bool = False
    shows: str = VISITS
    closing: str = ""
    reading: tuple[str, ...] = ()
    questions: Mapping[int, Question] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its title."""
        return self.plan.scenario.title

    @property
    def about(self) -> str:
        """What it is about."""
        return self.plan.scenario.about

    def stops_at(self, step: PlannedStep) -> str:
        """Where one stops in a step: VISITS or SCANS."""
        return str(step.step.values.get("shows", self.shows))


def shipped_lessons() -> list[Lesson]:
    """The lessons that come with ksmtrace, in order."""
    lessons = [read_lesson(path) for path in sorted(TEXTS.glob("*.toml"))]
    return sorted(lessons, key=lambda lesson: (lesson.number or 0, lesson.name))


def find_lesson(name: str) -> Path:
    """A lesson's file: a path, a shipped one's name or number. Raises KsmtraceError (usage)."""
    path = Path(name)
    if path.is_file():
        return path
    if (shipped := TEXTS / f"{name}.toml").is_file() and "/" not in name:
        return shipped
    if name.isdecimal():
        for lesson in shipped_lessons():
            if lesson.number == int(name):
                return TEXTS / f"{lesson.name}.toml"
    raise KsmtraceError(
        f"there is no lesson {name}",
        "`ksmtrace learn` lists those that there are; a file or a recording may be given, too",
        Exit.USAGE,
    )


def read_lesson(path: Path, on: list[str] | None = None) -> Lesson:
    """The lesson in a file. on: other scanners than its own. Raises ScenarioError."""
    return lesson_of(read_scenario(path), path.stem, on)


def lesson_of(scenario: Scenario, name: str, on: list[str] | None = None) -> Lesson:
    """The lesson that a scenario is; one without a table [lesson] is shown step by step, too."""
    table = scenario.lesson
    for key, value in table.items():
        _check(scenario.name, key, value)
    plan = plan_scenario(scenario)
    if not plan.steps:
        raise ScenarioError(scenario.name, "it has no [[step]]", "docs/teaching.md has an example")
    shows = table.get("shows", VISITS)
    _check_shows(scenario.name, shows)
    for step in plan.steps:
        _check_shows(step.step.where, step.step.values.get("shows", VISITS))
    places = _places(scenario.name, on or table.get("on") or ["ksm:6.18"])
    return Lesson(
        name,
        plan,
        places,
        number=table.get("number"),
        goal=table.get("goal", ""),
        minutes=table.get("minutes"),
        live=table.get("live", False),
        shows=shows,
        closing=table.get("closing", ""),
        reading=tuple(table.get("reading", ())),
        questions={
            step.number: _question(step.step.where, step.step.values["ask"])
            for step in plan.steps
            if "ask" in step.step.values
        },
    )


def _check(where: str, key: str, value: object) -> None:
    if key not in _KEYS:
        raise ScenarioError(where, f"[lesson] has no {key!r}", f"it has {', '.join(_KEYS)}")
    kind = _KEYS[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {int: "a whole number", str: "a text", bool: "true or false", list: "a list"}
        raise ScenarioError(where, f"[lesson] {key} must be {words[kind]}")
    if isinstance(value, list) and not all(isinstance(one, str) for one in value):
        raise ScenarioError(where, f"[lesson] {key} must be a list of texts")


def _check_shows(where: str, shows: object) -> None:
    if shows not in (VISITS, SCANS):
        raise ScenarioError(where, f'shows must be "{VISITS}" or "{SCANS}", not {shows!r}')


def _places(where: str, on: list[str]) -> tuple[Where, ...]:
    if len(on) > MOST_PLACES:
        raise ScenarioError(where, f"a lesson shows at most {MOST_PLACES} scanners side by side")
    if HOST in on:
        raise ScenarioError(where, "a lesson names models", "the real ksmd beside one is --live")
    return tuple(parse_all(on, models_only=True))


def _question(where: str, ask: Any) -> Question:
    example = 'ask = { question = "?", answers = ["a", "b"], right = 1, because = "..." }'
    if not isinstance(ask, dict) or set(ask) != set(_ASK_KEYS):
        raise ScenarioError(where, f"ask must have {', '.join(_ASK_KEYS)}", example)
    answers, right = ask["answers"], ask["right"]
    texts = isinstance(answers, list) and all(isinstance(answer, str) for answer in answers)
    if not texts or not 2 <= len(answers) <= _MOST_ANSWERS:
        raise ScenarioError(where, f"answers must be two to {_MOST_ANSWERS} texts", example)
    if isinstance(right, bool) or not isinstance(right, int) or not 1 <= right <= len(answers):
        raise ScenarioError(where, f"right must be from 1 to {len(answers)}: which answer is")
    if not isinstance(ask["question"], str) or not isinstance(ask["because"], str):
        raise ScenarioError(where, "question and because must be texts", example)
    return Question(ask["question"], tuple(answers), right - 1, ask["because"])
