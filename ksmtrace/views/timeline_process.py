"""One process: how its pages were merged and ended, when, where, and who wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, size
from ksmtrace.processes.identity import clean
from ksmtrace.timeline.tables import END, HOW
from ksmtrace.views.timeline_history import lives_strip
from ksmtrace.views.timeline_parts import (
    Run,
    View,
    facts_grid,
    known,
    plain,
    process_label,
    records,
    table_of,
    time_to,
    titled,
)
from ksmtrace.views.timeline_regions import ledger_table
from ksmtrace.views.timeline_writers import writers_of, writers_table

_MOST_PROCESSES = 30
_NOBODY = "No process is in this recording."
_SHORT = {"still_merged": "still", "joined_or_inherited": "joined/inherited"}


def process_view(run: Run, row: int) -> View:
    """What `--process P` shows. row: of `processes`."""
    tables = run.tables
    one = tables.processes.iloc[[row]]
    history = tables.process_history
    history = history[(history["process"] == row).fillna(value=False).to_numpy(bool)]
    lives = tables.pages[(tables.pages["process"] == row).fillna(value=False).to_numpy(bool)]
    cross = how_by_end(lives)
    regions = tables.region_ledger
    regions = regions[(regions["process"] == row).fillna(value=False).to_numpy(bool)]
    breaks = tables.breaks
    writers = writers_of(breaks[(breaks["process"] == row).fillna(value=False).to_numpy(bool)])
    return View(
        render=lambda width: _render(run, one, lives, cross, regions, writers, width),
        csv=history,
        facts=lambda: {"start_ns": run.start_ns, "process": records(one)[0]},
        tables={"history": history, "how_by_end": cross, "regions": regions, "writers": writers},
    )


def processes_view(run: Run) -> View:
    """What `--process` without a P shows."""
    processes = run.tables.processes
    return View(
        render=lambda _width: _listed(run, processes) if len(processes) else Text(_NOBODY),
        csv=processes,
        facts=lambda: {"start_ns": run.start_ns},
        tables={"processes": processes},
    )


def _listed(run: Run, processes: pd.DataFrame) -> RenderableType:
    table = table_of("row", "process", "merges", "zero", "failed", "ended", "merged", "at most",
                     "breaks", left=2)  # fmt: skip
    weight = (processes["merges"] + processes["zero_merges"]).to_numpy()
    most = weight.argsort(kind="stable")[::-1][:_MOST_PROCESSES]
    for one in processes.iloc[most].to_dict("records"):
        table.add_row(
            f"@{one['process']}",
            Text(process_label(processes, one["process"])),
            *(count(one[name]) for name in ("merges", "zero_merges", "failed_merges", "ended")),
            count(one["merged_last"]),
            count(one["merged_peak"]),
            count(one["breaks"] if run.manifest.get("cow") else None),
        )
    if len(processes) > len(most):
        table.add_row("…", f"{count(len(processes) - len(most))} more; --csv has all")
    return titled(f"processes ({count(len(processes))})", table)


def how_by_end(lives: pd.DataFrame) -> pd.DataFrame:
    """How pages were merged (rows, `how`) by how their lives ended (columns), as counts."""
    how = pd.Categorical(lives["how"].astype(str), categories=list(HOW)) if len(lives) else None
    end = pd.Categorical(lives["end"].astype(str), categories=list(END)) if len(lives) else None
    counted = np.zeros((len(HOW), len(END)), np.int64)
    if how is not None and end is not None:
        codes = how.codes.astype(np.int64) * len(END) + end.codes
        counted = np.bincount(codes, minlength=counted.size).reshape(counted.shape)
    table = pd.DataFrame(counted, columns=list(END))
    table.insert(0, "how", list(HOW))
    return table.iloc[np.flatnonzero(counted.any(axis=1))].reset_index(drop=True)


def _render(
    run: Run,
    process: pd.DataFrame,
    lives: pd.DataFrame,
    cross: pd.DataFrame,
    regions: pd.DataFrame,
    writers: pd.DataFrame,
    width: int,
) -> RenderableType:
    one = process.to_dict("records")[0]
    label = process_label(run.tables.processes, one["process"])
    parts: list[RenderableType] = [
        Text(f"process {label} (@{one['process']})" if one["tgid"] else label, style="bold"),
        "",
        facts_grid(_facts(run, one)),
        "",
        lives_strip(run, lives, "merged", width),
        "",
    ]
    if len(cross):
        parts += [_cross(cross), ""]
    if len(regions):
        parts += [ledger_table(run, regions, whose=False), ""]
    if len(writers):
        parts += [writers_table("who wrote to its merged pages", writers, whose=False), ""]
    return Group(*parts[:-1])


def _facts(run: Run, one: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    for name in ("vm", "cgroup"):
        if not pd.isna(one[name]):
            yield name, clean(str(one[name]))
    parent = known(one["parent_tgid"])
    entered = (
        "before the recording" if pd.isna(one["entered_ns"]) else run.moment(one["entered_ns"])
    )
    forked = "" if parent is None else f", forked by {parent}"
    left = "" if pd.isna(one["exited_ns"]) else f", exited at {run.moment(one['exited_ns'])}"
    yield "registered", f"{entered}{forked}{left}"
    yield from counts_in_words(run, one)
    sampled = [
        f"{count(number)} {words}"
        for name, words in (
            ("ksm_merging_pages", "merged"),
            ("ksm_zero_pages", "zero pages"),
            ("ksm_rmap_items", "rmap_items"),
        )
        if (number := known(one[name])) is not None
    ]
    profit = known(one["profit_bytes"])
    yield "last sample", ", ".join([*sampled, f"profit {size(profit)}"]) if sampled else UNKNOWN


def counts_in_words(run: Run, one: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """The summed columns of a process or a region."""
    inherited = known(one["inherited"])
    merges = f"{count(one['merges'])}, {count(inherited)} of them inherited by fork"
    yield "merges", f"{merges}; {count(one['zero_merges'])} more onto the zero page"
    if one["failed_merges"]:
        yield "failed", count(one["failed_merges"])
    ended = f"{count(one['ended'])} lives"
    if run.manifest.get("cow"):
        ended += f"; {count(one['breaks'])} writes seen"
    yield "ended", ended
    last, peak = one["merged_last"], one["merged_peak"]
    saved = size(last * run.page_bytes)
    yield "merged", f"{count(last)} pages at the end ({saved}), {count(peak)} at most"
    yield "converged", time_to({str(k): plain(v) for k, v in one.items()})


def _cross(cross: pd.DataFrame) -> RenderableType:
    ends = [end for end in END if cross[end].any()]
    headings = (_SHORT.get(end, end).replace("_", " ") for end in ends)
    table = table_of("", *headings, "all")
    for row in cross.to_dict("records"):
        cells = [count(row[end]) for end in ends]
        how = _SHORT.get(row["how"], row["how"]).replace("_", " ")
        table.add_row(how, *cells, count(sum(row[end] for end in ends)))
    return titled("how its pages were merged, and how that ended", table)
