"""How KSM behaves in every kernel release: one table of named behaviours.

A release is an entry that says what is different from the one before it. A profile is a release
plus named fixes, because stable branches and distributions carry fixes of later releases: Debian's
6.12.117 is not 6.12.0. Which tracepoints, counters and knobs exist is not repeated here: each of
those says itself since when it exists (`events.registry`, `kernel.sysfs`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

from ksmtrace.errors import Exit, KsmtraceError

Version = tuple[int, int, int]
MergeFate = Literal["absent", "lost", "unscanned", "kept"]
Evidence = Literal["live", "read", "interpolated"]


def parse_release(text: str) -> Version:
    """The numbers of a release like 6.12.117+deb12-amd64; (0, 0, 0) if there are none."""
    found = re.match(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", text)
    if not found:
        return (0, 0, 0)
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)


@dataclass(frozen=True)
class Behaviour:
    """Everything about ksmd that differs between releases; the defaults are those of 2.6.38."""

    checksum: Literal["jhash2", "xxhash"] = "jhash2"
    """The function behind rmap_item.oldchecksum; xxhash since 5.0."""
    visit_order: Literal["own_item_first", "stable_first", "checksum_first"] = "own_item_first"
    """What cmp_and_merge_page does first with an ordinary page."""
    stale_node_on_walk: Literal["give_up", "restart"] = "give_up"
    """What a walk of the stable tree does when it meets a KSM page that is dead."""
    numa_trees: bool = False
    """Whether merge_across_nodes=0 gives every NUMA node trees of its own (3.9)."""
    run_2_sweeps: bool = False
    """Whether run=2 also removes stable nodes that no rmap_item leads to (3.9)."""
    run_2_appends: bool = False
    """Whether a new mm goes to the end of ksmd's list while run is 2 (3.9)."""
    zero_pages: Literal["absent", "uncounted", "counted"] = "absent"
    """use_zero_pages (4.11); counted and unshared since 6.6 (e2942062e01d, 79271476b336)."""
    chains: Literal["absent", "longest_with_room", "longest"] = "absent"
    """How a chain's next KSM page is chosen: max_page_sharing came with 4.13. Since 6.11 a full
    one is found where none has room (nothing is merged into it), and a chain of one collapses at
    any walk, not only at a pruning one."""
    same_huge_page_splits: bool = False
    """Whether two equal pages of one huge page make ksmd split it after the failed try (4.19)."""
    locked_page_is_busy: bool = False
    """Whether a search gives up on a tree page that somebody has locked, instead of waiting."""
    sole_mapping_reused: bool = False
    """Whether a write to a KSM page that nobody else maps reuses it in place (5.4)."""
    unshare: Literal["write_fault", "unshare_fault"] = "write_fault"
    """How a KSM page is broken up without a write; since 6.2 (6cce3314b928) the copy is clean."""
    prot_none: Literal["visited", "not_visited", "not_found"] = "visited"
    """PROT_NONE pages: visited; not candidates at all (6.1-rc7 to 6.4); or visited, but not found
    as unstable-tree pages (6.1 with the range walk)."""
    unshare_finds_prot_none: bool = True
    """Whether unsharing a range finds its PROT_NONE pages (not in 6.1)."""
    merge_any: MergeFate = "absent"
    """PR_SET_MEMORY_MERGE (6.4) and what becomes of it when the process execs."""
    drop_clears_merge_any: bool = True
    """Whether ksmd, dropping an mm without mergeable regions, also ends its PR_SET_MEMORY_MERGE."""
    fork_counters: Literal["inherited", "fresh"] = "inherited"
    """Whether a forked child's ksm_stat begins with its parent's numbers."""
    pages_scanned: Literal["absent", "per_batch", "exact"] = "absent"
    """6.6 (b348b5fe2b5f) counts whole batches plus one; exact since 6.10 (730cdc2c72c6)."""
    smart_scan: bool = False
    """Pages that did not merge are visited less often (6.7, 5e924ff54d08)."""
    advisor: bool = False
    """The scan-time advisor (6.8, 4e5fa4f5eff6)."""
    huge_page_split_maps_zero_pages: bool = False
    """Whether splitting a huge page maps its zero-filled pages to the zero page (6.12)."""


@dataclass(frozen=True)
class Release:
    """A kernel release: what is different from the entry before it, and how that is known."""

    version: str
    evidence: Evidence
    changes: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fix:
    """A later change that stable branches also carry.

    stable: the first patch level seen with it, by series; in between it is not known.
    """

    name: str
    what: str
    changes: Mapping[str, Any]
    stable: Mapping[tuple[int, int], int]


