"""A whole run on one screen: strips over time, totals, and what to ask next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from ksmtrace.amounts import count, seconds, size
from ksmtrace.processes.identity import clean
from ksmtrace.timeline.tables import END, HOW
from ksmtrace.views.timeline_accounts import accounts_in_words, accounts_summary
from ksmtrace.views.timeline_parts import (
    Run,
    View,
    facts_grid,
    known,
    numbers,
    plain,
    several,
    total,
)
from ksmtrace.views.timeline_strip import (
    Floats,
    Span,
    Strip,
    cells_of,
    chart,
    gauge,
    marks,
    rates,
    segments,
    spark,
)

_JSON_CELLS = 100


def strip_chart(run: Run) -> View:
    """What `ksmtrace timeline REC` shows."""
    return View(
        render=lambda width: _render(run, width),
        csv=run.tables.scans,
        facts=lambda: _facts(run),
        tables={"scans": run.tables.scans, "advisor": run.tables.advisor},
    )


def _facts(run: Run) -> dict[str, Any]:
    span = Span(run.start_ns, run.end_ns, _JSON_CELLS)
    return {
        "start_ns": run.start_ns,
        "duration_s": (run.end_ns - run.start_ns) / 1e9,
        "totals": _totals(run),
        "how": counts(run.tables.pages["how"], HOW),
        "end": counts(run.tables.pages["end"], END),
        "accounts": accounts_summary(run),
        "strip": {
            "cell_s": span.cell_s,
            **{name: values.tolist() for name, values, _ in strip_rows(run, span)},
        },
    }


def counts(column: pd.Series[Any], names: tuple[str, ...]) -> dict[str, int]:
    """How often each of a table's words stands in a column."""
    found = column.value_counts()
    return {name: int(found.get(name, 0)) for name in names}


def _totals(run: Run) -> dict[str, Any]:
    scans, tables = run.tables.scans, run.tables
    return {
        "scans": len(scans),
        "merges": int(scans["merges"].sum()),
        "zero_merges": int(scans["zero_merges"].sum()),
        "inherited": total(scans["inherited"]),
        "failed_merges": int(scans["failed_merges"].sum()),
        "ksm_pages": len(tables.stable_pages),
        "lives": len(tables.pages),
        "breaks": len(tables.breaks) if run.manifest.get("cow") else None,
        "lost": lost_events(run),
        "saved_bytes_peak": _extreme(saved_bytes(run)),
        "saved_bytes_last": _last(saved_bytes(run)),
        "ksmd_cpu_s": plain(scans["ksmd_cpu_s"].sum(min_count=1)),
    }


def lost_events(run: Run) -> int:
    """How many events were lost."""
    at_samples = run.tables.accounts["lost"].max()
    return max(int(run.tables.scans["lost"].sum()), known(at_samples) or 0)


def saved_bytes(run: Run) -> Floats:
    """What the kernel's counters say is saved, at each sample; NaN: not known."""
    accounts = run.tables.accounts
    zero = numbers(accounts["zero_kernel"])
    if np.isnan(zero).all():
        # A kernel without that counter (before 6.6) does not count zero pages as saved.
        zero = np.zeros(len(zero))
    merged, shared = numbers(accounts["merged_kernel"]), numbers(accounts["shared_kernel"])
    return (merged - shared + zero) * run.page_bytes


def _extreme(values: Floats) -> int | None:
    told = values[np.isfinite(values)]
    return int(told.max()) if len(told) else None


def _last(values: Floats) -> int | None:
    told = values[np.isfinite(values)]
    return int(told[-1]) if len(told) else None


def _moments(column: pd.Series[Any]) -> npt.NDArray[np.int64]:
    told: npt.NDArray[np.int64] = column.dropna().to_numpy(np.int64)
    return told


Row = tuple[str, Floats, Callable[[Floats], Strip]]
"""A row's name in JSON, its cells, and how it looks."""


