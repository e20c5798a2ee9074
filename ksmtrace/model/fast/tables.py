"""What the fast engine keeps, as arrays: a row for each place, frame, stable node and chain.

A place is one (mm, address) that was ever mapped; its rmap_item lives in the same row. Rows refer
to each other by number; number 0 is nobody. docs/fast-engine.md#tables draws it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

NOBODY = 0
ZERO_FRAME = 1
"""The frame number of the zero page."""

# Flags of a place.
HAS_ITEM, IN_UNSTABLE, KSM_ZERO = 1, 2, 4
# Flags of a frame.
KSM, EXCLUSIVE, IN_SWAP_CACHE = 1, 2, 4
# Flags of a stable node.
RED, IS_CHAIN, MIGRATING, WATCHED, STALE, IS_UNSTABLE = 1, 2, 4, 8, 16, 32


_U8, _U32, _I64 = np.uint8, np.uint32, np.int64

PLACE = np.dtype(
    [
        ("frame", _U32), ("oldchecksum", _U32), ("head", _U32), ("older", _U32), ("newer", _U32),
        ("item", _U32), ("flags", _U8), ("seqnr", _U8), ("age", _U8), ("remaining_skips", _U8),
    ],
    align=True,
)  # fmt: skip
"""frame: what is mapped there. item: its rmap_item's number; the rest belongs to that item. seqnr:
the scan in which it went into the unstable tree. head: the stable node it is on, with older and
newer the neighbours in that node's list."""

SEGMENT = np.dtype([("base", _I64), ("start", _I64), ("mm", _U32)], align=True)
"""A stretch of places. base: the first. start: its address. mm: the row of its address space."""

FRAME = np.dtype(
    [
        ("content", _U32), ("mapcount", _U32), ("node", _U32), ("pfn", _U32),
        ("flags", _U8), ("nid", _U8),
    ],
    align=True,
)  # fmt: skip
"""A row is never used again, as a Frame isn't. node: its stable node."""

NODE = np.dtype(
    [
        ("content", _U32), ("left", _U32), ("right", _U32), ("parent", _U32), ("flags", _U8),
        ("nid", _U8), ("frame", _U32), ("oldest", _U32), ("newest", _U32), ("items", _U32),
        ("chain", _U32), ("before", _U32), ("after", _U32), ("unused", _I64), ("unused_too", _I64),
    ],
    align=True,
)  # fmt: skip
"""Stable nodes, and the chains' places in the tree (IS_CHAIN). oldest, newest: the ends of the list
of places on it, items: how many. chain: the chain that it is in, or for IS_CHAIN is. before, after:
neighbours among a chain's dups, or among those that are MIGRATING. An IS_UNSTABLE row is of an
unstable tree, and `oldest` its place. A row that is not in use is linked to the next by `after`.
Its 64 bytes are a cache line: a walk touches one for each level."""

CHAIN = np.dtype(
    [
        ("node", _U32), ("first", _U32), ("dups", _U32), ("roomy", _U32), ("stale", _U32),
        ("pruned", _I64),
    ],
    align=True,
)  # fmt: skip
"""node: its place in the tree. first: its first dup. roomy: dups that have room. stale: dups that
are dead. pruned: when stale dups were last looked for, in ns."""

KNOWN = np.dtype([("stable", _U32), ("unstable", _U32)])
"""Of a content on a NUMA node: its node in the stable tree, its place in the unstable tree (or its
node, where the unstable tree is built as the kernel has it)."""

CONTENT = np.dtype([("order", _U32), ("checksum", _U32)])
"""Its rank among all contents, and its checksum."""

MM = np.dtype(
    [
        ("id", _I64), ("tgid", _I64), ("items", _I64), ("rmap_items", _I64),
        ("merging_pages", _I64), ("zero_pages", _I64), ("vmas", _I64),
    ],
    align=True,
)  # fmt: skip
"""An address space. id, tgid: as in events. items: rmap_items that it has. rmap_items,
merging_pages, zero_pages: as its ksm_stat says. vmas: its first region in `vma`."""

VMA = np.dtype([("end", _I64), ("nid", _U8), ("none", _U8)], align=True)
"""All regions, those of an address space in order. end: where it ends. none: PROT_NONE."""

