"""How a number of merged pages went up and down, as a strip."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.views.timeline_parts import Run
from ksmtrace.views.timeline_strip import (
    Floats,
    Span,
    Strip,
    cells_of,
    chart,
    gauge,
    rates,
    spark,
)


def lives_strip(run: Run, lives: pd.DataFrame, label: str, width: int) -> Text:
    """How many of these lives went on, and how often one began. lives: rows of `pages`."""
    span = Span(run.start_ns, run.end_ns, cells_of(width))
    # Nothing was merged before the first of them.
    begins = lives["merged_ns"].fillna(run.start_ns).to_numpy(np.int64)
    ends = lives["ended_before_ns"].dropna().to_numpy(np.int64)
    ts = np.concatenate(([run.start_ns], begins, ends))
    steps = np.repeat([0.0, 1.0, -1.0], [1, len(begins), len(ends)])
    order = np.argsort(ts, kind="stable")
    values = gauge(ts[order], np.cumsum(steps[order]), span)
    merges = rates(lives["merged_ns"].dropna().to_numpy(np.int64), span)
    return chart(
        [_gauge(label, values), Strip("merges/s", spark(merges), f"0..{count(merges.max())}")],
        span,
        width,
    )


def _gauge(label: str, values: Floats) -> Strip:
    told = values[np.isfinite(values)]
    return Strip(
        label, spark(values), f"0..{count(float(told.max()))} pages" if len(told) else UNKNOWN
    )
