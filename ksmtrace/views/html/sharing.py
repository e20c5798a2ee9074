"""Who shares with whom: a matrix for each way of grouping."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.amounts import count, size
from ksmtrace.views.html.markup import Html, Part, element, framed, joined, paragraph
from ksmtrace.views.html.material import Material
from ksmtrace.views.timeline_sharing import labels_of

MOST_GROUPS = 20
_TITLE = "Who shares with whom"
_NOUNS = {"vm": "virtual machines", "cgroup": "cgroups", "process": "processes"}


def sharing_part(material: Material) -> Part:
    """The section of who shares with whom."""
    told = [
        _matrix(material, by, matrix)
        for by, matrix in material.sharing.items()
        if len(matrix) > (by != "process")
    ]
    if not told:
        words = "Nobody is known to share a KSM page."
        return Part("sharing", _TITLE, paragraph(words))
    intro = paragraph(
        "A row and a column: the KSM pages that both map, and what that is in memory (point at"
        " one). On the diagonal all that one maps. At the recording's end or, if nothing was merged"
        " any more, when most was."
    )
    return Part("sharing", _TITLE, joined([intro, *told]))


def _matrix(material: Material, by: str, matrix: pd.DataFrame) -> Html:
    shared = matrix.to_numpy(np.int64)
    labels = labels_of(material.run, matrix.index.tolist(), by)
    noun = _NOUNS[by]
    there = material.sharers[by]
    few = f", the {len(labels)} that map most KSM pages" if there > len(labels) else ""
    caption = f"KSM pages shared by {noun} ({count(there)}{few})"
    heads = [
        element("th", str(n), scope="col", title=label, cls="number")
        for n, label in enumerate(labels, 1)
    ]
    off = shared[~np.eye(len(shared), dtype=bool)]
    most = max(int(off.max()) if len(off) else 0, 1)
    rows = [
        element(
            "tr",
            element("td", str(n + 1), cls="number"),
            element("th", element("bdi", label), scope="row", cls="name"),
            *_cells(material, shared, labels, n, most),
        )
        for n, label in enumerate(labels)
    ]
    head = element("tr", element("td"), element("td"), *heads)
    return framed(caption, head, rows, cls="matrix")


def _cells(
    material: Material, shared: npt.NDArray[np.int64], labels: list[str], row: int, most: int
) -> list[Html]:
    cells = []
    for column, number in enumerate(shared[row].tolist()):
        both = size(number * material.run.page_bytes)
        if row == column:
            title, style, cls = f"{labels[row]} maps {both} of KSM pages", "", "number own"
        else:
            title = f"{labels[row]} and {labels[column]}: {both}"
            style, cls = f"--share:{60 * number / most:.0f}%" if number else "", "number"
        cells.append(
            element("td", count(number) if number else "·", cls=cls, title=title, style=style)
        )
    return cells
