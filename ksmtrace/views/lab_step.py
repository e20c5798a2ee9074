"""What `lab run --step` prints as each operation is done on a real kernel."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ksmtrace.processes.identity import clean

_INDENT = "     "


def render_step(
    number: int,
    does: Mapping[str, Any],
    say: str,
    told: Sequence[str],
    changed: Mapping[str, tuple[int | None, int]],
) -> str:
    """One operation as lines. told: its events. changed: counters, before and after."""
    does_words = ", ".join(f"{key} = {_short(value)}" for key, value in does.items())
    lines = [f"{number:>3}  {does_words or '(nothing)'}"]
    if say:
        lines += textwrap.wrap(
            clean(" ".join(say.split())), 78, initial_indent=_INDENT, subsequent_indent=_INDENT
        )
    lines += [f"{_INDENT}{clean(line)}" for line in told]
    for name, (before, after) in changed.items():
        lines.append(f"       {name:<22} {'–' if before is None else before:>8} → {after}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_short(one)}" for key, one in value.items())
    return clean(str(value))