RELEASES: tuple[Release, ...] = (
    Release("2.6.38", "read", {}, ("The process of 2011, until 3.8: two trees, jhash2.",)),
    Release(
        "3.9",
        "read",
        {
            "visit_order": "stable_first",
            "numa_trees": True,
            "run_2_appends": True,
            "run_2_sweeps": True,
        },
        ("NUMA: merge_across_nodes.",),
    ),
    Release(
        "4.10",
        "read",
        {"stale_node_on_walk": "restart"},
        ("A search that meets a dead KSM page starts again.",),
    ),
    Release("4.11", "read", {"zero_pages": "uncounted"}, ("use_zero_pages.",)),
    Release(
        "4.13",
        "read",
        {"chains": "longest_with_room"},
        ("max_page_sharing: chains of KSM pages with one content.",),
    ),
    Release(
        "4.19",
        "read",
        {"same_huge_page_splits": True},
        ("Two equal pages of one huge page no longer keep it from being split.",),
    ),
    Release("5.0", "read", {"checksum": "xxhash"}, ("The checksum is xxhash.",)),
    Release(
        "5.4",
        "read",
        {"locked_page_is_busy": True, "sole_mapping_reused": True},
        ("A write to a KSM page that nobody else maps reuses it.",),
    ),
    Release(
        "5.9",
        "interpolated",
        {"sole_mapping_reused": False},
        ("Every write to a KSM page copies it (read in 5.15; somewhere after 5.4).",),
    ),
    Release("5.19", "read", {}, ("ksm_merging_pages in /proc/PID; cow_ksm in vmstat.",)),
    Release("6.0", "read"),
    Release(
        "6.1",
        "live",
        {"prot_none": "not_visited", "unshare_finds_prot_none": False},
        (
            "/proc/PID/ksm_stat.",
            "PROT_NONE pages are not merged.",
            "Compared live as 6.1.192, with its range walk.",
        ),
    ),
    Release(
        "6.2",
        "read",
        {"unshare": "unshare_fault", "unshare_finds_prot_none": True},
        ("KSM pages are broken up by an unshare fault: the copy is clean.",),
    ),
    Release("6.3", "read"),
    Release(
        "6.4",
        "read",
        {"merge_any": "lost"},
        ("Tracepoints, PR_SET_MEMORY_MERGE and general_profit.",),
    ),
    Release("6.5", "read", {"prot_none": "visited"}, ("PROT_NONE pages are merged again.",)),
    Release(
        "6.6",
        "read",
        {"zero_pages": "counted", "pages_scanned": "per_batch"},
        ("Zero pages are counted and unshared; pages_scanned; smaps says KSM:.",),
    ),
    Release(
        "6.7",
        "interpolated",
        {"smart_scan": True, "merge_any": "unscanned"},
        ("Smart scan.", "A process with PR_SET_MEMORY_MERGE that execs is not scanned."),
    ),
    Release("6.8", "read", {"advisor": True}, ("The scan-time advisor.",)),
    Release("6.9", "read"),
    Release(
        "6.10",
        "read",
        {"pages_scanned": "exact", "merge_any": "kept"},
        ("pages_scanned is exact.", "PR_SET_MEMORY_MERGE outlives exec."),
    ),
    Release(
        "6.11",
        "read",
        {"visit_order": "checksum_first", "chains": "longest"},
        ("A page that just changed is not searched for.", "Chains of one collapse at any walk."),
    ),
    Release(
        "6.12",
        "live",
        {"huge_page_split_maps_zero_pages": True},
        (
            "Splitting a huge page maps its zero-filled pages to the zero page.",
            "Compared live as 6.12.117, with its fixes.",
        ),
    ),
    Release("6.13", "read"),
    Release("6.14", "read", {}, ("ksm_stat says ksm_merge_any and ksm_mergeable.",)),
    Release("6.15", "interpolated"),
    Release("6.16", "interpolated"),
    Release("6.17", "read"),
    Release(
        "6.18",
        "live",
        {"fork_counters": "fresh"},
        (
            "A forked child's ksm_stat begins at zero (read in 6.18.2).",
            "Compared live as 6.18.44, with its fixes.",
        ),
    ),
    Release(
        "6.19",
        "read",
        {"drop_clears_merge_any": False},
        ("PR_SET_MEMORY_MERGE stays when ksmd drops the process.",),
    ),
)
"""Oldest first. A number that was read first in a later one than the last without it is early."""

FIXES: tuple[Fix, ...] = (
    Fix(
        "fork_counters",
        "a forked child's ksm_stat begins at zero",
        {"fork_counters": "fresh"},
        {(6, 12): 117, (6, 18): 0},
    ),
    Fix(
        "keeps_merge_any",
        "PR_SET_MEMORY_MERGE stays when ksmd drops the process",
        {"drop_clears_merge_any": False},
        {(6, 12): 117, (6, 18): 32},
    ),
    Fix(
        "range_walk",
        "ksmd jumps over holes; in 6.1 that makes it visit PROT_NONE pages",
        {},
        {(6, 1): 192, (6, 12): 117, (6, 18): 2, (6, 19): 0},
    ),
)
FIXES_BY_NAME: Mapping[str, Fix] = MappingProxyType({fix.name: fix for fix in FIXES})

_ALIASES = {"2011": "2.6.38"}

UNKNOWN_KERNEL = "unknown"
"""What stands for a release in a recording that was not told its kernel."""


