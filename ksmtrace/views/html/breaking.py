"""How sharing ended: breaks, who made them, and the other ends of merged pages."""

from __future__ import annotations

from collections.abc import Iterator

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.timeline.breaks import BreakTables
from ksmtrace.timeline.tables import END
from ksmtrace.views.breaks import ENDS, where
from ksmtrace.views.html.markup import Column, Html, Part, bars, joined, paragraph, table, term
from ksmtrace.views.html.material import Material
from ksmtrace.views.timeline_chart import counts
from ksmtrace.views.timeline_parts import known

_MOST_WRITERS = 20
_WORDS = {
    "still_merged": "still merged",
    "cow_break": "written, so copied",
    "unmapped": "given up (munmap, madvise, mremap)",
    "exit": "gone with its process",
    "unmerged": "unmerged (madvise, prctl, run=2)",
    "stale": "gone with its KSM page, found dead",
    "unknown": "met again unmerged",
}


def breaks_part(material: Material) -> Part:
    """The section of breaks and ends."""
    ended = counts(material.run.tables.pages["end"], END)
    told: list[Html] = [
        paragraph(
            "A write to a merged page breaks it: the writer gets a ",
            term("copy", "copy on write: the kernel gives the writer a page of its own"),
            " of its own and the saving is gone. Most ends have no event; they are known from what"
            " ksmd met later.",
        )
    ]
    rows = [(_WORDS[name], number) for name, number in ended.items() if number]
    if rows:
        caption = f"How the {count(sum(ended.values()))} lives of merged pages ended"
        told.append(bars(caption, ("end", "lives"), rows, ""))
    else:
        told.append(paragraph("No page was merged, so nothing could end."))
    if material.breaks is None:
        told.append(
            paragraph("Who wrote is not known: record with --cow to see each write and its code.")
        )
    else:
        told += _watched(material, material.breaks)
    return Part("breaks", "Breaks", joined(told))


def _watched(material: Material, breaks: BreakTables) -> Iterator[Html]:
    totals = breaks.totals
    rows = [["copied", count(known(totals["cow_ksm"])), "KSM pages, by the kernel's count"]]
    rows += [
        [name.replace("_", " "), count(known(totals[name])), meaning]
        for name, meaning in ENDS.items()
        if known(totals[name]) or name in ("seen", "unseen")
    ]
    if surplus := known(totals["surplus"]):
        rows.append(["surplus", count(surplus), "seen, not counted: threads at one page"])
    heads = [Column("", "text"), Column("pages"), Column("what", "text")]
    yield table("What became of copied pages", heads, rows)
    names = {p.tgid: p.vm or p.comm or "" for p in material.summary.processes}
    writers = breaks.writers
    if not len(writers):
        return
    columns = [
        Column("process", "name"),
        Column("writes"),
        Column("zero pages", meaning="of them writes to a page merged with the zero page"),
        Column("code that wrote", "name"),
    ]
    lines = [
        [
            f"{names.get(int(row['tgid']), '')} {int(row['tgid']) or UNKNOWN}".strip(),
            count(row["breaks"]),
            count(row["zero_page"]),
            where(row),
        ]
        for row in writers.head(_MOST_WRITERS).to_dict("records")
    ]
    few = f", the {_MOST_WRITERS} that wrote most" if len(writers) > _MOST_WRITERS else ""
    yield table(f"Who wrote to merged pages ({count(len(writers))} places{few})", columns, lines)
