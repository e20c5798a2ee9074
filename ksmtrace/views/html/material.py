"""What the report is made of, and what its sections share."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ksmtrace.inspect.advise.advice import Answer
from ksmtrace.timeline.breaks import BreakTables
from ksmtrace.timeline.context import Samples
from ksmtrace.timeline.summary import Summary
from ksmtrace.views.timeline_parts import Run

MOST_ROWS = 30
"""Of a table that could have any number; what is left out is counted."""


@dataclass(frozen=True)
class Told:
    """What other rooms tell of a recording.

    summary: of `report`. answer: of `advise`. sharing: matrices by what groups, as
    timeline.sharing.sharing gives them, the fullest groups only; sharers: how many groups there
    were of each. breaks: None if they were not watched.
    """

    summary: Summary
    answer: Answer
    sharing: Mapping[str, pd.DataFrame]
    sharers: Mapping[str, int]
    breaks: BreakTables | None


@dataclass(frozen=True)
class Material:
    """A recording, told by the rooms that the other commands ask too.

    samples: of the host's counters. told: perhaps still on its way; who asks waits.
    """

    run: Run
    samples: Samples
    told: Future[Told]

    @property
    def summary(self) -> Summary:
        """As in `Told`."""
        return self.told.result().summary

    @property
    def answer(self) -> Answer:
        """As in `Told`."""
        return self.told.result().answer

    @property
    def sharing(self) -> Mapping[str, pd.DataFrame]:
        """As in `Told`."""
        return self.told.result().sharing

    @property
    def sharers(self) -> Mapping[str, int]:
        """As in `Told`."""
        return self.told.result().sharers

    @property
    def breaks(self) -> BreakTables | None:
        """As in `Told`."""
        return self.told.result().breaks


def fullest(table: pd.DataFrame, most: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Rows of a table with the summed columns, most merges first, at most so many."""
    merges = (table["merges"] + table["zero_merges"]).to_numpy(np.int64)
    order = np.argsort(-merges, kind="stable")[:most]
    return order.astype(np.int64)


def left_out(shown: int, there: int, what: str) -> tuple[str, ...]:
    """What a table that does not show all leaves out, in words; nothing if it shows all."""
    return (f"{what}: {shown:,} of {there:,}, those with most merges",) if shown < there else ()
