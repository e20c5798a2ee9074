"""The families of random scenarios: which actions each may take, and how often.

The actions are those of `lab.random_scenarios`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ksmtrace.lab.needs import SWAP, TWO_NODES, Need

NEVER = 4_000_000_000


@dataclass(frozen=True)
class Family:
    """What a kind of scenario does. weights: how often each action, relative to the others.

    pages: least and most in a region. steps: number of random steps. contents: how many different
    named contents. knobs: name -> choices. needs: what it needs of a machine, see `lab.needs`.
    nodes: how many NUMA nodes regions are mapped on.
    """

    name: str
    weights: Mapping[str, int]
    pages: tuple[int, int] = (1, 12)
    steps: tuple[int, int] = (8, 30)
    processes: int = 4
    contents: int = 4
    knobs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    since: str = "2.6.38"
    needs: tuple[Need, ...] = ()
    nodes: int = 1


_LIMITS = {
    "max_page_sharing": (2, 2, 3, 4, 8),
    "stable_node_chains_prune_millisecs": (0, NEVER),
}
ANY_KNOBS: dict[str, tuple[Any, ...]] = {
    "max_page_sharing": (2, 3, 5, 256),
    "stable_node_chains_prune_millisecs": (0, NEVER),
    "use_zero_pages": (0, 1),
    "smart_scan": (0, 1),
    "merge_across_nodes": (0, 1),
}
_BASE = {"write": 8, "scan": 9, "map": 3, "discard": 2, "unmap": 1}

FAMILIES: tuple[Family, ...] = (
    Family("writes", {**_BASE, "overwrite": 2, "read": 1}),
    Family("sharing limit", {**_BASE, "fork": 1, "exit": 1}, contents=2, knobs=_LIMITS),
    Family(
        "crowded", {**_BASE, "discard": 4}, pages=(4, 40), contents=2,
        knobs={"max_page_sharing": (2, 3), "stable_node_chains_prune_millisecs": (0, NEVER),
               "smart_scan": (0, 1)},
    ),
    Family(
        "zero pages", {**_BASE, "zero": 6, "fork": 1, "set": 1, "move": 1, "pin": 2, "unpin": 1},
        knobs={"use_zero_pages": (0, 1, 1), "smart_scan": (0, 1)},
    ),
    Family("forks", {**_BASE, "fork": 4, "exit": 3}, contents=3, knobs=ANY_KNOBS),
    Family(
        "pins", {**_BASE, "pin": 6, "unpin": 4, "fork": 2, "unmergeable": 1, "mergeable": 2,
                 "set": 1, "unmerge": 1},
        contents=2, knobs={"smart_scan": (0, 0, 1), "max_page_sharing": (2, 256)},
    ),
    Family(
        "shared and pinned",
        {"write": 2, "scan": 8, "map": 3, "fork": 4, "exit": 1, "pin": 5, "unpin": 3, "cycle": 3,
         "discard": 1, "unmerge": 1, "unmergeable": 1},
        pages=(1, 2), contents=1, knobs={"smart_scan": (0,), "max_page_sharing": (2, 256)},
    ),
    Family("moves", {**_BASE, "move": 4, "unmap": 3, "remap": 3, "protect": 1}, contents=3),
    Family(
        "opting out", {**_BASE, "unmergeable": 3, "mergeable": 3, "unmerge": 2, "fork": 1},
        contents=3, knobs=ANY_KNOBS,
    ),
    Family(
        "batches", {**_BASE, "batch": 12, "fork": 2, "exit": 2, "discard": 3},
        contents=3, knobs=ANY_KNOBS,
    ),
    Family(
        "everything",
        {**_BASE, "batch": 4, "fork": 2, "exit": 2, "pin": 2, "unpin": 2, "move": 1,
         "unmergeable": 1, "mergeable": 1, "unmerge": 1, "set": 2, "zero": 2, "overwrite": 2,
         "read": 1, "remap": 2, "protect": 1},
        pages=(1, 40), processes=6, contents=5, knobs=ANY_KNOBS,
    ),
    Family(
        "whole processes",
        {**_BASE, "merge_any": 4, "exec": 2, "fork": 2, "exit": 1, "map_plain": 3},
        contents=3, since="6.4",
    ),
    Family(
        "opting out whole",
        {**_BASE, "merge_any": 5, "merge_none": 5, "fork": 2, "exit": 1, "map_plain": 2, "exec": 1,
         "mergeable": 2, "unmergeable": 1, "protect": 1, "remap": 1, "batch": 2,
         "zero": 1, "unmerge": 1},
        contents=2, knobs=ANY_KNOBS, since="6.4",
    ),
    Family(
        "nodes",
        {"write": 4, "scan": 9, "batch": 5, "map": 4, "discard": 1, "place": 1, "migrate": 3,
         "trade": 6, "unmerge": 1},
        pages=(2, 4), contents=1, since="3.9", needs=(TWO_NODES,), nodes=2,
        knobs={**_LIMITS, "max_page_sharing": (2, 3, 256), "merge_across_nodes": (0,),
               "smart_scan": (0, 0, 1)},
    ),
    Family(
        "nodes and forks",
        {**_BASE, "place": 2, "migrate": 7, "fork": 3, "exit": 2, "batch": 4, "zero": 1,
         "merge_across": 2, "unmerge": 1},
        pages=(1, 6), contents=2, since="3.9", needs=(TWO_NODES,), nodes=2,
        knobs={**ANY_KNOBS, "merge_across_nodes": (0, 0, 1)},
    ),
    Family(
        "swap",
        {**_BASE, "swap_out": 5, "read": 4, "overwrite": 2, "remap": 1, "move": 1, "zero": 1,
         "unmerge": 1, "set": 1},
        contents=3, since="5.19", needs=(SWAP,), knobs=ANY_KNOBS,
    ),
    Family(
        "swap and forks",
        {**_BASE, "swap_out": 5, "read": 4, "fork_seen": 3, "exit": 2, "overwrite": 1, "zero": 1},
        contents=2, since="5.19", needs=(SWAP,), knobs=ANY_KNOBS,
    ),
    Family(
        "swap on nodes",
        {**_BASE, "swap_out": 4, "read": 4, "place": 3, "merge_across": 1, "batch": 3},
        contents=2, since="5.19", needs=(TWO_NODES, SWAP), nodes=2,
        knobs={**ANY_KNOBS, "merge_across_nodes": (0, 0, 1)},
    ),
)  # fmt: skip
FAMILIES_BY_NAME: Mapping[str, Family] = MappingProxyType({f.name: f for f in FAMILIES})
LARGE = Family(
    "large",
    {"write": 6, "scan": 8, "discard": 3, "fork": 1, "exit": 1, "map": 2, "batch": 2, "random": 6},
    pages=(300, 3000), steps=(8, 14), contents=40,
    knobs={**ANY_KNOBS, "max_page_sharing": (2, 8, 256)},
)  # fmt: skip
