"""A red-black tree with exactly the kernel's shapes.

Which nodes a walk meets decides what ksmd notices, so balance is part of the behaviour. It is the
textbook algorithm (Cormen, Leiserson, Rivest, Stein, chapter 13), which lib/rbtree.c follows: a
node with two children is replaced by its in-order successor. Whoever inserts walks the tree
itself and says where the leaf goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar


class RedBlackNode:
    """Base class of whatever is kept in a tree."""

    __slots__ = ("left", "parent", "red", "right")

    left: RedBlackNode | None
    right: RedBlackNode | None
    parent: RedBlackNode | None
    red: bool


N = TypeVar("N", bound=RedBlackNode)


class RedBlackTree(Generic[N]):
    """root: the top node or None. Children are `node.left` and `node.right`."""

    __slots__ = ("root",)

    def __init__(self) -> None:
        self.root: N | None = None

    def insert(self, node: N, parent: N | None, *, left: bool) -> None:
        """Hang `node` below `parent` (None: the tree is empty) and rebalance."""
        node.left = node.right = None
        node.parent = parent
        node.red = True
        if parent is None:
            self.root = node
        elif left:
            parent.left = node
        else:
            parent.right = node
        self._repair_insertion(node)

    def _repair_insertion(self, node: RedBlackNode) -> None:
        while (parent := node.parent) is not None and parent.red:
            grandparent = parent.parent
            assert grandparent is not None
            if parent is grandparent.left:
                uncle = grandparent.right
                if uncle is not None and uncle.red:
                    parent.red = uncle.red = False
                    grandparent.red = True
                    node = grandparent
                    continue
                if node is parent.right:
                    self._rotate_left(parent)
                    node, parent = parent, node
                parent.red = False
                grandparent.red = True
                self._rotate_right(grandparent)
            else:
                uncle = grandparent.left
                if uncle is not None and uncle.red:
                    parent.red = uncle.red = False
                    grandparent.red = True
                    node = grandparent
                    continue
                if node is parent.left:
                    self._rotate_right(parent)
                    node, parent = parent, node
                parent.red = False
                grandparent.red = True
                self._rotate_left(grandparent)
        assert self.root is not None
        self.root.red = False

    def erase(self, node: N) -> None:
        """Take `node` out and rebalance."""
        if node.left is not None and node.right is not None:
            successor: RedBlackNode = node.right
            while successor.left is not None:
                successor = successor.left
            removed_red = successor.red
            child = successor.right
            parent = successor.parent
            if parent is node:
                parent = successor
            else:
                assert parent is not None
                parent.left = child
                if child is not None:
                    child.parent = parent
                successor.right = node.right
                node.right.parent = successor
            successor.left = node.left
            node.left.parent = successor
            successor.red = node.red
            self._put_in_place_of(node, successor)
        else:
            child = node.left if node.left is not None else node.right
            parent = node.parent
            removed_red = node.red
            self._put_in_place_of(node, child)
        if not removed_red:
            self._repair_erasure(child, parent)

    def _repair_erasure(self, node: RedBlackNode | None, parent: RedBlackNode | None) -> None:
        """`node` (perhaps None) below `parent` lacks one black node on its paths."""
        while parent is not None and (node is None or not node.red):
            if node is parent.left:
                sibling = parent.right
                assert sibling is not None
                if sibling.red:
                    sibling.red = False
                    parent.red = True
                    self._rotate_left(parent)
                    sibling = parent.right
                    assert sibling is not None
                near, far = sibling.left, sibling.right
                if not (near is not None and near.red) and not (far is not None and far.red):
                    sibling.red = True
                    node, parent = parent, parent.parent
                    continue
                if far is None or not far.red:
                    assert near is not None
                    near.red = False
                    sibling.red = True
                    self._rotate_right(sibling)
                    sibling, far = near, sibling
                sibling.red = parent.red
                parent.red = False
                far.red = False
                self._rotate_left(parent)
            else:
                sibling = parent.left
                assert sibling is not None
                if sibling.red:
                    sibling.red = False
                    parent.red = True
                    self._rotate_right(parent)
                    sibling = parent.left
                    assert sibling is not None
                near, far = sibling.right, sibling.left
                if not (near is not None and near.red) and not (far is not None and far.red):
                    sibling.red = True
                    node, parent = parent, parent.parent
                    continue
                if far is None or not far.red:
                    assert near is not None
                    near.red = False
                    sibling.red = True
                    self._rotate_left(sibling)
                    sibling, far = near, sibling
                sibling.red = parent.red
                parent.red = False
                far.red = False
                self._rotate_right(parent)
            node = self.root
            break
        if node is not None:
            node.red = False

    def replace(self, old: N, new: N) -> None:
        """Put `new` where `old` is, with its children and colour."""
        new.left, new.right, new.red = old.left, old.right, old.red
        if new.left is not None:
            new.left.parent = new
        if new.right is not None:
            new.right.parent = new
        self._put_in_place_of(old, new)

    def in_order(self) -> Iterator[N]:
        """Every node, from the smallest to the largest."""
        waiting: list[RedBlackNode] = []
        node: RedBlackNode | None = self.root
        while waiting or node is not None:
            while node is not None:
                waiting.append(node)
                node = node.left
            node = waiting.pop()
            yield node  # type: ignore[misc]  # whatever is linked here is an N
            node = node.right

    def _put_in_place_of(self, old: RedBlackNode, new: RedBlackNode | None) -> None:
        parent = old.parent
        if parent is None:
            self.root = new  # type: ignore[assignment]  # whatever is linked here is an N
        elif parent.left is old:
            parent.left = new
        else:
            parent.right = new
        if new is not None:
            new.parent = parent

    def _rotate_left(self, node: RedBlackNode) -> None:
        child = node.right
        assert child is not None
        node.right = child.left
        if child.left is not None:
            child.left.parent = node
        self._put_in_place_of(node, child)
        child.left = node
        node.parent = child

    def _rotate_right(self, node: RedBlackNode) -> None:
        child = node.left
        assert child is not None
        node.left = child.right
        if child.right is not None:
            child.right.parent = node
        self._put_in_place_of(node, child)
        child.right = node
        node.parent = child