def strip_rows(run: Run, span: Span) -> Iterator[Row]:
    """The strips below that of the scans; those about which nothing is known are left out."""
    pages, accounts, advisor = run.tables.pages, run.tables.accounts, run.tables.advisor
    zero = (pages["how"] == "zero_page").to_numpy(bool)
    yield "merges_per_s", rates(_moments(pages["merged_ns"][~zero]), span), _rate("merges/s")
    if zero.any():
        merged = _moments(pages["merged_ns"][zero])
        yield "zero_merges_per_s", rates(merged, span), _rate("zero pages/s")
    if run.manifest.get("cow"):
        breaks = rates(_moments(run.tables.breaks["ts_ns"]), span)
        yield "breaks_per_s", breaks, _rate("breaks/s")
    else:
        ended = rates(_moments(pages["ended_before_ns"]), span)
        yield "ends_per_s", ended, _rate("ends/s")
    ts = accounts["ts_ns"].to_numpy(np.int64)
    if len(ts):
        saved = gauge(ts, saved_bytes(run), span)
        yield "saved_bytes", saved, _gauge("saved", size)
        shared = gauge(ts, numbers(accounts["shared_kernel"]), span)
        yield "ksm_pages", shared, _gauge("KSM pages", count)
    if len(advisor):
        decided = gauge(
            advisor["ts_ns"].to_numpy(np.int64), numbers(advisor["pages_to_scan"]), span
        )
        yield "pages_to_scan", decided, _between("advisor")
    if lost_events(run):
        yield "lost", _losses(run, span), _lost(lost_events(run))


def _rate(label: str) -> Callable[[Floats], Strip]:
    def strip(values: Floats) -> Strip:
        return Strip(label, spark(values), f"0..{count(float(values.max()))}")

    return strip


def _gauge(label: str, words: Callable[[float | None], str]) -> Callable[[Floats], Strip]:
    def strip(values: Floats) -> Strip:
        told = values[np.isfinite(values)]
        scale = f"0..{words(float(told.max()))}" if len(told) else words(None)
        return Strip(label, spark(values), scale)

    return strip


def _between(label: str) -> Callable[[Floats], Strip]:
    """The same for a knob, whose least value is not 0."""

    def strip(values: Floats) -> Strip:
        told = values[np.isfinite(values)]
        least, most = (float(told.min()), float(told.max())) if len(told) else (0.0, 0.0)
        if least == most:
            return Strip(label, spark(values), f"{count(most)} pages")
        return Strip(label, spark(values, least, most), f"{count(least)}..{count(most)} pages")

    return strip


def _lost(number: int) -> Callable[[Floats], Strip]:
    def strip(values: Floats) -> Strip:
        return Strip("LOST", marks(np.flatnonzero(values > 0), len(values)), f"{count(number)}")

    return strip


def _losses(run: Run, span: Span) -> Floats:
    """How many events were lost in each cell: at the sample that knew, or by the scan's end."""
    lost = np.zeros(span.cells)
    accounts, scans = run.tables.accounts, run.tables.scans
    if len(accounts) and accounts["lost"].max() > 0:
        since = np.diff(accounts["lost"].to_numpy(np.float64), prepend=0.0)
        np.add.at(lost, span.places(accounts["ts_ns"].to_numpy(np.int64)), since)
        return lost
    ends = scans["end_ns"].fillna(run.end_ns).to_numpy(np.int64)
    np.add.at(lost, span.places(ends), scans["lost"].to_numpy(np.float64))
    return lost


def _scans(run: Run, span: Span) -> Strip:
    """The scans: each with its number where there is room, else how many a second."""
    scans = run.tables.scans
    if not len(scans):
        return Strip("scans", "", "none")
    numbers_ = scans["scan"].to_numpy(np.int64)
    scale = f"{numbers_.min()}..{numbers_.max()}"
    starts = scans["start_ns"].fillna(run.start_ns).to_numpy(np.int64)
    if len(scans) > span.cells // 3:
        values = rates(starts, span)
        return Strip(
            "scans/s",
            spark(values),
            f"0..{float(values.max()):,.1f}, {scale.replace('..', ' to ')}",
        )
    # One that never ended goes on until the next begins, or the recording's end.
    following = np.append(starts[1:], run.end_ns)
    ends = scans["end_ns"].to_numpy(np.float64, na_value=np.nan)
    ends = np.where(np.isnan(ends), following, ends)
    names = [str(number) for number in numbers_.tolist()]
    return Strip(
        "scans", segments(span.places(starts), span.places(ends), names, span.cells), scale
    )


