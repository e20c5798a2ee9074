"""What keeps equal pages apart: the sharing limit, zero pages, NUMA nodes."""

from __future__ import annotations

import math

from ksmtrace.amounts import count, size
from ksmtrace.inspect.advise.advice import Advice
from ksmtrace.inspect.advise.rules.base import Rule, memory_for_unmerging, unmerged_first, write
from ksmtrace.inspect.advise.situation import Situation

_LOST_SHARE = 0.01
_LOST_PAGES = 8
_LOST_BYTES = 64 << 20
_LONG = 16
_FEWEST_ZERO = 64


def _chains(now: Situation) -> tuple[int, int] | None:
    """Contents with several KSM pages, and those KSM pages."""
    chains, dups = now.value("stable_node_chains"), now.value("stable_node_dups")
    return (chains, dups) if chains and dups and dups > chains else None


def _sharing_limit(now: Situation) -> Advice | None:
    found, limit = _chains(now), now.knob("max_page_sharing")
    if found is None or not limit:
        return None
    chains, dups = found
    lost = dups - chains
    lost_bytes = lost * now.facts.page_bytes
    enough = max(_LOST_PAGES, _LOST_SHARE * (now.saved_pages or 0))
    if lost < enough and lost_bytes < _LOST_BYTES:
        return None
    proposed = 1 << math.ceil(math.log2(limit * dups / chains))
    return Advice(
        what="let more pages share one KSM page",
        commands=unmerged_first(now, "max_page_sharing", proposed),
        why=f"max_page_sharing is {limit}, so {count(dups)} KSM pages were made where"
        f" {count(chains)} would do.",
        brings=f"{size(lost_bytes)} ({count(lost)} × {now.facts.page_bytes} bytes) if each"
        f" content's pages fit one: {limit} × {count(dups)} / {count(chains)}, to the next power"
        " of two.",
        risks="moving, swapping or compacting such a page visits every sharer: longer stalls. "
        + memory_for_unmerging(now),
        confidence="likely",
        evidence={
            "max_page_sharing": limit,
            "stable_node_chains": chains,
            "stable_node_dups": dups,
            "lost_pages": lost,
            "proposed_max_page_sharing": proposed,
        },
        gain_bytes=lost_bytes,
    )


def _zero_pages(now: Situation) -> Advice | None:
    zero, limit = now.facts.zero_filled, now.knob("max_page_sharing") or 256
    if now.facts.knobs.get("use_zero_pages") != "0" or not zero or zero < _FEWEST_ZERO:
        return None
    item = now.facts.rmap_item_bytes or 0
    gain = zero * item + math.ceil(zero / limit) * now.facts.page_bytes
    return Advice(
        what="map zero-filled pages to the kernel's zero page",
        commands=(write("use_zero_pages", 1),),
        why=f"{count(zero)} pages that ksmd looks at hold only zeros, and use_zero_pages is 0.",
        brings=f"about {size(gain)} beside what merging them saves: {count(zero)} list entries of"
        f" {item} bytes, and a KSM page for each {limit}.",
        risks=_zero_risk(now),
        confidence="likely",
        evidence={"use_zero_pages": 0, "zero_filled_pages": zero, "rmap_item_bytes": item},
        gain_bytes=gain,
    )


def _zero_risk(now: Situation) -> str:
    uncounted = now.profile is not None and now.profile.behaviour.zero_pages == "uncounted"
    copies = "a write to one copies it, as for any merged page."
    return f"{copies} Before Linux 6.6 nothing counts or unmerges them." if uncounted else copies


def _long_chains(now: Situation) -> Advice | None:
    found, limit = _chains(now), now.knob("max_page_sharing")
    if found is None or not limit or now.facts.knobs.get("use_zero_pages") != "0":
        return None
    chains, dups = found
    if dups < _LONG * chains or now.facts.zero_filled is not None:
        return None
    pages = dups * limit
    return Advice(
        what="look whether these pages hold only zeros; if so, use the zero page",
        commands=("ksmtrace estimate --all", write("use_zero_pages", 1)),
        why=f"{count(dups)} KSM pages of up to {limit} mappings each hold only {count(chains)}"
        f" different contents: some {count(pages)} pages. That many are most often zeros, and"
        " use_zero_pages is 0.",
        brings=f"up to {size(dups * now.facts.page_bytes)} of KSM pages, their list entries, and"
        " shorter walks.",
        risks=_zero_risk(now),
        confidence="possible",
        evidence={
            "use_zero_pages": 0,
            "stable_node_chains": chains,
            "stable_node_dups": dups,
            "max_page_sharing": limit,
        },
        gain_bytes=dups * now.facts.page_bytes,
    )


def _nodes_apart(now: Situation) -> Advice | None:
    nodes = now.facts.nodes
    if now.knob("merge_across_nodes") != 0 or nodes == 1 or not now.rmap_items:
        return None
    told = "several" if nodes is None else count(nodes)
    return Advice(
        what="merge across NUMA nodes, if memory matters more than nearness",
        commands=unmerged_first(now, "merge_across_nodes", 1),
        why=f"merge_across_nodes is 0: on a host of {told} nodes each content is kept once on each"
        " node that has it.",
        brings="not known; at most"
        + (f" {nodes - 1} of {nodes} KSM pages" if nodes else " all but one node's KSM pages")
        + (f" ({size(_spared(now, nodes))})." if nodes and now.value("pages_shared") else "."),
        risks="reads of a page on another node are slower. " + memory_for_unmerging(now),
        confidence="possible",
        evidence={"merge_across_nodes": 0, "nodes": nodes, "ksm_pages": now.value("pages_shared")},
    )


def _spared(now: Situation, nodes: int) -> float:
    return (now.value("pages_shared") or 0) * (nodes - 1) / nodes * now.facts.page_bytes


SHARING_LIMIT = Rule(
    "sharing_limit",
    "chains hold more KSM pages than contents, by 8 and 1 % of what is saved, or by 64 MiB:"
    " `max_page_sharing` is reached",
    "`max_page_sharing` × KSM pages / contents, to the next power of two; needs `run` 2 first",
    _sharing_limit,
)
ZERO_PAGES = Rule(
    "zero_pages_unused",
    "`use_zero_pages` is 0 and a recording with contents holds 64 zero-filled pages or more",
    "`use_zero_pages` 1",
    _zero_pages,
)
LONG_CHAINS = Rule(
    "long_chains",
    "`use_zero_pages` is 0 and chains are 16 KSM pages long or longer",
    "asking `ksmtrace estimate`, then `use_zero_pages` 1",
    _long_chains,
)
NODES_APART = Rule(
    "nodes_apart",
    "`merge_across_nodes` is 0 and the host has several NUMA nodes, or it is not known how many",
    "`merge_across_nodes` 1; needs `run` 2 first",
    _nodes_apart,
)
