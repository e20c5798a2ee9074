"""What a scanner knows at one moment, as plain data: every page's standing, and the trees drawn.

Built from the scanner's own structures, and sharing nothing with them, so that it can be kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import log2

from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.cycle import Cycle
from ksmtrace.model.memory import Frame, Mm, Vma
from ksmtrace.model.rbtree import RedBlackNode
from ksmtrace.model.state import State
from ksmtrace.model.structures import RmapItem, StableChain, StableNode

_MEASURED_NODES = 4096
"""Trees larger than that are not walked whole for their height at every moment."""


class Standing(Enum):
    """Where a page stands; the value says it in words."""

    NOT_THERE = "not there"
    NOT_MERGEABLE = "not opted in"
    UNSEEN = "not visited yet"
    WAITS = "waits, in no tree"
    UNSTABLE = "in the unstable tree"
    MERGED = "on a KSM page"
    INHERITED = "on a KSM page by fork, not counted yet"
    COPIED = "copied on write; not noticed yet"
    ZERO = "on the zero page"
    SWAPPED = "swapped out"


Member = tuple[int, int]
"""A page: its mm's number and its address."""


@dataclass(frozen=True)
class PageScene:
    """One page. content: None where there is no page. checksum: None where none is kept.

    ksm_page: the key of the KSM page that it is on. age, skips: for smart scan.
    """

    mm: int
    address: int
    standing: Standing
    content: bytes | None = None
    checksum: int | None = None
    age: int = 0
    skips: int = 0
    ksm_page: str | None = None


@dataclass(frozen=True)
class Node:
    """A place in a tree. content: of its page now, None where that is gone.

    members: who is on it. dups: of a chain, the members of each of its KSM pages. dead: its page is
    gone and nobody noticed yet. hidden: there are more places below that are not shown.
    """

    key: str
    content: bytes | None
    red: bool = False
    members: tuple[Member, ...] = ()
    dups: tuple[tuple[Member, ...], ...] = ()
    dead: bool = False
    left: Node | None = None
    right: Node | None = None
    hidden: bool = False


@dataclass(frozen=True)
class Tree:
    """A tree. kind: "stable" or "unstable". nid: its NUMA node. nodes: how many places it has.

    pages: on its places, more than one on a chain's. height: places on the longest way down, None
    where it was not measured. listed: the places in
    order, instead of `root`, of a tree whose shape decides nothing.
    """

    kind: str
    nid: int
    nodes: int
    pages: int
    height: int | None
    root: Node | None
    listed: tuple[Node, ...] = ()

    @property
    def bound(self) -> float:
        """No red-black tree of so many places is higher: 2*log2(n+1)."""
        return 2 * log2(self.nodes + 1)


Row = Mapping[str, str | tuple[Member, ...]]
"""A line of a table: words, or the beginnings of regions."""


@dataclass(frozen=True)
class Scene:
    """A moment. left_out: pages not listed.

    figures: what a scanner has beside counters, by name. groups: tables of such, by title.
    """

    pages: tuple[PageScene, ...]
    trees: tuple[Tree, ...]
    left_out: int = 0
    figures: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)


def key_of(node: RedBlackNode) -> str:
    """The name of a place in a tree, the same as long as it is there."""
    if isinstance(node, RmapItem):
        return f"r{node.id}"
    if isinstance(node, StableNode):
        return f"k{node.frame.pfn:x}"
    assert isinstance(node, StableChain)
    return f"c{node.id:x}"


def content_at(node: RedBlackNode) -> bytes | None:
    """What the page at a place in a tree holds now."""
    if isinstance(node, RmapItem):
        page = node.mm.pages.get(node.address)
        return page.content if page is not None else None
    if isinstance(node, StableNode):
        return node.frame.content
    assert isinstance(node, StableChain)
    return node.dups[0].frame.content if node.dups else None


def way_down(root: RedBlackNode | None, content: bytes) -> Iterator[RedBlackNode]:
    """The places that a search for a content compares with, the equal one last."""
    node = root
    while node is not None:
        yield node
        here = content_at(node)
        if here is None or here == content:
            return
        node = node.left if content < here else node.right


def scene_of(
    state: State,
    cycle: Cycle,
    *,
    at: Member | None = None,
    most: int | None = None,
    places: int | None = None,
) -> Scene:
    """The present moment. at: the page looked at.

    most: pages to list, of the process of `at` and around it; places: of a tree to show, from the
    top. None: all.
    """
    living = {id(tree) for tree in cycle.visit.unstable.all_trees()}
    mms = [mm for mm in state.memory.mms if mm.users]
    if most is None:
        chosen: list[_Address] = [
            (mm, vma, address) for mm in mms for vma, address in _all_addresses(mm)
        ]
        left_out = 0
    else:
        chosen = _around(mms, at, most)
        left_out = sum(len(mm.pages) for mm in mms) - len(chosen)
    wanted = {(mm.id, address) for mm, _, address in chosen}
    items = {
        (item.mm.id, item.address): item
        for slot in cycle.slots
        for item in slot.items()
        if (item.mm.id, item.address) in wanted
    }
    pages = tuple(
        _page(state, mm, vma, address, items.get((mm.id, address)), living)
        for mm, vma, address in chosen
    )
    trees = [
        _tree("stable", nid, tree.root, places, state)
        for nid, tree in sorted(cycle.visit.stable.trees.items())
    ]
    trees += [
        _tree("unstable", nid, tree.root, places, state)
        for nid, tree in cycle.visit.unstable.trees_by_node()
    ]
    return Scene(pages, tuple(trees), left_out)


