"""A diagnosis as rich renderables."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.kernel.diagnosis import Diagnosis

_STATES = {"yes": ("yes", "green"), "no": ("no", "bold red"), "note": ("note", "yellow")}


def render_diagnosis(diagnosis: Diagnosis) -> RenderableType:
    """What `ksmtrace doctor` prints; fits 80 columns."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in diagnosis.findings:
        words, style = _STATES[finding.state]
        detail = Text(finding.detail)
        if finding.remedy:
            detail.append(f"\n→ {finding.remedy}", style="italic")
        table.add_row(finding.topic, Text(words, style=style), detail)
    return table
