"""What ksmd keeps about the pages it scans: rmap_items, stable nodes, chains, mm slots."""

from __future__ import annotations

from ksmtrace.model.memory import Frame, Mm
from ksmtrace.model.rbtree import RedBlackNode, RedBlackTree


class RmapItem(RedBlackNode):
    """One scanned (mm, address). next: the following one of its mm.

    tree: the unstable tree it is in, with seqnr the scan that put it there. head: the stable node
    it belongs to. Never both.
    """

    __slots__ = (
        "address", "age", "head", "id", "mm", "next", "oldchecksum", "remaining_skips", "seqnr",
        "tree",
    )  # fmt: skip

    def __init__(self, number: int, mm: Mm, address: int) -> None:
        self.id = number
        self.mm = mm
        self.address = address
        self.next: RmapItem | None = None
        self.oldchecksum = 0
        self.age = 0
        self.remaining_skips = 0
        self.tree: RedBlackTree[RmapItem] | None = None
        self.seqnr = 0
        self.head: StableNode | None = None


class StableTreeNode(RedBlackNode):
    """What the stable tree consists of: stable nodes and chains."""

    __slots__ = ("nid",)

    nid: int


class StableNode(StableTreeNode):
    """One KSM page. It holds no reference on its frame, which may die behind its back.

    items: who maps it, oldest first (the kernel's hlist, turned round). chain: the chain it is a
    dup of. migrating: it was taken out of the tree because its frame moved to another NUMA node.
    """

    __slots__ = ("chain", "frame", "items", "migrating")

    def __init__(self, frame: Frame, nid: int) -> None:
        self.frame = frame
        self.nid = nid
        self.items: dict[RmapItem, None] = {}
        self.chain: StableChain | None = None
        self.migrating = False


class StableChain(StableTreeNode):
    """Several KSM pages with one content, because max_page_sharing limits each.

    id: the frame number of the page it was made for, which no other gets. dups: newest first, but
    for those moved to the front. prune_time: when stale ones were last looked for, in nanoseconds.
    """

    __slots__ = ("dups", "id", "prune_time")

    def __init__(self, number: int, nid: int, prune_time: int) -> None:
        self.id = number
        self.nid = nid
        self.prune_time = prune_time
        self.dups: list[StableNode] = []


class MmSlot:
    """An mm on ksmd's list. first: its rmap_items, in order of address."""

    __slots__ = ("first", "mm")

    def __init__(self, mm: Mm) -> None:
        self.mm = mm
        self.first: RmapItem | None = None

    def items(self) -> list[RmapItem]:
        """All its rmap_items."""
        items = []
        item = self.first
        while item is not None:
            items.append(item)
            item = item.next
        return items