def _render(run: Run, width: int) -> RenderableType:
    span = Span(run.start_ns, run.end_ns, cells_of(width))
    strips = [_scans(run, span), *(look(values) for _, values, look in strip_rows(run, span))]
    return Group(
        Text(_title(run), style="bold"),
        "",
        chart(strips, span, width),
        "",
        facts_grid([*_words(run), ("accounts", accounts_in_words(run))]),
        *_look_closer(run),
    )


def _look_closer(run: Run) -> list[RenderableType]:
    found = [Text(f"  {example}") for example in examples(run)]
    return ["", Text("look closer:", style="bold"), *found] if found else []


def _title(run: Run) -> str:
    duration = seconds((run.end_ns - run.start_ns) / 1e9)
    manifest = run.manifest
    return f"{clean(run.name)}: {duration}, Linux {clean(str(manifest.get('kernel')))}, " + clean(
        str(manifest.get("backend"))
    )


def _words(run: Run) -> Iterator[tuple[str, str]]:
    totals = _totals(run)
    how = {k: v for k, v in counts(run.tables.pages["how"], HOW).items() if v}
    end = {k: v for k, v in counts(run.tables.pages["end"], END).items() if v}
    merged = f"{count(totals['merges'])} in {several(totals['scans'], 'scan')}"
    if totals["zero_merges"]:
        merged += f", {count(totals['zero_merges'])} onto the zero page"
    if totals["failed_merges"]:
        merged += f"; {count(totals['failed_merges'])} failed"
    yield "merges", merged
    yield "KSM pages", f"{count(totals['ksm_pages'])} that the events tell of"
    if how:
        yield "how", ", ".join(f"{count(v)} {k}" for k, v in how.items())
        yield "ends", ", ".join(f"{count(v)} {k}" for k, v in end.items())
    saved = totals["saved_bytes_peak"]
    if saved is not None:
        yield "saved", f"{size(saved)} at most, {size(totals['saved_bytes_last'])} at the end"
    if totals["lost"]:
        yield "LOST", f"{count(totals['lost'])} events: what is told here is not all"


def examples(run: Run) -> Iterator[str]:
    """Commands that have something to show in this very recording."""
    command = f"ksmtrace timeline {shlex.quote(clean(run.name))}"
    tables = run.tables
    if len(tables.scans):
        most = (tables.scans["merges"] + tables.scans["zero_merges"]).to_numpy().argmax()
        yield f"{command} --scan {tables.scans['scan'].iloc[int(most)]}"
    if len(tables.processes):
        row = int(tables.processes["merges"].to_numpy().argmax())
        same = tables.processes["tgid"] == tables.processes["tgid"].iloc[row]
        tgid = int(tables.processes["tgid"].iloc[row])
        yield f"{command} --process {tgid if tgid and same.sum() == 1 else f'@{row}'}"
    if run.addresses_known and (page := _example_page(tables.pages)):
        yield f"{command} --page {page}"
    if len(tables.stable_pages):
        shared = int(tables.stable_pages["sharers_peak"].to_numpy().argmax())
        yield f"{command} --ksm-page {shared}"
        yield f"{command} --sharing"
    if run.manifest.get("cow"):
        yield f"{command} --breaks"


def _example_page(pages: pd.DataFrame) -> str | None:
    """One that has ended, if any has."""
    if not len(pages):
        return None
    nameable = (pages["addr"].to_numpy() != 0) & (pages["tgid"].to_numpy() != 0)
    ended = nameable & (pages["end"] != "still_merged").to_numpy(bool)
    chosen = ended if ended.any() else nameable
    if not chosen.any():
        return None
    row = pages.iloc[int(chosen.argmax())]
    return f"{row['tgid']}:{int(row['addr']):x}"
