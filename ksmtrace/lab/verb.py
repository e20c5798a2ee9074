"""What a step of the scenario language is, and how its values are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ksmtrace.lab.operations import Operation
from ksmtrace.lab.plan import address_of
from ksmtrace.lab.planner import Planner, Process
from ksmtrace.model.content import PAGE_SIZE

NODES = 2
"""NUMA nodes that a scenario may speak of: 0 and 1."""

Values = dict[str, Any]
Resolve = Callable[[Planner, Any, Values], Iterable[Operation]]


@dataclass(frozen=True)
class Verb:
    """A kind of step. options: name -> meaning. meaning: one line, from the docstring."""

    name: str
    example: str
    options: Mapping[str, str]
    meaning: str
    resolve: Resolve


VERBS: dict[str, Verb] = {}


def verb(name: str, example: str, **options: str) -> Callable[[Resolve], Resolve]:
    """Declare a step."""

    def declare(resolve: Resolve) -> Resolve:
        meaning = " ".join((resolve.__doc__ or "").split())
        VERBS[name] = Verb(name, example, options, meaning, resolve)
        return resolve

    return declare


def whole(planner: Planner, what: str, value: object, least: int, most: int) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise planner.error(f"{what} must be a whole number, not {value!r}")
    if not least <= value <= most:
        raise planner.error(f"{what} must be from {least} to {most}, not {value}")
    return value


def node_number(planner: Planner, value: object) -> int:
    """A NUMA node's number."""
    return whole(planner, "node", value, 0, NODES - 1)


def flag(planner: Planner, what: str, value: object) -> bool:
    """A yes or no."""
    if not isinstance(value, bool):
        raise planner.error(f"{what} must be true or false, not {value!r}")
    return value


def span(pages: range) -> tuple[int, int]:
    """First address and length in bytes of pages of the arena."""
    return address_of(pages.start), len(pages) * PAGE_SIZE


def addresses(pages: range) -> tuple[int, ...]:
    """Their addresses."""
    return tuple(address_of(page) for page in pages)


def require(planner: Planner, process: Process, pages: range, allowed: tuple[str, ...]) -> None:
    """Refuse pages whose protection is none of these."""
    for page in pages:
        if process.mapped[page] not in allowed:
            raise planner.error("the pages are protected", "see the step protect")
