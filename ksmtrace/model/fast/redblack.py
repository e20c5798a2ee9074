"""Red-black trees with the kernel's shapes, over the rows of Nodes; `model.rbtree` with arrays.

A tree is an entry of `root`. The code follows model.rbtree step by step; only that a node which
moves up, and so comes to lie on more searches' ways, is told to `watch` if it is watched.
"""

from __future__ import annotations

from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.tables import RED, WATCHED, Tables
from ksmtrace.model.fast.watch import mark_subtree


@compiled
def insert(t: Tables, tree: int, node: int, parent: int, left: bool) -> None:
    """Hang `node` below `parent` (0: the tree is empty) and rebalance."""
    n = t.node
    n[node].left = 0
    n[node].right = 0
    n[node].parent = parent
    n[node].flags |= RED
    if parent == 0:
        t.root[tree] = node
    elif left:
        n[parent].left = node
    else:
        n[parent].right = node
    _repair_insertion(t, tree, node)


@compiled
def _is_red(t: Tables, node: int) -> bool:
    return node != 0 and t.node[node].flags & RED != 0


@compiled
def _redden(t: Tables, node: int) -> None:
    t.node[node].flags |= RED


@compiled
def _blacken(t: Tables, node: int) -> None:
    t.node[node].flags &= 0xFF ^ RED


@compiled
def _colour_as(t: Tables, node: int, model: int) -> None:
    t.node[node].flags = (t.node[node].flags & (0xFF ^ RED)) | (t.node[model].flags & RED)


@compiled
def _repair_insertion(t: Tables, tree: int, node: int) -> None:
    n = t.node
    while True:
        parent = int(n[node].parent)
        if not _is_red(t, parent):
            break
        grandparent = int(n[parent].parent)
        on_left = n[grandparent].left == parent
        uncle = int(n[grandparent].right if on_left else n[grandparent].left)
        if _is_red(t, uncle):
            _blacken(t, parent)
            _blacken(t, uncle)
            _redden(t, grandparent)
            node = grandparent
            continue
        inner = n[parent].right if on_left else n[parent].left
        if node == inner:
            _rotate(t, tree, parent, on_left)
            node, parent = parent, node
        _blacken(t, parent)
        _redden(t, grandparent)
        _rotate(t, tree, grandparent, not on_left)
    _blacken(t, int(t.root[tree]))


@compiled
def erase(t: Tables, tree: int, node: int) -> None:
    """Take `node` out and rebalance."""
    n = t.node
    if n[node].left != 0 and n[node].right != 0:
        successor = int(n[node].right)
        while n[successor].left != 0:
            successor = int(n[successor].left)
        removed_red = _is_red(t, successor)
        child = int(n[successor].right)
        parent = int(n[successor].parent)
        if parent == node:
            parent = successor
        else:
            n[parent].left = child
            if child != 0:
                n[child].parent = parent
            n[successor].right = n[node].right
            n[n[node].right].parent = successor
        n[successor].left = n[node].left
        n[n[node].left].parent = successor
        _colour_as(t, successor, node)
        _put_in_place_of(t, tree, node, successor)
    else:
        child = int(n[node].left if n[node].left != 0 else n[node].right)
        parent = int(n[node].parent)
        removed_red = _is_red(t, node)
        _put_in_place_of(t, tree, node, child)
    if not removed_red:
        _repair_erasure(t, tree, child, parent)


@compiled
def _repair_erasure(t: Tables, tree: int, node: int, parent: int) -> None:
    """`node` (perhaps 0) below `parent` lacks one black node on its paths."""
    n = t.node
    while parent != 0 and not _is_red(t, node):
        on_left = n[parent].left == node
        sibling = int(n[parent].right if on_left else n[parent].left)
        if _is_red(t, sibling):
            _blacken(t, sibling)
            _redden(t, parent)
            _rotate(t, tree, parent, on_left)
            sibling = int(n[parent].right if on_left else n[parent].left)
        near = int(n[sibling].left if on_left else n[sibling].right)
        far = int(n[sibling].right if on_left else n[sibling].left)
        if not _is_red(t, near) and not _is_red(t, far):
            _redden(t, sibling)
            node = parent
            parent = int(n[parent].parent)
            continue
        if not _is_red(t, far):
            _blacken(t, near)
            _redden(t, sibling)
            _rotate(t, tree, sibling, not on_left)
            far = sibling
            sibling = near
        _colour_as(t, sibling, parent)
        _blacken(t, parent)
        _blacken(t, far)
        _rotate(t, tree, parent, on_left)
        node = int(t.root[tree])
        break
    if node != 0:
        _blacken(t, node)


@compiled
def replace(t: Tables, tree: int, old: int, new: int) -> None:
    """Put `new` where `old` is, with its children and colour."""
    n = t.node
    n[new].left = n[old].left
    n[new].right = n[old].right
    _colour_as(t, new, old)
    if n[new].left != 0:
        n[n[new].left].parent = new
    if n[new].right != 0:
        n[n[new].right].parent = new
    _put_in_place_of(t, tree, old, new)


@compiled
def _put_in_place_of(t: Tables, tree: int, old: int, new: int) -> None:
    n = t.node
    parent = int(n[old].parent)
    if parent == 0:
        t.root[tree] = new
    elif n[parent].left == old:
        n[parent].left = new
    else:
        n[parent].right = new
    if new != 0:
        n[new].parent = parent
        if n[new].flags & WATCHED:
            mark_subtree(t, tree, new)


@compiled
def _rotate(t: Tables, tree: int, node: int, to_left: bool) -> None:
    n = t.node
    if to_left:
        child = int(n[node].right)
        inner = int(n[child].left)
        n[node].right = inner
    else:
        child = int(n[node].left)
        inner = int(n[child].right)
        n[node].left = inner
    if inner != 0:
        n[inner].parent = node
    _put_in_place_of(t, tree, node, child)
    if to_left:
        n[child].left = node
    else:
        n[child].right = node
    n[node].parent = child


@compiled
def neighbour(t: Tables, node: int, right: bool) -> int:
    """The next node in order (right), or the one before; 0 if there is none."""
    n = t.node
    below = int(n[node].right if right else n[node].left)
    if below != 0:
        while True:
            further = int(n[below].left if right else n[below].right)
            if further == 0:
                return below
            below = further
    child = node
    parent = int(n[node].parent)
    while parent != 0:
        came_from = n[parent].left if right else n[parent].right
        if came_from == child:
            return parent
        child = parent
        parent = int(n[parent].parent)
    return 0