def _behaviours() -> dict[str, Behaviour]:
    behaviours = {}
    behaviour = Behaviour()
    for release in RELEASES:
        behaviour = behaviours[release.version] = replace(behaviour, **release.changes)
    return behaviours


BEHAVIOURS: Mapping[str, Behaviour] = MappingProxyType(_behaviours())
"""Each release's whole behaviour, without fixes from later ones."""


@dataclass(frozen=True)
class Profile:
    """A kernel to model: a release with the fixes it carries.

    name: as asked for. version: its numbers. note: what was assumed, or "".
    """

    name: str
    version: Version
    release: Release
    fixes: tuple[str, ...]
    behaviour: Behaviour
    note: str = ""

    def has(self, since: str | None) -> bool:
        """Whether something that came with release `since` exists here."""
        return since is not None and parse_release(since) <= self.version


@lru_cache
def profile(name: str) -> Profile:
    """The profile called `name`: 6.11, 6.12.117, 2011, or 6.12+fork_counters.

    A release that the table doesn't have is taken as the nearest older one, and `note` says so.
    Two numbers mean a series' first release. Raises KsmtraceError (usage) for what is no release,
    one before 2.6.38, or an unknown fix. For a host's own words see `profile_of_host`.
    """
    named = re.fullmatch(r"([\d.]+)\+([a-z_]+(?:\+[a-z_]+)*)", name)
    base, wanted = (named[1], named[2].split("+")) if named else (name, [])
    version = parse_release(_ALIASES.get(base, base))
    older = [r for r in RELEASES if _series(r.version) <= _series_of(version)]
    if version == (0, 0, 0) or not older:
        raise KsmtraceError(
            f"there is no profile of kernel {name!r}",
            f"the oldest is {RELEASES[0].version} (or 2011), the newest {RELEASES[-1].version}",
            Exit.USAGE,
        )
    release = older[-1]
    version = max(version, parse_release(release.version))
    note = ""
    if _series(release.version) != _series_of(version):
        note = f"{name} is not in the table of releases; taken as {release.version}"
    unknown = [fix for fix in wanted if fix not in FIXES_BY_NAME]
    if unknown:
        raise KsmtraceError(
            f"there is no fix called {unknown[0]!r}",
            f"the fixes are {', '.join(FIXES_BY_NAME)}",
            Exit.USAGE,
        )
    carried = [
        fix.name
        for fix in FIXES
        if fix.name in wanted or version[2] >= fix.stable.get(version[:2], 1 << 30)
    ]
    behaviour = BEHAVIOURS[release.version]
    for fix in carried:
        behaviour = replace(behaviour, **FIXES_BY_NAME[fix].changes)
    if "range_walk" in carried and behaviour.prot_none == "not_visited":
        behaviour = replace(behaviour, prot_none="not_found")
    return Profile(name, version, release, tuple(carried), behaviour, note)


def _series_of(version: Version) -> Version:
    """What two releases of one series have in common; up to 2.6 that was three numbers."""
    return version if version[:2] == (2, 6) else (*version[:2], 0)


def _series(text: str) -> Version:
    return _series_of(parse_release(text))


def profile_of_host(release: str, build: str = "") -> Profile:
    """The profile of a running kernel, from what `uname -r` and `uname -v` say.

    Distributions keep their own suffixes there, and Debian the true version (6.1.0-41-amd64 is
    "Debian 6.1.192-1"). Raises KsmtraceError where it is older than the table.
    """
    return profile(version_of_host(release, build) or release)


def version_of_host(release: str, build: str = "") -> str | None:
    """The number alone, as 6.1.192, of what `uname -r` and `uname -v` say; None: there is none."""
    debian = re.search(r"Debian (\d+\.\d+\.\d+)", build)
    numbers = re.match(r"[\d.]+\d", debian[1] if debian else release)
    return numbers[0] if numbers else None


def running_profile() -> Profile:
    """The profile of this machine's kernel."""
    host = os.uname()
    return profile_of_host(host.release, host.version)


def merge_any_at_exec(release: str) -> MergeFate:
    """What becomes of PR_SET_MEMORY_MERGE when the process execs.

    6.4 (d7597f59d1d3) brought it and lost it at exec; 6.7 to 6.9 keep the flag but never put the
    new address space on ksmd's list; since 6.10 it is kept.
    """
    known = parse_release(release) >= parse_release(RELEASES[0].version)
    return profile_of_host(release).behaviour.merge_any if known else "absent"


def checksum_comes_first(release: str) -> bool:
    """Whether ksmd compares the checksum before it searches the stable tree (6.11, d58a361b0350).

    If so, a page that ksmd sees for the first time can only be on a KSM page because a fork put
    it there.
    """
    known = parse_release(release) >= parse_release(RELEASES[0].version)
    return known and profile_of_host(release).behaviour.visit_order == "checksum_first"


def fork_counts_afresh(release: str) -> bool:
    """Whether a fork adds the child's placed zero pages to the count (6.18.2, 6.12.117)."""
    known = parse_release(release) >= parse_release(RELEASES[0].version)
    return known and profile_of_host(release).behaviour.fork_counters == "fresh"
