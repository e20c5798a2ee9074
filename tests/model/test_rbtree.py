from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.model.rbtree import RedBlackNode, RedBlackTree

Shape = tuple[int, str, "Shape", "Shape"] | None
"""key, R or B, left, right."""


class Node(RedBlackNode):
    """A node with a number."""

    __slots__ = ("key",)

    def __init__(self, key: int) -> None:
        self.key = key


class Tree:
    """Walks as ksmd does: whoever inserts says where."""

    def __init__(self) -> None:
        self.tree: RedBlackTree[Node] = RedBlackTree()
        self.nodes: dict[int, Node] = {}

    def insert(self, key: int) -> None:
        parent, left = None, False
        node = self.tree.root
        while node is not None:
            parent, left = node, key < node.key
            node = node.left if left else node.right  # type: ignore[assignment]
        self.nodes[key] = Node(key)
        self.tree.insert(self.nodes[key], parent, left=left)

    def erase(self, key: int) -> None:
        self.tree.erase(self.nodes.pop(key))

    def replace(self, key: int) -> None:
        old, self.nodes[key] = self.nodes[key], Node(key)
        self.tree.replace(old, self.nodes[key])

    def shape(self) -> Shape:
        return shape_of(self.tree.root)


def shape_of(node: RedBlackNode | None) -> Shape:
    if node is None:
        return None
    assert isinstance(node, Node)
    return node.key, "R" if node.red else "B", shape_of(node.left), shape_of(node.right)


@dataclass
class Cell:
    """A node of the textbook's tree, by its parts' numbers."""

    red: bool = False
    up: int = 0
    left: int = 0
    right: int = 0


class Textbook:
    """Chapter 13 of Cormen, Leiserson, Rivest, Stein, 3rd edition, word for word.

    Nodes are numbers, and number 0 is the sentinel nil, so nothing of the tested code is used.
    """

    def __init__(self) -> None:
        self.cells: dict[int, Cell] = {0: Cell()}
        self.root = 0

    def shape(self, x: int | None = None) -> Shape:
        x = self.root if x is None else x
        if not x:
            return None
        c = self.cells[x]
        return x, "R" if c.red else "B", self.shape(c.left), self.shape(c.right)

    def child(self, x: int, side: str) -> int:
        return int(getattr(self.cells[x], side))

    def rotate(self, x: int, side: str) -> None:
        """LEFT-ROTATE with side left, RIGHT-ROTATE with right."""
        other = "right" if side == "left" else "left"
        c = self.cells
        y = self.child(x, other)
        setattr(c[x], other, self.child(y, side))
        if self.child(y, side):
            c[self.child(y, side)].up = x
        self.transplant_link(x, y)
        setattr(c[y], side, x)
        c[x].up = y

    def transplant_link(self, u: int, v: int) -> None:
        c = self.cells
        c[v].up = c[u].up
        if not c[u].up:
            self.root = v
        elif u == c[c[u].up].left:
            c[c[u].up].left = v
        else:
            c[c[u].up].right = v

    def insert(self, z: int) -> None:
        c = self.cells
        y, x = 0, self.root
        while x:
            y, x = x, (c[x].left if z < x else c[x].right)
        c[z] = Cell(red=True, up=y)
        if not y:
            self.root = z
        elif z < y:
            c[y].left = z
        else:
            c[y].right = z
        while c[c[z].up].red:
            p = c[z].up
            g = c[p].up
            side, other = ("left", "right") if p == c[g].left else ("right", "left")
            y = self.child(g, other)
            if c[y].red:
                c[p].red = c[y].red = False
                c[g].red = True
                z = g
                continue
            if z == self.child(p, other):
                z = p
                self.rotate(z, side)
            c[c[z].up].red = False
            c[c[c[z].up].up].red = True
            self.rotate(c[c[z].up].up, other)
        c[self.root].red = False

    def erase(self, z: int) -> None:
        c = self.cells
        was_red = c[z].red
        if not c[z].left:
            x = c[z].right
            self.transplant_link(z, x)
        elif not c[z].right:
            x = c[z].left
            self.transplant_link(z, x)
        else:
            y = c[z].right
            while c[y].left:
                y = c[y].left
            was_red = c[y].red
            x = c[y].right
            if c[y].up == z:
                c[x].up = y
            else:
                self.transplant_link(y, x)
                c[y].right = c[z].right
                c[c[y].right].up = y
            self.transplant_link(z, y)
            c[y].left = c[z].left
            c[c[y].left].up = y
            c[y].red = c[z].red
        del c[z]
        if not was_red:
            self.fix_erasure(x)

    def fix_erasure(self, x: int) -> None:
        c = self.cells
        while x != self.root and not c[x].red:
            p = c[x].up
            side, other = ("left", "right") if x == c[p].left else ("right", "left")
            w = self.child(p, other)
            if c[w].red:
                c[w].red, c[p].red = False, True
                self.rotate(p, side)
                w = self.child(p, other)
            if not c[c[w].left].red and not c[c[w].right].red:
                c[w].red = True
                x = p
                continue
            if not c[self.child(w, other)].red:
                c[self.child(w, side)].red = False
                c[w].red = True
                self.rotate(w, other)
                w = self.child(p, other)
            c[w].red, c[p].red = c[p].red, False
            c[self.child(w, other)].red = False
            self.rotate(p, side)
            x = self.root
        c[x].red = False


