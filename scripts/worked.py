"""Worked examples in a page of docs: run them, and put what they print below each.

An example is a `python` block; what it prints is the `text` block that follows it, if one does.
The blocks of a page share their names, as in a notebook.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\n?^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
_TOLERANCE = 1e-3
"""Shown numbers are rounded, and each release of pandas rounds its own way."""


@dataclass(frozen=True)
class Example:
    """A block. output: what the page says it prints; None: it shows no output. at: where in it."""

    code: str
    output: str | None
    at: tuple[int, int]


def examples(page: str) -> list[Example]:
    """The examples of a page, in order."""
    return [Example(found[1], found[2], found.span(2)) for found in _BLOCK.finditer(page)]


def run(found: list[Example], name: str) -> list[str]:
    """What each prints when they are run in order. name: of the page, for tracebacks."""
    names: dict[str, Any] = {"__name__": name}
    outputs = []
    for example in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example.code, name, "exec"), names)  # noqa: S102 that is the purpose
        outputs.append("".join(line.rstrip() + "\n" for line in printed.getvalue().splitlines()))
    return outputs


def same(a: str, b: str) -> bool:
    """Whether two outputs say the same, however wide their columns are."""
    left, right = a.split(), b.split()
    return len(left) == len(right) and all(map(_same_word, left, right))


def _same_word(a: str, b: str) -> bool:
    if a == b:
        return True
    try:
        return math.isclose(float(a), float(b), rel_tol=_TOLERANCE)
    except ValueError:
        return False


def refreshed(path: Path) -> str:
    """The page with what its examples print now; where that says the same, it stays as it is."""
    page = path.read_text()
    found = examples(page)
    for example, output in reversed([*zip(found, run(found, path.name), strict=True)]):
        if example.output is not None and not same(example.output, output):
            begin, end = example.at
            page = page[:begin] + output + page[end:]
    return page
