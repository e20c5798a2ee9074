"""Who shares KSM pages with whom, as a matrix that fits the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import count
from ksmtrace.processes.identity import clean
from ksmtrace.views.timeline_parts import Run, View, process_label, table_of, titled

_LABEL = 28
_MOST = 30
_MEANING = (
    "A row and a column: the KSM pages that both map; on the diagonal all that it maps. At the"
    " recording's end or, if nothing was merged any more, when most was."
)
_NOUNS = {"process": "processes", "cgroup": "cgroups", "vm": "VMs"}


def sharing_view(run: Run, matrix: pd.DataFrame, by: str) -> View:
    """What `--sharing` shows. matrix: as timeline.sharing.sharing gives it; by: its rows."""
    labels = labels_of(run, matrix.index.tolist(), by)
    shared = matrix.to_numpy(np.int64)
    named = pd.DataFrame(shared, columns=labels)
    named.insert(0, by, labels, allow_duplicates=True)
    return View(
        render=lambda width: _render(shared, labels, by, width),
        csv=named,
        facts=lambda: {
            "start_ns": run.start_ns,
            "by": by,
            "keys": matrix.index.tolist(),
            "names": labels,
            "ksm_pages_shared": shared.tolist(),
        },
    )


def labels_of(run: Run, keys: list[Any], by: str) -> list[str]:
    """What each row is called; processes of the same name and id by their row too."""
    if by != "process":
        return [clean(str(key)) for key in keys]
    labels = [process_label(run.tables.processes, key) for key in keys]
    often = Counter(labels)
    return [
        label if often[label] == 1 else f"{label} @{key}"
        for label, key in zip(labels, keys, strict=True)
    ]


def _render(
    shared: npt.NDArray[np.int64], labels: list[str], by: str, width: int
) -> RenderableType:
    noun = _NOUNS[by]
    if not len(shared):
        return Text(f"Nobody shares KSM pages: no {noun} are known.")
    cell = max(len(count(int(shared.max()))), 4) + 1
    room = max((width - _LABEL - 4) // cell - 1, 1)
    order = np.argsort(-shared.sum(axis=1), kind="stable")
    chosen, others = order[: min(room, _MOST)], order[min(room, _MOST) :]
    heads = [str(number) for number in range(1, len(chosen) + 1)]
    table = table_of("", "", *heads, *(["others"] if len(others) else []), left=2)
    table.columns[1].max_width = _LABEL
    for number, row in enumerate(chosen.tolist(), 1):
        cells = [_cell(int(shared[row, column])) for column in chosen.tolist()]
        if len(others):
            cells.append(_cell(int(shared[row, others].sum())))
        table.add_row(str(number), Text(labels[row]), *cells)
    words = _MEANING
    if len(others):
        words += f" others: the sum over the {count(len(others))} {noun} that don't fit;"
        words += " --csv has all."
    title = f"KSM pages shared by {noun} ({count(len(labels))})"
    return Group(titled(title, table), "", Text(words))


def _cell(number: int) -> str:
    return count(number) if number else "·"
