"""UKSM's ports as rich renderables, as JSON and as the docs' table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.kernel.uksm_ports import PORTS, SOURCES, Port

_LEGEND = (
    "hunks: of the patch, changed since the port before. difficulty, testing: as the porter calls"
    " them. – is not told. Basic testing: used for half an hour to an hour. A port's counters are"
    " those of the first one unless it says otherwise."
)


def ports_as_dict(port: Port | None = None) -> dict[str, Any]:
    """What `ksmtrace kernels --uksm --json` prints, of one port or of all; null: not told."""
    return {
        "ports": [
            {"kernels": one.kernels, **asdict(one), "patches": one.patches}
            for one in (PORTS if port is None else (port,))
        ],
        "sources": dict(SOURCES),
    }


def render_ports(port: Port | None = None) -> RenderableType:
    """What `ksmtrace kernels --uksm` prints; fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("kernel", style="bold", no_wrap=True)
    table.add_column("hunks", justify="right", no_wrap=True)
    table.add_column("difficulty", no_wrap=True)
    table.add_column("tested", max_width=15)
    table.add_column("what of it can be observed")
    table.add_column("from", no_wrap=True)
    for one in PORTS if port is None else (port,):
        table.add_row(*(Text(cell) for cell in _cells(one)))
    told = (f"{letter}: {source}" for letter, source in SOURCES.items())
    return Group(table, "", Text(_LEGEND), *(Text(line) for line in told))


def ports_table() -> str:
    """The same for docs/kernels.md."""
    lines = [
        "| kernel | hunks | difficulty | tested | observed | from |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(port))} |" for port in PORTS]
    lines += ["", *(f"{letter}: {source}  " for letter, source in SOURCES.items())]
    return "\n".join(lines) + "\n"


def _cells(port: Port) -> tuple[str, ...]:
    return (
        port.kernels,
        count(port.hunks),
        port.difficulty or UNKNOWN,
        port.testing or UNKNOWN,
        f"{_age(port)}{port.observed}",
        port.source,
    )


def _age(port: Port) -> str:
    """UKSM's release where it isn't the one that all later ports carry."""
    if port.patches is None:
        return f"UKSM {port.uksm}: "
    return f"UKSM {port.uksm}, {port.patches} patches: " if port.patches > 1 else ""