_Address = tuple[Mm, Vma | None, int]


def _all_addresses(mm: Mm) -> Iterator[tuple[Vma, int]]:
    for vma in mm.vmas:
        for address in range(vma.start, vma.end, PAGE_SIZE):
            yield vma, address


def _around(mms: list[Mm], at: Member | None, most: int) -> list[_Address]:
    """Pages that are there, around one of them."""
    mm = next((mm for mm in mms if at is not None and mm.id == at[0]), mms[0] if mms else None)
    if mm is None:
        return []
    addresses = sorted(mm.pages)
    here = bisect_left(addresses, at[1]) if at is not None and mm.id == at[0] else 0
    first = max(0, min(here - most // 2, len(addresses) - most))
    return [(mm, mm.vma_at(address), address) for address in addresses[first : first + most]]


def _page(
    state: State, mm: Mm, vma: Vma | None, address: int, item: RmapItem | None, living: set[int]
) -> PageScene:
    page = mm.pages.get(address)
    standing = _standing(mm, address, page, item, living)
    if page is state.memory.zero_frame:
        standing = Standing.ZERO
    elif standing is Standing.UNSEEN and (vma is None or not vma.mergeable):
        standing = Standing.NOT_MERGEABLE
    node = page.node if page is not None and page.ksm else None
    return PageScene(
        mm.id,
        address,
        standing,
        page.content if page is not None else None,
        (item.oldchecksum or None) if item is not None else None,
        item.age if item is not None else 0,
        item.remaining_skips if item is not None else 0,
        key_of(node) if isinstance(node, StableNode) else None,
    )


def _standing(
    mm: Mm, address: int, page: Frame | None, item: RmapItem | None, living: set[int]
) -> Standing:
    """living: the unstable trees of now; an item may still think that it is in one of before."""
    if page is None:
        return Standing.SWAPPED if address in mm.swapped else Standing.NOT_THERE
    if page.ksm:
        if item is not None and item.head is not None and item.head is page.node:
            return Standing.MERGED
        # One that lost its stable node, or moved to another NUMA node, may look for a twin, too.
        waits = item is not None and id(item.tree) in living
        return Standing.UNSTABLE if waits else Standing.INHERITED
    if item is None:
        return Standing.UNSEEN
    if item.head is not None:
        return Standing.COPIED
    return Standing.UNSTABLE if id(item.tree) in living else Standing.WAITS


def _tree(kind: str, nid: int, root: RedBlackNode | None, most: int | None, state: State) -> Tree:
    count = state.pages_unshared if kind == "unstable" else state.pages_shared
    measured = most is None or count <= _MEASURED_NODES
    nodes, pages, height = _measure(root) if measured else (count, count, None)
    shown = _nearest(root, most)
    return Tree(kind, nid, nodes, pages, height, _node(root, lambda node: id(node) in shown, state))


def _measure(root: RedBlackNode | None) -> tuple[int, int, int]:
    """(places, pages on them, height)."""
    nodes = pages = height = 0
    waiting = [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        if node is not None:
            nodes, height = nodes + 1, max(height, depth)
            pages += len(node.dups) if isinstance(node, StableChain) else 1
            waiting += [(node.left, depth + 1), (node.right, depth + 1)]
    return nodes, pages, height


def _nearest(root: RedBlackNode | None, most: int | None) -> set[int]:
    """The places to show: level by level from the root."""
    shown: set[int] = set()
    waiting = deque([root])
    while waiting and (most is None or len(shown) < most):
        node = waiting.popleft()
        if node is not None:
            shown.add(id(node))
            waiting += (node.left, node.right)
    return shown


def _node(
    node: RedBlackNode | None, shown: Callable[[RedBlackNode], bool], state: State
) -> Node | None:
    if node is None or not shown(node):
        return None
    left, right = (_node(child, shown, state) for child in (node.left, node.right))
    hidden = any(child is not None and not shown(child) for child in (node.left, node.right))
    members: tuple[Member, ...] = ()
    dups: tuple[tuple[Member, ...], ...] = ()
    dead = False
    if isinstance(node, RmapItem):
        members = ((node.mm.id, node.address),)
        dead = content_at(node) is None
    elif isinstance(node, StableNode):
        members = _members(node)
        dead = not node.frame.alive
    elif isinstance(node, StableChain):
        dups = tuple(_members(dup) for dup in node.dups)
        members = tuple(member for dup in dups for member in dup)
    return Node(key_of(node), content_at(node), node.red, members, dups, dead, left, right, hidden)


def _members(node: StableNode) -> tuple[Member, ...]:
    return tuple((item.mm.id, item.address) for item in node.items)
