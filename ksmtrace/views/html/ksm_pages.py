"""KSM pages: how many have how many sharers, and the most shared ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.views.html.markup import Column, Html, Part, bars, element, joined, paragraph, table
from ksmtrace.views.html.material import Material

_MOST = 12
_EDGES = (1, 2, 3, 4, 5, 9, 17, 33, 65, 129, 257, 1025, 1 << 40)
"""Where a class of numbers of sharers begins; the last is never reached."""


def ksm_pages_part(material: Material) -> Part:
    """The section of the KSM pages."""
    pages = material.run.tables.stable_pages
    if not len(pages):
        return Part("ksm-pages", "KSM pages", paragraph("The events tell of no KSM page."))
    peak, last = _numbers(pages, "sharers_peak"), _numbers(pages, "sharers_last")
    alive = (pages["end"] == "alive").to_numpy(bool)
    body = joined(
        [
            paragraph(
                "A KSM page is one page in memory that several places map. The more sharers it has,"
                " the more it saves: with seven sharers six pages. One with a single sharer saves"
                " nothing, until its other sharers come back or it dies."
            ),
            element(
                "div",
                bars("KSM pages by sharers, each at its fullest",
                     ("sharers", "KSM pages"), _classes(peak), ""),
                bars(f"KSM pages by sharers at the end ({count(int(alive.sum()))} alive)",
                     ("sharers", "KSM pages"), _classes(last[alive]), ""),
                cls="columns",
            ),
            *_most_shared(material, pages, peak),
        ]
    )  # fmt: skip
    return Part("ksm-pages", "KSM pages", body)


def _numbers(pages: pd.DataFrame, name: str) -> npt.NDArray[np.int64]:
    return pages[name].to_numpy(np.int64)


def _classes(sharers: npt.NDArray[np.int64]) -> list[tuple[str, int]]:
    found = []
    if nobody := int((sharers <= 0).sum()):
        found.append(("none known", nobody))
    counts, _ = np.histogram(sharers, _EDGES)
    for first, after, number in zip(_EDGES[:-1], _EDGES[1:], counts.tolist(), strict=True):
        words = f"{first:,}" if after == first + 1 else f"{first:,} to {after - 1:,}"
        if first == _EDGES[-2]:
            words = f"{first:,} and more"
        if number:
            found.append((words, number))
    return found


def _most_shared(
    material: Material, pages: pd.DataFrame, peak: npt.NDArray[np.int64]
) -> Iterator[Html]:
    chosen = np.argsort(-peak, kind="stable")[:_MOST]
    columns = [
        Column("KSM page", meaning="its number in this recording, for timeline --ksm-page"),
        Column("made at"),
        Column("sharers at most"),
        Column("at the end"),
        Column("processes", meaning="address spaces that ever shared it"),
        Column("merges", meaning="pages ever mapped onto it"),
        Column("found dead at", meaning="when ksmd met it without any sharer"),
        Column("end", "text"),
        Column("in a chain", "text",
               "kept beside an equal KSM page because max_page_sharing was reached"),
    ]  # fmt: skip
    rows = []
    for number, row in zip(chosen.tolist(), pages.iloc[chosen].to_dict("records"), strict=True):
        chained = row["in_chain"]
        rows.append(
            [
                str(number),
                "before" if pd.isna(row["born_ns"]) else material.run.moment(row["born_ns"]),
                count(row["sharers_peak"]),
                count(row["sharers_last"]),
                count(row["processes"]),
                count(row["merges"]),
                material.run.moment(row["died_ns"]),
                str(row["end"]).replace("_", " "),
                UNKNOWN if pd.isna(chained) else "yes" if chained else "no",
            ]
        )
    title = f"The most shared of {count(len(pages))} KSM pages"
    yield table(title, columns, rows)
