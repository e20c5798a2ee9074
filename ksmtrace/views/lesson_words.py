"""A stop of a lesson in words, the same in the terminal and on a page: names, counters, pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ksmtrace.amounts import UNKNOWN, count, seconds
from ksmtrace.lessons.frames import Frame, Kind, View
from ksmtrace.model.scene import Node, PageScene, Standing, Tree
from ksmtrace.processes.identity import clean

USUAL = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
MARKS: Mapping[Standing, str] = MappingProxyType(
    {
        Standing.NOT_THERE: "·",
        Standing.NOT_MERGEABLE: "-",
        Standing.UNSEEN: "?",
        Standing.WAITS: "w",
        Standing.UNSTABLE: "u",
        Standing.MERGED: "m",
        Standing.INHERITED: "f",
        Standing.COPIED: "!",
        Standing.ZERO: "0",
        Standing.SWAPPED: "s",
    }
)
"""A sign for each way in which a page stands."""
_LAG = ("pages_scanned",)
"""Counters that ksmd brings up to date after the visit: not told in the middle of it."""
_LONGEST_CONTENT = 20
_NUMBERED = re.compile(r"(unique|sequence|random|fresh) (\d+)")
"""Contents that the lab numbers by itself, with zeros in front to keep them in order."""


def content_words(content: bytes | None) -> str:
    """What a page holds, as its scenario named it: a word, zeroes, or its first bytes."""
    if content is None:
        return UNKNOWN
    if not content:
        return "zeroes"
    # What was overwritten in a part has zero bytes between its name and that.
    name, zero, _ = content.partition(b"\0")
    text = name.decode("ascii", errors="replace")
    if not text or not text.isascii() or not text.isprintable():
        text = f"0x{content[:8].hex()}"
    elif (numbered := _NUMBERED.fullmatch(text)) is not None:
        text = f"{numbered[1]} {int(numbered[2])}"
    if zero:
        text += "+"
    return text if len(text) <= _LONGEST_CONTENT else text[: _LONGEST_CONTENT - 1] + "~"


def place_words(node: Node) -> str:
    """A place in a tree: its content, and how many pages are on it."""
    words = content_words(node.content) if node.content is not None else "gone"
    if node.dups:
        return f"{words}×{'+'.join(str(len(dup)) for dup in node.dups)}"
    return f"{words}×{len(node.members)}" if node.key.startswith("k") else words


def tree_words(tree: Tree) -> str:
    """A tree's figures: how many places, how high, and how high it could be at most."""
    node = f" of node {tree.nid}" if tree.nid else ""
    merged = "merged page" if tree.listed else "KSM page"
    what = merged if tree.kind == "stable" else "waiting page"
    words = f"{tree.kind} tree{node}: {count(tree.pages)} {what}{'' if tree.pages == 1 else 's'}"
    if not tree.nodes:
        return f"{tree.kind} tree{node}: empty"
    if tree.listed:
        return f"{words}, in order of their hashes" if tree.nodes > 1 else words
    if tree.pages != tree.nodes:
        words += f" in {count(tree.nodes)} place{'' if tree.nodes == 1 else 's'}"
    if tree.nodes > 1 and tree.height is not None:
        words += f", height {tree.height} (at most 2·log2({tree.nodes}+1) = {tree.bound:.1f})"
    return words


def standing_words(page: PageScene, names: Mapping[str, str]) -> str:
    """How a page stands. names: KSM pages by key."""
    if page.standing is Standing.MERGED and page.ksm_page is not None:
        return f"on KSM page {names.get(page.ksm_page, page.ksm_page)}"
    return page.standing.value


def checksum_words(page: PageScene) -> str:
    """The checksum that is kept of a page."""
    return UNKNOWN if page.checksum is None else f"{page.checksum:08x}"


def ksm_page_names(view: View) -> dict[str, str]:
    """A name for each KSM page of a moment: its content, with a number where several have it."""
    scene = view.scene
    if scene is None:
        return {}
    by_content: dict[bytes | None, list[str]] = {}
    for page in scene.pages:
        if page.ksm_page is not None:
            keys = by_content.setdefault(page.content, [])
            if page.ksm_page not in keys:
                keys.append(page.ksm_page)
    return {
        key: content_words(content) + (f" #{number}" if len(keys) > 1 else "")
        for content, keys in by_content.items()
        for number, key in enumerate(keys, start=1)
    }


def region_of(page: str) -> str:
    """The region's name in a page's: `a.heap` of `a.heap[3]`, the process in a recording's."""
    return page.partition("[")[0].partition(":")[0]


def does_words(does: Mapping[str, Any]) -> str:
    """What a step does, as its file has it."""
    return ", ".join(f"{key} = {_short(value)}" for key, value in does.items())


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_short(v)}" for key, v in value.items())
    return clean(str(value))


def where_words(frame: Frame) -> str:
    """Where in the lesson a stop is."""
    if frame.kind is Kind.OPENING:
        return "before it begins"
    if frame.kind is Kind.CLOSING:
        return "what to remember"
    if frame.kind is Kind.VISIT:
        return f"scan {frame.scan}, visit {frame.visit} of {frame.visits}"
    when = "before" if frame.kind is Kind.BEFORE else "after"
    if "scan" in frame.does:
        return f"{when} scan {frame.scan + (frame.kind is Kind.BEFORE)}"
    if "run" in frame.does:
        return f"step {frame.step}, at {seconds(frame.seconds)}"
    return f"{when} step {frame.step}"


def changed_counters(frame: Frame, view: View) -> list[tuple[str, int | None, int]]:
    """Counters that are worth showing at a stop: (name, before, now)."""
    lag = _LAG if frame.kind is Kind.VISIT else ()
    return [
        (name, before, now)
        for name, (before, now) in view.changed.items()
        if name not in lag and (before or now)
    ]