def assert_legal(tree: RedBlackTree[Node]) -> None:
    """The root is black, no red node has a red child, and all paths have as many black nodes."""

    def black_height(node: RedBlackNode | None, parent: RedBlackNode | None) -> int:
        if node is None:
            return 1
        assert node.parent is parent
        assert not (node.red and parent is not None and parent.red)
        left, right = black_height(node.left, node), black_height(node.right, node)
        assert left == right
        return left + (not node.red)

    assert tree.root is None or not tree.root.red
    black_height(tree.root, None)


KEYS = st.integers(1, 61)
STEPS = st.lists(st.tuples(st.sampled_from(["insert", "insert", "erase", "replace"]), KEYS))


@given(STEPS.filter(lambda steps: len(steps) > 7) | STEPS)
def test_any_sequence_leaves_the_textbook_s_tree(steps: list[tuple[str, int]]) -> None:
    mine, textbook = Tree(), Textbook()
    for what, key in steps:
        if what == "insert" and key not in mine.nodes:
            mine.insert(key)
            textbook.insert(key)
        elif what == "erase" and key in mine.nodes:
            mine.erase(key)
            textbook.erase(key)
        elif what == "replace" and key in mine.nodes:
            mine.replace(key)
        assert mine.shape() == textbook.shape()
        assert_legal(mine.tree)
        assert [node.key for node in mine.tree.in_order()] == sorted(mine.nodes)
        assert list(mine.tree.in_order()) == [mine.nodes[key] for key in sorted(mine.nodes)]


@given(st.permutations(range(1, 48)), st.permutations(range(1, 48)))
def test_trees_filled_and_emptied_in_any_order_are_the_textbook_s(
    coming: list[int], going: list[int]
) -> None:
    mine, textbook = Tree(), Textbook()
    for key in coming:
        mine.insert(key)
        textbook.insert(key)
    assert mine.shape() == textbook.shape()
    for key in going:
        mine.erase(key)
        textbook.erase(key)
        assert mine.shape() == textbook.shape()
    assert mine.tree.root is None


def leaf(key: int, colour: str) -> Shape:
    return key, colour, None, None


# Exercises 13.3-2 and 13.4-3 of the textbook, with their published solutions.
GROWN: list[tuple[int, Shape]] = [
    (41, leaf(41, "B")),
    (38, (41, "B", leaf(38, "R"), None)),
    (31, (38, "B", leaf(31, "R"), leaf(41, "R"))),
    (12, (38, "B", (31, "B", leaf(12, "R"), None), leaf(41, "B"))),
    (19, (38, "B", (19, "B", leaf(12, "R"), leaf(31, "R")), leaf(41, "B"))),
    (8, (38, "B", (19, "R", (12, "B", leaf(8, "R"), None), leaf(31, "B")), leaf(41, "B"))),
]
SHRUNK: list[tuple[int, Shape]] = [
    (8, (38, "B", (19, "R", leaf(12, "B"), leaf(31, "B")), leaf(41, "B"))),
    (12, (38, "B", (19, "B", None, leaf(31, "R")), leaf(41, "B"))),
    (19, (38, "B", leaf(31, "B"), leaf(41, "B"))),
    (31, (38, "B", None, leaf(41, "R"))),
    (38, leaf(41, "B")),
    (41, None),
]


def test_the_textbook_s_own_example_grows_and_shrinks_as_printed() -> None:
    tree = Tree()
    for key, shape in GROWN:
        tree.insert(key)
        assert tree.shape() == shape
    for key, shape in SHRUNK:
        tree.erase(key)
        assert tree.shape() == shape


def test_a_node_with_two_children_is_replaced_by_its_successor() -> None:
    tree = Tree()
    for key in (5, 3, 7, 2, 4, 6, 8):
        tree.insert(key)
    tree.erase(5)
    assert tree.tree.root is tree.nodes[6]


def test_a_replaced_node_hands_over_its_place_and_colour() -> None:
    tree = Tree()
    for key in (5, 3, 7, 2):
        tree.insert(key)
    before = tree.shape()
    old = tree.nodes[3]
    tree.replace(3)
    assert tree.shape() == before
    assert tree.nodes[3] is not old
    assert tree.nodes[2].parent is tree.nodes[3]
    assert old not in list(tree.tree.in_order())


@pytest.mark.parametrize("key", [5, 3, 2])
def test_the_root_a_middle_node_and_a_leaf_can_be_replaced(key: int) -> None:
    tree = Tree()
    for number in (5, 3, 7, 2):
        tree.insert(number)
    tree.replace(key)
    assert_legal(tree.tree)
    assert [node.key for node in tree.tree.in_order()] == [2, 3, 5, 7]
