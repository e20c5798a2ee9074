"""What UKSM knows at one moment, as plain data: pages, both hash trees, rungs, regions."""

from __future__ import annotations

from ksmtrace.kernel.uksm import RUNGS
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.memory import Frame, Mm
from ksmtrace.model.scene import Node, PageScene, Row, Scene, Standing, Tree
from ksmtrace.model.uksm.state import State
from ksmtrace.model.uksm.structures import Item, ItemState, StableNode
from ksmtrace.model.uksm.wakeup import WakeUp


def scene_of(state: State, daemon: WakeUp) -> Scene:
    """The present moment.

    Trees are told as what they are searched by: the hash. Their places come in order of it.
    """
    slots = [slot for slot in daemon.slots.live if not slot.deleted]
    items = {(slot.mm.id, item.address): item for slot in slots for item in slot.items.values()}
    pages = tuple(
        _page(state, mm, address, items.get((mm.id, address)))
        for mm in state.memory.mms
        if mm.users
        for vma in mm.vmas
        for address in range(vma.start, vma.end, PAGE_SIZE)
    )
    trees = daemon.trees
    stable = [
        _stable(node)
        for _hash, place in sorted(trees.stable.items())
        for node in place.by_full_hash.values()
    ]
    unstable = [
        Node(f"u{item.id}", item.page.content, members=((item.mm.id, item.address),))
        for _hash, place in sorted(trees.unstable.items())
        for item in place.by_full_hash.values()
    ]
    return Scene(
        pages,
        (_listed("stable", stable), _listed("unstable", unstable)),
        figures={
            "sampling strength": f"{state.strength.value:,} of a page's 1,024 words",
            "full rounds done": f"{state.full_round - 1:,}",
            "evaluation rounds done": f"{state.eval_round - 1:,}",
            "wake-ups": f"{daemon.visit.wakeup:,}",
        },
        groups={"rungs": tuple(_rung(daemon, number) for number in reversed(range(RUNGS)))},
    )


def _listed(kind: str, nodes: list[Node]) -> Tree:
    return Tree(kind, 0, len(nodes), len(nodes), None, None, tuple(nodes))


def _stable(node: StableNode) -> Node:
    members = tuple((item.mm.id, item.address) for item in node.items)
    return Node(_key(node), node.frame.content, members=members, dead=node.stale)


def _key(node: StableNode) -> str:
    return f"k{node.frame.pfn:x}"


def _page(state: State, mm: Mm, address: int, item: Item | None) -> PageScene:
    page = mm.pages.get(address)
    node = page.node if page is not None and page.ksm else None
    return PageScene(
        mm.id,
        address,
        _standing(state, page, item),
        page.content if page is not None else None,
        state.hashes.at(page.content) if page is not None and item is not None else None,
        ksm_page=_key(node) if isinstance(node, StableNode) else None,
    )


def _standing(state: State, page: Frame | None, item: Item | None) -> Standing:
    if page is None:
        return Standing.NOT_THERE
    if page is state.memory.zero_frame:
        return Standing.ZERO
    if item is None:
        return Standing.INHERITED if page.ksm else Standing.UNSEEN
    if item.state is ItemState.STABLE:
        return Standing.MERGED if item.page is page else Standing.COPIED
    waits = item.state is ItemState.UNSTABLE and item.hash_round == state.hash_round
    return Standing.UNSTABLE if waits else Standing.WAITS


def _rung(daemon: WakeUp, number: int) -> Row:
    rung = daemon.rungs[number]
    slots = list(rung)
    return {
        "rung": str(number + 1),
        "pages": f"{rung.pages:,}",
        "one page in": f"{rung.step:,}" if slots else "–",
        "regions": tuple((slot.mm.id, slot.start) for slot in slots),
    }
