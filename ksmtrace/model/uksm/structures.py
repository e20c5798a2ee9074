"""What UKSM keeps: slots, items, the nodes of its two trees."""

from __future__ import annotations

from array import array
from enum import IntEnum
from typing import TYPE_CHECKING

from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.memory import Frame, Mm, Vma

if TYPE_CHECKING:
    from ksmtrace.model.uksm.rungs import Rung


class Slot:
    """One region of one process, and how far its scan is.

    pages: fixed; a region of another size is another slot. key: its place among all slots in the
    lists of a stable node, arbitrary but fixed (in the kernel its address). rung: the one it is on,
    None while it waits and when it is gone; index: its place there. deleted: its region is gone.
    done: pages visited in this pass, which is also how much of `order` is drawn. sampled, merged,
    cowed: visits, merges, and writes to merged pages since it was last judged; bemerged: the credit
    for merges of others in this evaluation round. round_mark: the full round in which it last
    completed a pass. seen: by page, the wake-up that last visited it. turn_round: the evaluation
    round in which it last had a turn.
    """

    __slots__ = (
        "bemerged", "counted", "cowed", "deleted", "done", "index", "items", "key", "merged", "mm",
        "order", "pages", "round_mark", "rung", "sampled", "seen", "serial", "start", "turn_round",
        "vma",
    )  # fmt: skip

    def __init__(self, mm: Mm, vma: Vma, key: tuple[int, int]) -> None:
        self.mm = mm
        self.vma = vma
        self.serial = vma.serial
        self.key = key
        self.start = vma.start
        self.pages = (vma.end - vma.start) // PAGE_SIZE
        self.rung: Rung | None = None
        self.index = -1
        self.deleted = False
        self.counted = False
        self.done = 0
        self.sampled = 0
        self.merged = 0
        self.cowed = 0
        self.bemerged = 0
        self.round_mark = 0
        self.turn_round = 0
        self.order: list[int] = []
        self.seen: array[int] = array("I")
        self.items: dict[int, Item] = {}

    def address_of(self, index: int) -> int:
        """The address of a page of it."""
        return self.start + index * PAGE_SIZE

    def begin(self) -> None:
        """Prepare for visits."""
        self.order = list(range(self.pages))
        self.seen = array("I", bytes(4 * self.pages))


class ItemState(IntEnum):
    """Which tree an item is in."""

    NONE = 0
    UNSTABLE = 1
    STABLE = 2


class Item:
    """What UKSM knows of a page of a slot (the kernel's rmap_item).

    page: the frame when it was last seen. full_hash: 0 while unknown. hash_round: of the unstable
    tree that it was put into. tree_node: its place there; group: its place in a stable node.
    oldchecksum: what events want: 0 for an item whose page was merged before it was seen.
    """

    __slots__ = (
        "full_hash", "group", "hash_round", "id", "index", "mm", "oldchecksum", "page", "slot",
        "state", "tree_node",
    )  # fmt: skip

    def __init__(self, number: int, slot: Slot, index: int, page: Frame) -> None:
        self.id = number
        self.slot = slot
        self.mm = slot.mm
        self.index = index
        self.page = page
        self.state = ItemState.NONE
        self.full_hash = 0
        self.hash_round = 0
        self.oldchecksum = 1
        self.tree_node: UnstableNode | None = None
        self.group: Group | None = None

    @property
    def address(self) -> int:
        """Its page's address."""
        return self.slot.start + self.index * PAGE_SIZE


class UnstableNode:
    """A hash in the unstable tree. by_full_hash: who has it; 0 for the one that has none yet.

    count: how many there are, as the kernel thinks.
    """

    __slots__ = ("by_full_hash", "count", "hash")

    def __init__(self, hash_: int) -> None:
        self.hash = hash_
        self.by_full_hash: dict[int, Item] = {}
        self.count = 0


class StableTreeNode:
    """A hash in the stable tree. by_full_hash: its merged pages; 0 for one that has none yet."""

    __slots__ = ("by_full_hash", "hash")

    def __init__(self, hash_: int) -> None:
        self.hash = hash_
        self.by_full_hash: dict[int, StableNode] = {}

    def only(self) -> StableNode:
        """The merged page, where it is the only one."""
        return next(iter(self.by_full_hash.values()))


class StableNode:
    """A merged page. It holds no reference on its frame, which may die unnoticed.

    tree_node: None while it is lost, merged but not to be found. groups: who maps it, by slot.
    """

    __slots__ = ("frame", "full_hash", "groups", "items", "tree_node")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.full_hash = 0
        self.tree_node: StableTreeNode | None = None
        self.groups: list[Group] = []
        self.items: dict[Item, None] = {}

    @property
    def stale(self) -> bool:
        """Whether its frame has died."""
        frame = self.frame
        return frame.mapcount == 0 and not frame.pins and frame.swap is None


class Group:
    """The items of one slot in one stable node."""

    __slots__ = ("items", "node", "slot")

    def __init__(self, node: StableNode, slot: Slot) -> None:
        self.node = node
        self.slot = slot
        self.items: dict[Item, None] = {}
