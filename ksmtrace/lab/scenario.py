"""A scenario: a TOML file of steps, as docs/scenarios.md describes it.

This module reads the file into steps and knows on which line each stands; what the steps mean is
declared in `lab.verbs`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ksmtrace.errors import Exit, KsmtraceError

TOP_LEVEL = ("title", "about", "knobs", "lesson", "step")
_STEP_HEADER = re.compile(r"^\s*\[\[\s*step\s*\]\]")


class ScenarioError(KsmtraceError):
    """A scenario that can't be run; the message begins with file and line."""

    def __init__(self, where: str, message: str, hint: str | None = None) -> None:
        super().__init__(f"{where}: {message}", hint, Exit.USAGE)


@dataclass(frozen=True)
class Step:
    """One step: everything that its table holds. where: file and line, for messages."""

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Scenario:
    """A whole file. knobs: set before the first step. lesson: its table, for `ksmtrace learn`."""

    name: str
    title: str
    about: str = ""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    lesson: Mapping[str, Any] = field(default_factory=dict)


def read_scenario(path: Path) -> Scenario:
    """The scenario in a file. Raises ScenarioError for what is none, OSError as open() does."""
    try:
        return parse_scenario(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise ScenarioError(str(path), "this is not a text file") from None


def parse_scenario(text: str, name: str) -> Scenario:
    """The scenario in `text`; name: the file's, for messages. Raises ScenarioError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        where = f"{name}:{line[1]}" if line else name
        message = re.sub(r" \(at .*\)$", "", str(error))
        raise ScenarioError(where, f"this is not TOML: {message}") from None
    except ValueError as error:
        # A number with thousands of digits is TOML, but none that Python reads.
        raise ScenarioError(name, f"this is not TOML that a person wrote: {error}") from None
    except RecursionError:
        raise ScenarioError(name, "this is not TOML that a person wrote: too deep") from None
    return scenario_of(document, name, _lines_of_steps(text))


def scenario_of(document: Mapping[str, Any], name: str, lines: list[int] | None = None) -> Scenario:
    """The scenario in a parsed document. lines: where each step begins. Raises ScenarioError."""
    for key in document:
        if key not in TOP_LEVEL:
            hint = f"a scenario has {', '.join(TOP_LEVEL[:-1])} and [[step]] tables"
            raise ScenarioError(name, f"unknown key {key!r}", hint)
    title, about = document.get("title", name), document.get("about", "")
    if not isinstance(title, str) or not isinstance(about, str):
        raise ScenarioError(name, "title and about must be texts")
    knobs = document.get("knobs", {})
    if not isinstance(knobs, dict):
        raise ScenarioError(name, "knobs must be a table", "for example [knobs] smart_scan = 0")
    lesson = document.get("lesson", {})
    if not isinstance(lesson, dict):
        raise ScenarioError(name, "lesson must be a table", 'for example [lesson] goal = "..."')
    tables = document.get("step", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ScenarioError(name, "the steps must be [[step]] tables")
    known = lines if lines is not None and len(lines) == len(tables) else None
    steps = []
    for number, table in enumerate(tables):
        where = f"{name}:{known[number]}" if known else f"{name}, step {number + 1}"
        steps.append(Step(where, table))
    return Scenario(name, title, about, knobs, tuple(steps), lesson)


def _lines_of_steps(text: str) -> list[int]:
    return [
        number for number, line in enumerate(text.split("\n"), start=1) if _STEP_HEADER.match(line)
    ]


def to_toml(scenario: Scenario) -> str:
    """A scenario as a file's text, so that it can be kept and read again."""
    lines = [f"title = {_toml(scenario.title)}"]
    if scenario.about:
        lines.append(f"about = {_toml(scenario.about)}")
    for table, values in (("knobs", scenario.knobs), ("lesson", scenario.lesson)):
        if values:
            lines += ["", f"[{table}]"]
            lines += [f"{_key(name)} = {_toml(value)}" for name, value in values.items()]
    for step in scenario.steps:
        lines += ["", "[[step]]"]
        lines += [f"{key} = {_toml(value)}" for key, value in step.values.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(v)}" for key, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # JSON's texts, numbers and truth values are TOML's, but for the character that it leaves bare
    # and for the surrogate pairs that it would escape others to.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)
