"""All pages of a moment as text: a table of few, a map of many with a sign for each page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count
from ksmtrace.lessons.frames import View
from ksmtrace.model.scene import PageScene, Scene, Standing
from ksmtrace.views.lesson_words import (
    MARKS,
    checksum_words,
    content_words,
    ksm_page_names,
    region_of,
    standing_words,
)

FEW = 12
"""Pages that are told in a table; more of them in a map, and those around the cursor besides."""
AROUND = 5
_STYLES = {
    Standing.WAITS: "yellow",
    Standing.UNSTABLE: "cyan",
    Standing.INHERITED: "green",
    Standing.COPIED: "bold red",
    Standing.ZERO: "bold magenta",
}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MERGED = "bold green"


def page_table(view: View, scene: Scene, width: int) -> list[Text]:
    """A line for each page, or for those around the cursor where there are many."""
    pages = scene.pages
    if len(pages) > FEW:
        here = next((n for n, p in enumerate(pages) if (p.mm, p.address) == view.visit), None)
        if here is None:
            return []
        first = max(0, min(here - AROUND // 2, len(pages) - AROUND))
        pages = pages[first : first + AROUND]
    if not pages:
        return []
    names = ksm_page_names(view)
    rows = [
        (
            view.name((page.mm, page.address)),
            content_words(page.content),
            checksum_words(page),
            _age(page),
            standing_words(page, names),
        )
        for page in pages
    ]
    heads = ("page", "holds", "checksum kept", "age/skips", "stands")
    widths = [max(len(row[n]) for row in (heads, *rows)) for n in range(len(heads))]
    lines = [Text(_line("  ", heads, widths)[:width], style="bold")]
    for page, row in zip(pages, rows, strict=True):
        here_too = (page.mm, page.address) == view.visit
        words = _line("▸ " if here_too else "  ", row, widths)
        lines.append(Text(words[:width], style="bold" if here_too else ""))
    return lines


def page_map(view: View, scene: Scene, width: int) -> list[Text]:
    """A sign for each page, region by region, and what the signs mean; nothing for few pages."""
    if len(scene.pages) <= FEW:
        return []
    regions: dict[str, list[PageScene]] = {}
    for page in scene.pages:
        region = region_of(view.name((page.mm, page.address)))
        regions.setdefault(region, []).append(page)
    letters: dict[str, str] = {}
    label = min(20, max(map(len, regions)))
    lines: list[Text] = []
    used: dict[Standing, None] = {}
    for region, pages in regions.items():
        signs = [_sign(page, letters, view) for page in pages]
        used |= dict.fromkeys(page.standing for page in pages)
        room = max(8, width - label - 2)
        for first in range(0, len(signs), room):
            head = region[:label] if not first else ""
            lines.append(Text.assemble(f"{head:<{label}}  ", *signs[first : first + room]))
    if scene.left_out:
        lines.append(Text(f"and {count(scene.left_out)} more pages", style="dim"))
    legend = "; ".join(_legend(used))
    lines += [Text(line, style="dim") for line in textwrap.wrap(legend, width)]
    return lines


def _sign(page: PageScene, letters: dict[str, str], view: View) -> tuple[str, str]:
    if page.standing is Standing.MERGED and page.ksm_page is not None:
        sign = letters.setdefault(page.ksm_page, _LETTERS[len(letters) % len(_LETTERS)])
        style = _MERGED
    else:
        sign, style = MARKS[page.standing], _STYLES.get(page.standing, "dim")
    return sign, f"{style} reverse" if (page.mm, page.address) == view.visit else style


def _legend(used: dict[Standing, None]) -> Iterator[str]:
    if Standing.MERGED in used:
        yield "A, B, ... on a KSM page, the same letter the same page"
    for standing, sign in MARKS.items():
        if standing in used and standing is not Standing.MERGED:
            yield f"{sign} {standing.value}"


def _line(mark: str, row: tuple[str, ...], widths: list[int]) -> str:
    cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
    return f"{mark}{'  '.join(cells)}".rstrip()


def _age(page: PageScene) -> str:
    if page.checksum is None and not page.age:
        return UNKNOWN
    return f"{page.age}/{page.skips}"
