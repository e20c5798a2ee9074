"""One full scan: what it did, to whom, and what stood at its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.timeline.tables import HOW
from ksmtrace.views.timeline_accounts import accounts_rows
from ksmtrace.views.timeline_parts import (
    Run,
    View,
    facts_grid,
    known,
    known_float,
    plain,
    process_label,
    records,
    table_of,
    titled,
)

_MOST_PROCESSES = 20


def scan_view(run: Run, row: int) -> View:
    """What `--scan N` shows. row: of `scans`."""
    tables = run.tables
    scan = tables.scans.iloc[[row]]
    number = int(scan["scan"].iloc[0])
    merged = tables.pages[(tables.pages["scan"] == number).fillna(value=False).to_numpy(bool)]
    who = merged_by_process(merged, tables.processes)
    samples = tables.accounts[tables.accounts["scan"] == number]
    # Those at its very end, if any; the scan's number goes on until the next begins.
    accounts = samples[samples["reason"] == "scan"] if len(samples) else samples
    accounts = (accounts if len(accounts) else samples).iloc[-1:]
    advisor = tables.advisor[tables.advisor["scan"] == number]
    return View(
        render=lambda _width: _render(run, scan, who, accounts, advisor),
        csv=who,
        facts=lambda: {"start_ns": run.start_ns, "scan": records(scan)[0]},
        tables={"processes": who, "accounts": accounts, "advisor": advisor},
    )


def merged_by_process(lives: pd.DataFrame, processes: pd.DataFrame) -> pd.DataFrame:
    """How the pages of each process were merged, most first.

    One row a process: process (row of `processes`; NA: not known), tgid, comm, cgroup, vm, merged,
    and a column of each word of HOW.
    """
    codes = lives["process"].fillna(-1).to_numpy(np.int64)
    ids, places = np.unique(codes, return_inverse=True)
    columns: dict[str, Any] = {"process": pd.array(np.where(ids < 0, 0, ids), dtype="Int32")}
    columns["process"][ids < 0] = pd.NA
    for name in ("tgid", "comm", "cgroup", "vm"):
        taken = processes[name].reindex(ids)
        columns[name] = taken.astype("Int64").array if name == "tgid" else taken.array
    columns["merged"] = np.bincount(places, minlength=len(ids))
    for how in HOW:
        of_it = (lives["how"] == how).to_numpy(bool)
        columns[how] = np.bincount(places[of_it], minlength=len(ids))
    return pd.DataFrame(columns).sort_values("merged", ascending=False, ignore_index=True)


def _render(
    run: Run,
    scan: pd.DataFrame,
    who: pd.DataFrame,
    accounts: pd.DataFrame,
    advisor: pd.DataFrame,
) -> RenderableType:
    one = scan.to_dict("records")[0]
    parts: list[RenderableType] = [
        Text(f"scan {one['scan']}, the kernel's number {count(known(one['seq']))}", style="bold"),
        "",
        facts_grid(_facts(run, one)),
        "",
    ]
    if len(who):
        parts += [_processes(run, who), ""]
    else:
        parts += [Text("Nothing was merged in it."), ""]
    for decision in advisor.to_dict("records"):
        parts += [Text(decision_in_words(decision)), ""]
    if len(accounts):
        parts.append(titled("the counters at its end", accounts_rows(run, accounts)))
    else:
        parts.append(Text("No sample of the counters belongs to it."))
    return Group(*parts)


def _facts(run: Run, one: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    begun = (
        "began before the recording" if pd.isna(one["start_ns"]) else run.moment(one["start_ns"])
    )
    over = "end not recorded" if pd.isna(one["end_ns"]) else run.moment(one["end_ns"])
    took = seconds(known_float(one["duration_s"]))
    yield "time", f"{begun} to {over}: {took}"
    before, after = known(one["items_before"]), known(one["items_after"])
    yield "items", f"{count(before)} at its start, {count(after)} at its end"
    visited = known(one["pages_scanned"])
    yield "visited", f"{count(visited)} pages, {count(known(one['pages_skipped']))} skipped"
    merges = f"{count(one['merges'])}, {count(known(one['inherited']))} of them inherited by fork"
    yield "merges", f"{merges}; {count(one['zero_merges'])} more onto the zero page"
    failed = count(one["failed_merges"])
    if one["failed_merges"]:
        failed += (
            f": {count(one['failed_efault'])} with EFAULT, {count(one['failed_other'])} others"
        )
    yield "failed", failed
    yield (
        "KSM pages",
        f"{count(one['ksm_pages_new'])} made, {count(one['ksm_pages_dead'])} found dead",
    )
    if run.manifest.get("cow"):
        yield "breaks", f"{count(one['breaks'])} writes to merged pages seen"
    saved = f"{count(known(one['pages_saved']))} pages, {size(known(one['saved_bytes']))}"
    yield "saved", f"{saved} after it"
    yield "ksmd CPU", seconds(known_float(one["ksmd_cpu_s"]))
    if one["lost"]:
        yield "LOST", f"{count(one['lost'])} events: what is told here is not all"


def _processes(run: Run, who: pd.DataFrame) -> RenderableType:
    hows = [how for how in HOW if who[how].any()]
    table = table_of("merged in it", "pages", *(how.replace("_", " ") for how in hows))
    for row in who.head(_MOST_PROCESSES).to_dict("records"):
        label = process_label(run.tables.processes, row["process"])
        table.add_row(Text(label), count(row["merged"]), *(count(row[how]) for how in hows))
    if len(who) > _MOST_PROCESSES:
        table.add_row(f"and {count(len(who) - _MOST_PROCESSES)} more; --json lists all")
    return table


def decision_in_words(decision: dict[Any, Any]) -> str:
    """An advisor's decision and what it was computed from."""
    before, computed = known(decision["pages_before"]), known(decision["computed"])
    agrees = plain(decision["agrees"])
    check = {None: "what the formula gives is not known", True: "as the formula gives"}.get(
        agrees, f"the formula gives {count(computed)}"
    )
    return (
        f"The advisor measured {count(decision['scan_time_s'])} s and"
        f" {count(decision['cpu_percent'])} % CPU (target"
        f" {count(known(decision['target_scan_time_s']))} s, at most"
        f" {count(known(decision['max_cpu_percent']))} %) and set pages_to_scan from"
        f" {UNKNOWN if before is None else count(before)} to {count(decision['pages_to_scan'])}:"
        f" {check}."
    )
