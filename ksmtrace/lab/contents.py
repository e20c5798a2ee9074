"""What `write` may put into pages: contents by name, zero, unique, sequence, random."""

from __future__ import annotations

import random
from typing import Any

from ksmtrace.lab.planner import Planner
from ksmtrace.model.content import ZERO, content_of

_LONGEST_NAME = 64


def contents_for(planner: Planner, values: dict[str, Any], pages: int) -> list[bytes]:
    """One content for each page of a write. Raises ScenarioError."""
    content = values["content"]
    if not isinstance(content, str) or not content:
        raise planner.error("content must be a name", 'or "zero", "unique", "sequence", "random"')
    wanted = {"sequence": {"first"}, "random": {"seed", "of"}}.get(content, set())
    for option in ("first", "seed", "of", "offset"):
        if option in values and option not in wanted:
            raise planner.error(f"{option} does not go with content = {content!r}")
    if content == "zero":
        return [ZERO] * pages
    if content == "unique":
        planner.unique += pages
        return [b"unique %09d" % n for n in range(planner.unique - pages, planner.unique)]
    if content == "sequence":
        first = _number(planner, values, "first", 0)
        return [b"sequence %09d" % n for n in range(first, first + pages)]
    if content == "random":
        of = _number(planner, values, "of", 1)
        dice = random.Random(_number(planner, values, "seed", 0))  # noqa: S311 the same each time
        return [b"random %09d" % dice.randrange(of) for _ in range(pages)]
    if len(content) > _LONGEST_NAME or not content_of(content.encode()):
        raise planner.error(f"a content's name may have {_LONGEST_NAME} characters")
    return [content_of(content.encode())] * pages


def _number(planner: Planner, values: dict[str, Any], name: str, least: int) -> int:
    value = values.get(name, least if name != "of" else None)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 31:
        raise planner.error(f"{name} must be a whole number from {least}")
    return value
