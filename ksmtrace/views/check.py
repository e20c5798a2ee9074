"""What `replay --check` prints: a verdict in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import count

_STYLES = {"yes": "bold green", "no": "bold red", "not claimed": "yellow"}


def render_check(verdict: Mapping[str, Any]) -> RenderableType:
    """Both answers and, where one is no, the first event that contradicts; fits 80 columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    grid.add_row("recording", verdict["recording"])
    grid.add_row("checked as", f"Linux {verdict['kernel']}")
    grid.add_row("events", f"{count(verdict['events'])}, {count(verdict['lost'])} lost")
    for name, answer in (("legal", verdict["legal"]), ("predicted", verdict["predicted"])):
        grid.add_row(
            name, Text.assemble((answer["answer"], _STYLES[answer["answer"]]), ": ", answer["why"])
        )
    parts: list[RenderableType] = [grid]
    for answer in (verdict["legal"], verdict["predicted"]):
        if answer["finding"] is not None:
            parts.append(Text(""))
            parts.append(Text(answer["finding"]["message"], style="bold"))
            parts += [Text(f"  {line}") for line in answer["finding"]["state"]]
    parts += [Text(f"note: {note}", style="yellow") for note in verdict["notes"]]
    return Group(*parts)
