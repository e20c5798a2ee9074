"""Pieces of markup. Whatever is not `Html` is text, and is escaped where it goes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ksmtrace.views.html.page import escape


class Html(str):
    """Markup: made by the functions here, or written in a module."""

    __slots__ = ()


@dataclass(frozen=True)
class Part:
    """A section of the report.

    data: JSON values for its script, by name. cut: what of the recording it leaves out, in words.
    """

    anchor: str
    title: str
    body: Html
    data: Mapping[str, Any] = field(default_factory=dict)
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """Of a table. name: a process's own words. meaning: what jargon means, shown at the heading."""

    title: str
    kind: Literal["number", "text", "name"] = "number"
    meaning: str = ""


def html(content: object) -> Html:
    """Markup as it is, text escaped."""
    return content if isinstance(content, Html) else Html(escape(content))


def joined(parts: Iterable[object]) -> Html:
    """One after the other."""
    return Html("".join(html(part) for part in parts))


def lines(text: str) -> Html:
    """Text of several lines, for an element that keeps them."""
    return Html("\n".join(escape(line) for line in text.splitlines()))


def element(tag: str, *content: object, cls: str = "", **attributes: str) -> Html:
    """An element. cls: its classes. attributes: an underscore stands for a dash."""
    told = {"class": cls, **attributes}
    words = "".join(f' {k.replace("_", "-")}="{escape(v)}"' for k, v in told.items() if v)
    return Html(f"<{tag}{words}>{joined(content)}</{tag}>")


def paragraph(*content: object, cls: str = "") -> Html:
    """A paragraph."""
    return element("p", *content, cls=cls)


def note(*content: object, cls: str = "") -> Html:
    """What must be seen. cls: bad or good; otherwise a warning."""
    return element("div", *content, cls=f"note {cls}".strip(), role="note")


def term(word: str, meaning: str) -> Html:
    """A word with its meaning as a tooltip."""
    return element("abbr", word, title=meaning) if meaning else html(word)


def figures(told: Iterable[tuple[object, str, str]]) -> Html:
    """Large numbers: what it is, the number with its unit, and what to add."""
    cards = (
        element(
            "div",
            element("dt", what),
            element("dd", number),
            element("dd", more, cls="more") if more else "",
            cls="figure",
        )
        for what, number, more in told
    )
    return element("dl", *cards, cls="figures")


def table(
    caption: str, columns: Sequence[Column], rows: Iterable[Sequence[object]], *, cls: str = ""
) -> Html:
    """A table that scrolls in its own frame if it is wide. rows: words, or markup."""
    heads = (element("th", term(c.title, c.meaning), cls=_class(c), scope="col") for c in columns)
    lines = (
        element("tr", *(_cell(c, words) for c, words in zip(columns, row, strict=True)))
        for row in rows
    )
    return framed(caption, element("tr", *heads), lines, cls=cls)


def framed(caption: str, head: Html, rows: Iterable[Html], *, cls: str = "") -> Html:
    """Rows as a table with a caption, in a frame of its own that a keyboard can scroll."""
    inside = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", *rows),
        cls=cls,
    )
    return element("div", inside, cls="scroll", tabindex="0", role="region", aria_label=caption)


def _class(column: Column) -> str:
    return "" if column.kind == "text" else column.kind


def _cell(column: Column, words: object) -> Html:
    inside = element("bdi", words) if column.kind == "name" else words
    return element("td", inside, cls=_class(column))


def bars(
    caption: str, columns: tuple[str, str], rows: Sequence[tuple[str, int]], unit: str
) -> Html:
    """Numbers as horizontal bars in a table: it reads without colours and scripts."""
    most = max((number for _, number in rows), default=0) or 1
    lines = (
        element(
            "tr",
            element("th", what, scope="row"),
            element("td", f"{number:,} {unit}".strip(), cls="number"),
            element("td", _bar(number / most), cls="bar"),
        )
        for what, number in rows
    )
    heads = (element("th", columns[0], scope="col"), element("th", columns[1], cls="number"))
    head = element("tr", *heads, element("td", aria_hidden="true"))
    return framed(caption, head, lines, cls="bars")


def _bar(share: float) -> Html:
    return element("span", cls="fill", style=f"width:{100 * share:.1f}%", aria_hidden="true")


def without_scripts(words: str) -> Html:
    """What a browser without scripts misses."""
    return element("noscript", note(words))
