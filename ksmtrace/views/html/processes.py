"""Processes and their mappings, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from ksmtrace.amounts import count, seconds, size
from ksmtrace.views.html.markup import Column, Html, Part, joined, paragraph, table
from ksmtrace.views.html.material import MOST_ROWS, Material, fullest, left_out
from ksmtrace.views.timeline_parts import known, known_float, process_label
from ksmtrace.views.timeline_regions import place

_MERGES = Column("merges", meaning="pages that came to share a KSM page")
_ZERO = Column("zero", meaning="pages that came onto the kernel's page of zeroes")
_NOW = Column("merged at the end", meaning="pages still merged at the end, as far as is known")
_PEAK = Column("at most", meaning="most pages merged at once")
_TO_90 = Column("90 % in", meaning="time until 90 % of what it shares at the end was shared")


def processes_part(material: Material) -> Part:
    """The section of the processes and mappings."""
    processes, ledger = material.run.tables.processes, material.run.tables.region_ledger
    if not len(processes):
        body = paragraph("No process is known: the recording tells of none.")
        return Part("processes", "Processes", body)
    cut = left_out(min(MOST_ROWS, len(processes)), len(processes), "table of processes")
    cut += left_out(min(MOST_ROWS, len(ledger)), len(ledger), "table of mappings")
    told = [*_processes(material, processes), *_mappings(material, ledger)]
    return Part("processes", "Processes", joined(told), cut=cut)


def _processes(material: Material, processes: pd.DataFrame) -> Iterator[Html]:
    by_id = {p.tgid: p for p in material.summary.processes}
    columns = [
        Column("process", "name"),
        Column("cgroup", "name"),
        _MERGES,
        Column("by fork", meaning="of the merges those that a fork had shared already"),
        _ZERO,
        _NOW,
        _PEAK,
        Column("saves", meaning="by its own ksm_stat at its last sample"),
        Column("profit", meaning="ksm_process_profit: saved, less what ksmd's list takes for it"),
        _TO_90,
    ]
    chosen = fullest(processes, MOST_ROWS)
    rows = []
    for number, row in zip(chosen.tolist(), processes.iloc[chosen].to_dict("records"), strict=True):
        summed = by_id.get(int(row["tgid"]))
        saved = None if summed is None else summed.saved_bytes(material.run.page_bytes)
        rows.append(
            [
                process_label(processes, number),
                _text(row["cgroup"]),
                count(row["merges"]),
                count(known(row["inherited"])),
                count(row["zero_merges"]),
                count(row["merged_last"]),
                count(row["merged_peak"]),
                size(saved),
                size(known(row["profit_bytes"])),
                seconds(known_float(row["time_to_90_s"])),
            ]
        )
    yield table(f"Processes ({count(len(processes))})", columns, rows)
    if len(chosen) < len(processes):
        yield _few(len(chosen), len(processes), "processes", "ksmtrace timeline --process")


def _mappings(material: Material, ledger: pd.DataFrame) -> Iterator[Html]:
    if not len(ledger):
        return
    columns = [
        Column("mapping", "name"),
        Column("process", "name"),
        Column("size"),
        _MERGES,
        _ZERO,
        Column("ended", meaning="merged pages that are so no more"),
        _NOW,
        _PEAK,
        _TO_90,
    ]
    chosen = fullest(ledger, MOST_ROWS)
    processes = material.run.tables.processes
    rows = [
        [
            place(row),
            process_label(processes, known(row["process"])),
            size(row["pages"] * material.run.page_bytes),
            count(row["merges"]),
            count(row["zero_merges"]),
            count(row["ended"]),
            count(row["merged_last"]),
            count(row["merged_peak"]),
            seconds(known_float(row["time_to_90_s"])),
        ]
        for row in ledger.iloc[chosen].to_dict("records")
    ]
    yield table(f"Mappings in which pages merged ({count(len(ledger))})", columns, rows)
    if len(chosen) < len(ledger):
        yield _few(len(chosen), len(ledger), "mappings", "ksmtrace timeline --region --csv")


def _few(shown: int, there: int, what: str, where: str) -> Html:
    words = f"The {count(shown)} {what} with most merges of {count(there)}; {where} lists all."
    return paragraph(words, cls="muted")


def _text(value: Any) -> str:
    return "–" if pd.isna(value) else str(value)
