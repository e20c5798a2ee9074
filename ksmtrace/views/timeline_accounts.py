"""The accounts: what the events say, what the kernel counts, and what explains the difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.processes.identity import clean
from ksmtrace.views.timeline_parts import (
    Run,
    View,
    facts_grid,
    known,
    numbers,
    plain,
    several,
    table_of,
    titled,
)

CLASSES = {
    "silent": "ended without an event; noticed later in the stream",
    "unnoticed": "broken or gone, but not yet met by ksmd",
    "open": "lives without an end that the kernel no longer counts, or never did",
    "before": "merged before the recording and never named",
    "lost": "events lost until then",
}
_MOST_ROWS = 24


def accounts_summary(run: Run) -> dict[str, Any]:
    """For --json: how many samples, the largest residuals, and the most of each class."""
    accounts = run.tables.accounts
    told = accounts["residual"].dropna()
    zero = accounts["zero_residual"].dropna()
    return {
        "samples": len(accounts),
        "samples_with_counters": len(told),
        "residual_pages_at_most": known(told.abs().max()) if len(told) else None,
        "zero_residual_pages_at_most": known(zero.abs().max()) if len(zero) else None,
        **{f"{name}_at_most": known(accounts[name].max()) for name in CLASSES},
    }


def accounts_in_words(run: Run) -> str:
    """One or two sentences on whether the events account for what the kernel counts."""
    summary = accounts_summary(run)
    worst = summary["residual_pages_at_most"]
    if worst is None and run.manifest.get("only_pids") and summary["samples"]:
        return "not compared: the kernel counts every process, the recording has some (--pid)"
    if worst is None:
        return "no counters to compare with: the recording has no sample of them"
    samples = several(summary["samples_with_counters"], "sample")
    zero = summary["zero_residual_pages_at_most"]
    if not worst:
        words = f"the events account for every page the kernel counts ({samples})"
    else:
        wrong = run.tables.accounts[(run.tables.accounts["residual"] != 0).fillna(value=False)]
        words = (
            f"up to {count(worst)} merged pages remain unexplained, in {count(len(wrong))} of"
            f" {samples}, first at {run.moment(wrong['ts_ns'].iloc[0])}"
        )
    explained = [
        f"up to {count(summary[f'{name}_at_most'])} {name}"
        for name in CLASSES
        if summary[f"{name}_at_most"]
    ]
    if explained:
        words += f", allowing for {', '.join(explained)}"
    return words + (f"; up to {count(zero)} zero pages remain unexplained" if zero else "")


def accounts_view(run: Run) -> View:
    """What `--accounts` shows."""
    return View(
        render=lambda _width: _render(run),
        csv=run.tables.accounts,
        facts=lambda: {"start_ns": run.start_ns, "summary": accounts_summary(run)},
        tables={"accounts": run.tables.accounts},
    )


def _render(run: Run) -> RenderableType:
    accounts = run.tables.accounts
    if not len(accounts):
        return Text(
            "The recording has no sample of the counters: there is nothing to compare with."
        )
    shown = shown_samples(accounts)
    title = f"samples ({count(len(accounts))})"
    if len(shown) < len(accounts):
        title += f", {count(len(shown))} of them; --csv has all"
    told = [(name, words) for name, words in CLASSES.items() if accounts[name].max()]
    return Group(
        facts_grid([("accounts", accounts_in_words(run))]),
        "",
        titled(title, accounts_rows(run, shown)),
        "",
        facts_grid(
            [
                ("kernel", "pages_shared + pages_sharing"),
                ("by events", "pages that must and that may be merged"),
                ("zero", "ksm_zero_pages, and those unexplained by the events, if any"),
                *told,
                ("residual", "what none of this explains"),
            ]
        ),
    )


def shown_samples(accounts: pd.DataFrame) -> pd.DataFrame:
    """As many samples as fit a screen: the first, the last, the worst, and some between."""
    if len(accounts) <= _MOST_ROWS:
        return accounts
    size = np.abs(np.nan_to_num(numbers(accounts["residual"])))
    worst = np.argsort(-size, kind="stable")[: _MOST_ROWS // 3]
    spread = np.linspace(0, len(accounts) - 1, _MOST_ROWS - len(worst)).astype(int)
    return accounts.iloc[np.unique(np.concatenate((worst[size[worst] > 0], spread)))]


def accounts_rows(run: Run, samples: pd.DataFrame) -> Table:
    """Samples as a table; fits 80 columns."""
    classes = [name for name in CLASSES if len(samples) and samples[name].max()]
    table = table_of("at", "taken", "kernel", "by events", *classes, "residual", "zero",
                     left=2)  # fmt: skip
    for row in samples.to_dict("records"):
        least, most = known(row["merged_least"]), known(row["merged_most"])
        zero = count(known(row["zero_kernel"]))
        if known(row["zero_residual"]):
            zero += f" ({known(row['zero_residual']):+,})"
        residual = known(row["residual"])
        table.add_row(
            run.moment(row["ts_ns"]),
            UNKNOWN if pd.isna(row["reason"]) else Text(clean(str(plain(row["reason"])))),
            count(known(row["merged_kernel"])),
            count(least) if least == most else f"{count(least)} to {count(most)}",
            *(count(known(row[name])) for name in classes),
            UNKNOWN if residual is None else f"{residual:+,}" if residual else "0",
            zero,
        )
    return table
