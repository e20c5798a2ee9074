"""Why KSM does not merge something, as rich renderables and as a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import count, seconds, size
from ksmtrace.inspect.why.answer import Answer, Found, PageAnswer, RegionAnswer
from ksmtrace.inspect.why.causes import CAUSES, HARMLESS
from ksmtrace.processes.identity import clean
from ksmtrace.views.text import name, named_table

_MOST_REGIONS = 16
_UNMERGED = "could be merged; contents were not looked at"


def render_why(answer: Answer, causes: Sequence[Found]) -> RenderableType:
    """What `ksmtrace why` prints; fits 80 columns. causes: of the pages, with remedies."""
    parts: list[RenderableType] = [_head(answer)]
    parts += [_found("host", each) for each in answer.host]
    parts += [_found("process", each) for each in answer.process]
    if answer.page is not None:
        parts += [Text(), render_page(answer.page)]
    else:
        if answer.regions:
            parts += [Text(), render_regions(answer)]
        if causes:
            parts += [_by_cause(answer, causes)]
    parts += [Text(clean(f"note: {note}"), style="yellow") for note in answer.notes]
    return Group(*parts)


def _words(cause: str) -> str:
    return CAUSES[cause].what if cause in CAUSES else _UNMERGED


def _short(cause: str) -> str:
    return cause.replace("_", " ")


def _head(answer: Answer) -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column()
    identity = answer.identity
    who = Text.assemble(str(answer.tgid))
    if identity is not None:
        who = Text.assemble(str(answer.tgid), " ", name(identity.vm or identity.comm))
        if identity.cgroup not in (None, "/"):
            who.append(f" in {identity.cgroup}")
    lines.add_row("process", who)
    if answer.facts:
        lines.add_row("ksm_stat", ", ".join(f"{key} {value}" for key, value in answer.facts))
    if not answer.host:
        lines.add_row("host", Text("ksmd is running", style="green"))
    if not answer.process and identity is not None:
        lines.add_row("registered", Text("yes", style="green"))
    return lines


def _found(level: str, found: Found) -> RenderableType:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold red", no_wrap=True)
    lines.add_column()
    lines.add_row(level, Text(_words(found.cause), style="bold"))
    lines.add_row("", f"seen: {found.evidence}")
    if found.remedy:
        lines.add_row("", f"do:   {found.remedy}")
    return lines


def render_regions(answer: Answer) -> RenderableType:
    """The regions with most pages, each with its pages by cause."""
    table = named_table(f"regions ({count(len(answer.regions))})", collapse_padding=True)
    table.add_column("start", no_wrap=True)
    table.add_column("name", no_wrap=True, max_width=24)
    table.add_column("pages", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("because", no_wrap=True)
    shown = sorted(answer.regions, key=lambda region: -_there(region))[:_MOST_REGIONS]
    for looked in shown:
        place: tuple[Any, Any] = (
            f"{looked.region.start:x}",
            name(looked.region.name or "[anonymous]"),
        )
        for cause, pages in looked.pages.most_common():
            if cause == "absent" and len(looked.pages) > 1:
                continue
            style = "dim" if cause in HARMLESS else ""
            table.add_row(
                *place, count(pages), size(pages * answer.page_bytes), _short(cause),
                style=style,
            )  # fmt: skip
            place = ("", "")
    if len(answer.regions) > len(shown):
        table.add_row(
            "…", f"{len(answer.regions) - len(shown):,} smaller", "", "", "--json has all"
        )
    return Group(table, Text())


def _there(looked: RegionAnswer) -> int:
    return looked.pages.total() - looked.pages["absent"]


def _by_cause(answer: Answer, causes: Sequence[Found]) -> RenderableType:
    table = named_table("all of them, by cause", collapse_padding=True)
    table.add_column("pages", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("cause, and what to do")
    for found in causes:
        pages = answer.pages[found.cause]
        words = Text(
            f"{_short(found.cause)}: {_words(found.cause)}",
            style="dim" if found.cause in HARMLESS else "bold",
        )
        if found.remedy and found.cause not in HARMLESS:
            words.append(f"\n→ {found.remedy}", style="not bold")
        table.add_row(count(pages), size(pages * answer.page_bytes), words)
    parts: list[RenderableType] = [table]
    if answer.wait_s is not None:
        parts.append(Text(f"two full scans take {seconds(answer.wait_s)} at the settings of now"))
    return Group(*parts)


def render_page(page: PageAnswer) -> RenderableType:
    """One page, closely."""
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column()
    lines.add_row("page", f"{page.address:#x}")
    for topic, words in page.facts:
        lines.add_row(topic, Text(clean(words)))
    if page.equal_count is not None:
        lines.add_row("equals", f"{count(page.equal_count)} registered pages hold the same")
        for tgid, address, merged in page.equals:
            lines.add_row("", f"{address:#x} of process {tgid}{' (merged)' if merged else ''}")
    good = page.cause in HARMLESS
    lines.add_row("answer", Text(_words(page.cause), style="green" if good else "bold red"))
    lines.add_row("", f"seen: {page.evidence}")
    if page.remedy and not good:
        lines.add_row("", f"do:   {page.remedy}")
    return lines


def why_as_dict(answer: Answer, causes: Sequence[Found]) -> dict[str, Any]:
    """What `ksmtrace why --json` prints: stable names, units in them."""
    return {
        "tgid": answer.tgid,
        "comm": answer.identity and answer.identity.comm,
        "vm": answer.identity and answer.identity.vm,
        "cgroup": answer.identity and answer.identity.cgroup,
        "page_bytes": answer.page_bytes,
        "host": [asdict(found) for found in answer.host],
        "process": [asdict(found) for found in answer.process],
        "ksm_stat": dict(answer.facts),
        "contents_read": answer.contents_read,
        "pages": dict(answer.pages),
        "causes": [{**asdict(found), "pages": answer.pages[found.cause]} for found in causes],
        "two_full_scans_s": answer.wait_s,
        "regions": [
            {
                "start": looked.region.start,
                "end": looked.region.end,
                "name": looked.region.name,
                "flags": list(looked.region.flags),
                "mergeable": looked.region.mergeable,
                "huge_pages": looked.huge,
                "pages": dict(looked.pages),
            }
            for looked in answer.regions
        ],
        "page": None if answer.page is None else _page(answer.page),
        "notes": answer.notes,
    }


def _page(page: PageAnswer) -> dict[str, Any]:
    equals = [{"tgid": t, "address": a, "merged": m} for t, a, m in page.equals]
    return {**asdict(page), "facts": dict(page.facts), "equals": equals}
