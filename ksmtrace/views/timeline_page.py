"""One page: every life it had as a merged page, told in sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.views.breaks import where
from ksmtrace.views.timeline_parts import Run, View, known, process_label, several
from ksmtrace.views.timeline_regions import place

_MOST_LIVES = 10
_MOST_OTHERS = 5
_ENDS = {
    "cow_break": "a write broke it",
    "unmapped": "it was given up (munmap, madvise, mremap or the like)",
    "exit": "it went with its address space",
    "unmerged": "it was unmerged (MADV_UNMERGEABLE, prctl or run=2)",
    "stale": "it went with its KSM page, which ksmd found dead",
    "unknown": "ksmd met it again unmerged",
}

Rows = npt.NDArray[np.int64]


def page_view(run: Run, rows: Rows, address: int) -> View:
    """What `--page PID:ADDR` shows. rows: its lives, of `pages`, in order."""
    lives = run.tables.pages.iloc[rows]
    lives = lives.assign(page=rows)[["page", *lives.columns]]
    return View(
        render=lambda _width: _render(run, lives, address),
        csv=lives,
        facts=lambda: {"start_ns": run.start_ns, "addr": address},
        tables={"lives": lives},
    )


def _render(run: Run, lives: pd.DataFrame, address: int) -> RenderableType:
    told = lives
    left_out = max(len(lives) - _MOST_LIVES, 0)
    if left_out:
        told = pd.concat((lives.iloc[: _MOST_LIVES // 2], lives.iloc[-(_MOST_LIVES // 2) :]))
    parts: list[RenderableType] = [_title(run, lives, address), ""]
    numbered = [*range(1, len(lives) + 1)]
    if left_out:
        numbered = numbered[: _MOST_LIVES // 2] + numbered[-(_MOST_LIVES // 2) :]
    before = None
    for number, life in zip(numbered, told.to_dict("records"), strict=True):
        if before is not None and number > before + 1:
            parts += [Text(f"… {count(left_out)} more lives; --csv has all"), ""]
        parts += [Text(" ".join((f"{number}.", *sentences(run, life)))), ""]
        before = number
    return Group(*parts[:-1])


def _title(run: Run, lives: pd.DataFrame, address: int) -> Text:
    owners = lives["process"].dropna().unique()
    who = (
        process_label(run.tables.processes, owners[0]) if len(owners) == 1 else "several processes"
    )
    regions = lives["region"].dropna().unique()
    ledger = run.tables.region_ledger
    there = ""
    if len(regions) == 1 and 0 <= int(regions[0]) < len(ledger):
        there = f", region {place(ledger.iloc[[int(regions[0])]].to_dict('records')[0])}"
    lived = f"merged {count(len(lives))} times" if len(lives) > 1 else "merged once"
    return Text(f"page {address:#x} of {who}{there}: {lived}", style="bold")


def sentences(run: Run, life: dict[Any, Any]) -> list[str]:
    """A life in words. life: a row of `pages`, with its number in `page`."""
    told = [_beginning(run, life)]
    waited = known(life["scans_waited"])
    if waited is not None:
        needed = several(waited, "full scan")
        told.append(f"ksmd needed {needed} since it could first see it.")
    if not pd.isna(life["ksm_page"]):
        told.append(_company(run, life))
    told = [sentence for sentence in told if sentence]
    told.append(_ending(run, life))
    return told


def _beginning(run: Run, life: dict[Any, Any]) -> str:
    node = known(life["ksm_page"])
    page = "the zero page" if node is None else f"KSM page {node}"
    if pd.isna(life["merged_ns"]):
        return f"Already merged with {page} when the recording began."
    scan = UNKNOWN if pd.isna(life["scan"]) else life["scan"]
    when = f"In scan {scan}, at {run.moment(life['merged_ns'])},"
    return {
        "created": f"{when} it became {page}, the first of two equal pages.",
        "partner": f"{when} it became {page}, the second of two equal pages.",
        "joined": f"{when} it was mapped onto {page}, which was there already.",
        "inherited": f"{when} it was found on {page}, which a fork already shared.",
        "joined_or_inherited": f"{when} it came onto {page}, or a fork already shared it.",
        "zero_page": f"{when} it was mapped onto the zero page.",
        "before": f"Already merged with {page} when the recording began.",
    }[str(life["how"])]


def _company(run: Run, life: dict[Any, Any]) -> str:
    """Who else was on its KSM page when it came."""
    pages = run.tables.pages
    at = run.start_ns if pd.isna(life["merged_ns"]) else int(life["merged_ns"])
    mates = pages[(pages["ksm_page"] == life["ksm_page"]).fillna(value=False).to_numpy(bool)]
    halves = {"created": "partner", "partner": "created"}
    if (how := str(life["how"])) in halves:
        return _twin(run, mates[(mates["how"] == halves[how]).to_numpy(bool)])
    there = (mates["merged_ns"].fillna(run.start_ns) <= at) & (
        mates["ended_before_ns"].isna() | (mates["ended_before_ns"] > at)
    )
    others = mates[there.fillna(value=False).to_numpy(bool) & (mates.index != life["page"])]
    if not len(others):
        return "No other page known was on it then."
    by_process = others["process"].value_counts(dropna=False)
    words = [
        f"{process_label(run.tables.processes, process)} ({count(number)})"
        for process, number in list(by_process.items())[:_MOST_OTHERS]
    ]
    more = len(by_process) - len(words)
    if more:
        words.append(f"{count(more)} more processes")
    verb = "was" if len(others) == 1 else "were"
    there_then = f"{several(len(others), 'other page')} {verb} on it then"
    return f"{there_then}: {', '.join(words)}."


def _twin(run: Run, twins: pd.DataFrame) -> str:
    if not len(twins):
        return ""
    twin = twins.iloc[0]
    whose = process_label(run.tables.processes, twin["process"])
    return f"The other was {int(twin['addr']):#x} of {whose}."


def _ending(run: Run, life: dict[Any, Any]) -> str:
    end = str(life["end"])
    if end == "still_merged":
        return "It was still merged at the end, as far as is known."
    after, before = (
        run.since_start(life["ended_after_ns"]),
        run.since_start(life["ended_before_ns"]),
    )
    if before is None:
        when = "at an unknown time" if after is None else f"after {after:,.3f} s"
    elif after is None or f"{after:.3f}" == f"{before:.3f}":
        when = f"{'by' if after is None else 'at'} {before:,.3f} s"
    else:
        when = f"between {after:,.3f} s and {before:,.3f} s"
    # Where nothing proves it, it is only the last thing that can have ended the life.
    doubt = "" if life["proven"] else "; if not something unseen did before"
    return f"It ended {when}: {_ENDS[end]}{doubt}{_written_from(run, life)}."


def _written_from(run: Run, life: dict[Any, Any]) -> str:
    breaks = run.tables.breaks
    found = breaks[(breaks["page"] == life["page"]).fillna(value=False).to_numpy(bool)]
    if not len(found):
        return ""
    row = found.iloc[[-1]].to_dict("records")[0]
    kernel = ", by the kernel for it" if row["kernel_mode"] else ""
    return f", from {where(row)}{kernel}"
