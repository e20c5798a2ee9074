"""One KSM page: born, shared, dead, and by whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.processes.identity import clean
from ksmtrace.views.timeline_history import lives_strip
from ksmtrace.views.timeline_parts import (
    Run,
    View,
    facts_grid,
    known,
    process_label,
    records,
    several,
    table_of,
    titled,
)

_MOST_SHARERS = 15
_ENDS = {
    "alive": "alive at the end, as far as is known",
    "stale": "ksmd found it dead",
    "unmerged": "unmerged with run=2",
    "frame_reused": "another KSM page was made of its frame before ksmd found it dead",
    "unknown": "it ended, how is not known",
}


def ksm_page_view(run: Run, row: int) -> View:
    """What `--ksm-page ID` shows. row: of `stable_pages`."""
    tables = run.tables
    one = tables.stable_pages.iloc[[row]]
    one = one.assign(ksm_page=row)[["ksm_page", *tables.stable_pages.columns]]
    lives = tables.pages[(tables.pages["ksm_page"] == row).fillna(value=False).to_numpy(bool)]
    sharers = sharers_of(lives, tables.processes)
    return View(
        render=lambda width: _render(run, one, lives, sharers, width),
        csv=sharers,
        facts=lambda: {"start_ns": run.start_ns, "ksm_page": records(one)[0]},
        tables={"sharers": sharers, "lives": lives},
    )


def sharers_of(lives: pd.DataFrame, processes: pd.DataFrame) -> pd.DataFrame:
    """Processes by how many of their pages were ever mapped onto it, most first.

    Columns: process (NA: not known), tgid, comm, cgroup, vm, pages_ever, pages_last (int64).
    """
    codes = lives["process"].fillna(-1).to_numpy(np.int64)
    ids, places = np.unique(codes, return_inverse=True)
    going_on = lives["ended_before_ns"].isna().to_numpy(bool) & (
        lives["end"] == "still_merged"
    ).to_numpy(bool)
    numbers = pd.array(np.where(ids < 0, 0, ids), dtype="Int32")
    numbers[ids < 0] = pd.NA
    table = pd.DataFrame(
        {
            "process": numbers,
            "tgid": processes["tgid"].reindex(ids).astype("Int64").array,
            **{n: processes[n].reindex(ids).array for n in ("comm", "cgroup", "vm")},
            "pages_ever": np.bincount(places, minlength=len(ids)),
            "pages_last": np.bincount(places[going_on], minlength=len(ids)),
        }
    )
    return table.sort_values("pages_ever", ascending=False, ignore_index=True)


def _render(
    run: Run, page: pd.DataFrame, lives: pd.DataFrame, sharers: pd.DataFrame, width: int
) -> RenderableType:
    one = page.to_dict("records")[0]
    table = table_of("process", "cgroup", "pages ever", "at the end", left=2)
    for row in sharers.head(_MOST_SHARERS).to_dict("records"):
        group = UNKNOWN if pd.isna(row["cgroup"]) else clean(str(row["cgroup"]))
        table.add_row(
            Text(process_label(run.tables.processes, row["process"])),
            Text(group),
            count(row["pages_ever"]),
            count(row["pages_last"]),
        )
    if len(sharers) > _MOST_SHARERS:
        table.add_row(f"and {count(len(sharers) - _MOST_SHARERS)} more; --json lists all")
    return Group(
        Text(f"KSM page {one['ksm_page']}, frame {int(one['pfn']):#x}", style="bold"),
        "",
        facts_grid(_facts(run, one, sharers)),
        "",
        lives_strip(run, lives, "sharers", width),
        "",
        titled(f"who shared it ({several(len(sharers), 'address space')})", table)
        if len(sharers)
        else Text("No page is known to share it."),
    )


def _facts(run: Run, one: dict[Any, Any], sharers: pd.DataFrame) -> Iterator[tuple[str, str]]:
    if pd.isna(one["born_ns"]):
        yield "born", "before the recording"
    else:
        yield "born", f"{run.moment(one['born_ns'])}, in scan {count(known(one['born_scan']))}"
    died = "" if pd.isna(one["died_ns"]) else f", noticed at {run.moment(one['died_ns'])}"
    yield "end", f"{_ENDS[str(one['end'])]}{died}"
    last, peak = count(one["sharers_last"]), count(one["sharers_peak"])
    yield "sharers", f"{peak} pages at most, {last} at the end, {count(one['merges'])} ever"
    groups, guests = sharers["cgroup"].nunique(), sharers["vm"].nunique()
    among = several(one["processes"], "address space")
    among += f" in {several(groups, 'cgroup')}" if groups else ""
    yield "among", among + (f", {several(guests, 'VM')}" if guests else "")
    chain = "can't be told" if pd.isna(one["in_chain"]) else ("no", "yes")[bool(one["in_chain"])]
    yield "in a chain", chain
