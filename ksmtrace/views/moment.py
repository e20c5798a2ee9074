"""A snapshot scanned by models, as rich renderables and as a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.replay.moment import MomentRun
from ksmtrace.views.text import UNKNOWN, count, named_table, size

_COLUMNS = {
    "pages_shared": "shared",
    "pages_sharing": "sharing",
    "ksm_zero_pages": "zero",
    "pages_unshared": "unshared",
    "pages_volatile": "volatile",
}


def render_moment(runs: Sequence[MomentRun], page_bytes: int) -> RenderableType:
    """The counters after each full scan, for each scanner; fits 80 columns."""
    return Group(*(_table(run, page_bytes) for run in runs))


def saved(counters: dict[str, int]) -> int:
    """Pages saved, as the kernel counts: where it counts no zero pages, there are none."""
    return counters["pages_sharing"] + counters.get("ksm_zero_pages", 0)


def _table(run: MomentRun, page_bytes: int) -> RenderableType:
    table = named_table(
        f"{run.on}: {count(run.pages)} pages of {count(run.processes)} processes",
        collapse_padding=True,
    )
    for title in ("scan", *_COLUMNS.values(), "saved"):
        table.add_column(title, justify="right", no_wrap=True)
    for number, counters in enumerate(run.scans):
        values = (counters.get(name) for name in _COLUMNS)
        table.add_row(
            str(number + 1),
            *(UNKNOWN if value is None else count(value) for value in values),
            size(saved(counters) * page_bytes),
        )
    end = "nothing more will be saved" if run.converged else "it would go on (--scans)"
    return Group(table, Text(end, style="dim"), Text())


def moment_as_dict(runs: Sequence[MomentRun], page_bytes: int) -> dict[str, Any]:
    """What `ksmtrace simulate SNAPSHOT --json` prints."""
    return {
        "page_bytes": page_bytes,
        "on": [
            {
                "on": run.on,
                "pages": run.pages,
                "processes": run.processes,
                "converged": run.converged,
                "pages_saved": saved(run.scans[-1]) if run.scans else 0,
                "scans": run.scans,
            }
            for run in runs
        ],
    }