SPAN = np.dtype([("first", _I64), ("end", _I64), ("visited", _U8)], align=True)
"""Places of an address space, in order of address. visited: whether ksmd visits pages there."""

WIDE = np.dtype([("low", _I64), ("high", _I64), ("node", _U32)], align=True)
"""A watched node that many ways lead past, and from which rank to which; see `watch`."""

Rows = npt.NDArray[np.void]


class Tables(NamedTuple):
    """Everything.

    segment_of: of a block of places. root: of the stable trees by NUMA node, from UNSTABLE on of
    the unstable ones. known: by NUMA node and content. content: empty where ranks and checksums
    follow the number. bucket, wide, watched: see `watch`. counts: by the names below, from KINDS_AT
    on events by kind. events: rows of seven words, see `stream`.
    """

    place: Rows
    segment_of: U32
    segment: Rows
    frame: Rows
    node: Rows
    chain: Rows
    root: U32
    known: Rows
    content: Rows
    bucket: U8
    wide: Rows
    watched: U32
    mm: Rows
    vma: Rows
    counts: I64
    events: I64


DTYPES: dict[str, tuple[Any, int]] = {
    "place": (PLACE, 1), "segment_of": (np.dtype(_U32), 1), "segment": (SEGMENT, 1),
    "frame": (FRAME, 1), "node": (NODE, 1), "chain": (CHAIN, 1), "root": (np.dtype(_U32), 1),
    "known": (KNOWN, 2), "content": (CONTENT, 1), "bucket": (np.dtype(_U8), 2), "wide": (WIDE, 2),
    "watched": (np.dtype(_U32), 1), "mm": (MM, 1), "vma": (VMA, 1),
    "counts": (np.dtype(_I64), 1), "events": (np.dtype(_I64), 2),
}  # fmt: skip
"""What each table consists of, and its dimensions."""

RULES = np.dtype(
    [
        ("visit_order", _I64), ("give_up", _U8), ("chains", _I64), ("per_node", _U8),
        ("zero_pages", _I64), ("use_zero_pages", _U8), ("smart_scan", _U8),
        ("max_page_sharing", _I64), ("prune_ns", _I64), ("unstable_walks", _U8),
        ("unshare_finds_prot_none", _U8), ("visit_ns", _I64), ("seqnr", _I64),
        ("zero_content", _I64), ("zero_checksum", _I64), ("keep_events", _U8),
    ],
    align=True,
)  # fmt: skip
"""The knobs and the release's behaviour, as numbers; see `model.state` and `kernel.releases`."""

Rules = Any
"""A row of RULES."""

UNSTABLE = 256
"""From here on `root` has the unstable trees."""
OWN_ITEM_FIRST, STABLE_FIRST, CHECKSUM_FIRST = 0, 1, 2
NO_CHAINS, LONGEST_WITH_ROOM, LONGEST = 0, 1, 2
ZERO_ABSENT, ZERO_UNCOUNTED, ZERO_COUNTED = 0, 1, 2

DEPTH_UNIT = 16
"""Depths of trees and levels are counted in so many parts of one."""

BLOCK_SHIFT = 6
BLOCK = 1 << BLOCK_SHIFT

(
    NOW, RMAP_ITEMS, SHARED, SHARING, UNSHARED, SKIPPED, ZERO_PAGES, CHAINS, DUPS, COW_KSM,
    NEXT_ITEM, NEXT_PFN, NEXT_FRAME, FREE_NODE, NEXT_NODE, FREE_CHAIN, NEXT_CHAIN, MIGRATING_FIRST,
    STALE_NODES, NEXT_DUE, WATCHED_NODES, IDLE_WALKS, PATIENCE, EVENTS, UNSTABLE_NODES,
    SHIFT, VISITS, HASHED, COMPARED, MERGES, FAILED, ABSENT, KSM_PAGES, STABLE_DEPTH,
    UNSTABLE_DEPTH, STABLE_LEVELS, UNSTABLE_LEVELS, COLD_LEVELS, IN_TREES, SCAN_UNSHARED, COUNTS,
) = range(41)  # fmt: skip
"""Indices into Tables.counts."""
KINDS_AT = COUNTS
KINDS_COUNTED = 64
WIDE_AT = KINDS_AT + KINDS_COUNTED
ALL_COUNTS = WIDE_AT + UNSTABLE
