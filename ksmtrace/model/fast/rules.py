"""The knobs and a release's behaviour as the numbers that compiled code asks for."""

from __future__ import annotations

import numpy as np

from ksmtrace.model.fast.memory import FastMemory
from ksmtrace.model.fast.tables import (
    CHECKSUM_FIRST,
    LONGEST,
    LONGEST_WITH_ROOM,
    NO_CHAINS,
    OWN_ITEM_FIRST,
    RULES,
    STABLE_FIRST,
    ZERO_ABSENT,
    ZERO_COUNTED,
    ZERO_UNCOUNTED,
    Rules,
)
from ksmtrace.model.state import State

_ORDERS = {
    "own_item_first": OWN_ITEM_FIRST,
    "stable_first": STABLE_FIRST,
    "checksum_first": CHECKSUM_FIRST,
}
_CHAINS = {"absent": NO_CHAINS, "longest_with_room": LONGEST_WITH_ROOM, "longest": LONGEST}
_ZERO = {"absent": ZERO_ABSENT, "uncounted": ZERO_UNCOUNTED, "counted": ZERO_COUNTED}


def rules_of(state: State, memory: FastMemory, *, keep_events: bool) -> Rules:
    """What holds now."""
    behaviour, settings = state.behaviour, state.settings
    values = {
        "visit_order": _ORDERS[behaviour.visit_order],
        "give_up": behaviour.stale_node_on_walk == "give_up",
        "chains": _CHAINS[behaviour.chains],
        "per_node": behaviour.numa_trees and not settings.merge_across_nodes,
        "zero_pages": _ZERO[behaviour.zero_pages],
        "use_zero_pages": bool(settings.use_zero_pages),
        "smart_scan": bool(settings.smart_scan) and behaviour.smart_scan,
        "max_page_sharing": settings.max_page_sharing,
        "prune_ns": settings.stable_node_chains_prune_millisecs * 1_000_000,
        "unstable_walks": behaviour.prot_none == "not_found",
        "unshare_finds_prot_none": behaviour.unshare_finds_prot_none,
        "visit_ns": state.clock.visit_ns,
        "seqnr": state.seqnr,
        "zero_content": memory.contents.zero,
        "zero_checksum": memory.contents.zero_checksum,
        "keep_events": keep_events,
    }
    rules = np.zeros(1, RULES)
    for name, value in values.items():
        rules[name] = value
    return rules[0]
