"""A scanner's tree as lines of text: the root on top, each row a level, in order from the left."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from rich.text import Text

from ksmtrace.model.scene import Node, Tree

RED, BLACK, PATH, DEAD, FOUND = "red", "bold", "reverse", "dim strike", "bold green"
_SHORTEST = 4
_NUMBERED = re.compile(r"(\w)\w* (\d.*)")
"""Where there is no room, `random 17` is r17: what tells it from its neighbours stays."""


@dataclass
class _Place:
    node: Node
    depth: int
    label: str
    start: int = 0

    @property
    def middle(self) -> int:
        return self.start + len(self.label) // 2

    @property
    def end(self) -> int:
        return self.start + len(self.label)


def draw_tree(
    tree: Tree,
    label: Callable[[Node], str],
    width: int,
    *,
    path: Collection[str] = (),
    found: Collection[str] = (),
) -> list[Text]:
    """The rows. label: a place's name.

    path: keys of places that were compared with, marked by an arrow. found: keys of places to be
    seen at once. Red places stand in parentheses, places with more below that
    isn't shown end in ….
    """
    if tree.listed or tree.root is None:
        return _list(tree, label, width, path, found)
    most = 1 << 30
    for longest in (40, 24, 16, 12, 8, 6, _SHORTEST):
        places = list(_places(tree.root, label, 0, most, path, longest))
        if _arrange(places) <= width:
            return _rows(places, path, found)
    while most > 1:
        most = min(most, max(place.depth for place in places) + 1) - 1
        places = list(_places(tree.root, label, 0, most, path, _SHORTEST))
        if _arrange(places) <= width:
            break
    return _rows(places, path, found)


def _list(
    tree: Tree,
    label: Callable[[Node], str],
    width: int,
    path: Collection[str],
    found: Collection[str],
) -> list[Text]:
    row = Text()
    for number, node in enumerate(tree.listed):
        words = label(node)
        if row.cell_len + len(words) + 12 > width:
            row.append(f"… {len(tree.listed) - number} more", "dim")
            break
        row.append(words, _style(node, path, found))
        row.append("  ")
    return [row] if tree.listed else []


def _places(
    node: Node | None,
    label: Callable[[Node], str],
    depth: int,
    most: int,
    path: Collection[str],
    longest: int,
) -> Iterator[_Place]:
    """In order of content."""
    if node is None or depth >= most:
        return
    yield from _places(node.left, label, depth + 1, most, path, longest)
    yield _Place(node, depth, _words(node, label, depth + 1 >= most, path, longest))
    yield from _places(node.right, label, depth + 1, most, path, longest)


def _words(
    node: Node, label: Callable[[Node], str], last: bool, path: Collection[str], longest: int
) -> str:
    words = label(node)
    if len(words) > longest and (numbered := _NUMBERED.fullmatch(words)) is not None:
        words = numbered[1] + numbered[2]
    if len(words) > longest:
        words = words[: longest - 1] + "~"
    if node.red:
        words = f"({words})"
    if node.hidden or (last and (node.left or node.right)):
        words += "…"
    return f"›{words}" if node.key in path else words


def _arrange(places: list[_Place]) -> int:
    """Put places side by side; returns the width that they take."""
    column = 0
    for place in places:
        place.start = column
        column += len(place.label) + 1
    return column - 1


def _rows(places: list[_Place], path: Collection[str], found: Collection[str]) -> list[Text]:
    by_key = {place.node.key: place for place in places}
    width = max(place.end for place in places)
    rows = []
    for depth in range(max(place.depth for place in places) + 1):
        cells = [" "] * width
        styles: list[tuple[str, int, int]] = []
        for place in places:
            if place.depth != depth:
                continue
            left = by_key.get(place.node.left.key) if place.node.left else None
            right = by_key.get(place.node.right.key) if place.node.right else None
            if left is not None:
                cells[left.middle] = "┌"
                cells[left.middle + 1 : place.start] = "─" * (place.start - left.middle - 1)
            if right is not None:
                cells[place.end : right.middle] = "─" * (right.middle - place.end)
                cells[right.middle] = "┐"
            cells[place.start : place.end] = place.label
            styles.append((_style(place.node, path, found), place.start, place.end))
        row = Text("".join(cells).rstrip())
        for style, start, end in styles:
            row.stylize(style, start, end)
        rows.append(row)
    return rows


def _style(node: Node, path: Collection[str], found: Collection[str]) -> str:
    if node.dead:
        return DEAD
    if node.key in found:
        return FOUND
    return f"{RED if node.red else BLACK}{' ' + PATH if node.key in path else ''}"
