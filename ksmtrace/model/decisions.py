"""What can become of a page visit, and the rule behind it: each declared once.

A rule cites the function it stands in (mm/ksm.c, or mm/uksm.c of the patches) and the release it
came with, where that is not the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class About:
    """A rule. says: in one sentence. source: where it stands. good: it saves memory."""

    says: str
    source: str
    good: bool = False


class Rule(Enum):
    """What a scanner went by in one step of a visit; value: About."""

    ALREADY_MERGED = About(
        "A KSM page whose rmap_item is counted on it needs nothing more.", "cmp_and_merge_page"
    )
    SKIPPED = About(
        "Smart scan passes over a page that did not merge in many scans: 1, 2, 4, then 8 in a row.",
        "should_skip_rmap_item, skip_age; Linux 6.7",
    )
    FIRST_SIGHT = About(
        "A page must have the checksum that its rmap_item kept from the visit before; at first"
        " sight none was kept, so it waits.",
        "cmp_and_merge_page, calc_checksum",
    )
    CHANGED = About(
        "A page whose checksum differs from the one kept is still changing: it waits, and the new"
        " checksum is kept in the rmap_item.",
        "cmp_and_merge_page, calc_checksum",
    )
    UNCHANGED = About(
        "A page with the same checksum as at the visit before has probably not changed: it may"
        " look for a twin.",
        "cmp_and_merge_page, calc_checksum",
    )
    ZERO_PAGE = About(
        "With use_zero_pages a page full of zeroes is mapped to the kernel's zero page, not to a"
        " KSM page.",
        "cmp_and_merge_page; Linux 4.11",
        good=True,
    )
    STABLE_EQUAL = About(
        "The stable tree holds all KSM pages, in order of their bytes; an equal one is found by"
        " comparing on the way down.",
        "stable_tree_search",
    )
    STABLE_ITSELF = About(
        "A page that is a KSM page already is what is found.", "stable_tree_search"
    )
    STABLE_NONE = About(
        "Where the way down the stable tree ends, no KSM page is equal (or the equal one is full).",
        "stable_tree_search",
    )
    STABLE_BUSY = About(
        "A locked KSM page is not waited for; the next visit tries again.", "stable_tree_search"
    )
    UNSTABLE_TWIN = About(
        "The unstable tree holds unchanged pages of this scan; an equal one is the twin.",
        "unstable_tree_search_insert",
    )
    UNSTABLE_INSERTED = About(
        "Without a twin the page's own rmap_item is put where the way down ended, for others to"
        " find in this scan.",
        "unstable_tree_search_insert",
    )
    UNSTABLE_BLOCKED = About(
        "A page in the unstable tree that vanished, or is this very page, ends the search: nothing"
        " is put in.",
        "unstable_tree_search_insert",
    )
    BECAME_KSM_PAGE = About(
        "The visited page is write-protected and becomes the KSM page; its twin will be mapped"
        " onto it.",
        "try_to_merge_two_pages, stable_tree_insert",
        good=True,
    )
    MERGED = About(
        "The page's mapping is turned to the equal KSM page, and its own memory is freed.",
        "try_to_merge_with_ksm_page, replace_page",
        good=True,
    )
    FAILED = About(
        "A page that somebody else refers to, or that changed in the meantime, is left alone.",
        "try_to_merge_with_ksm_page, write_protect_page",
    )
    LEFT_KSM_PAGE = About(
        "A page that was copied on write is no KSM page any more; only this visit takes its"
        " rmap_item off, and the counters follow.",
        "remove_rmap_item_from_tree",
    )
    UKSM_ABSENT = About("A page that isn't there is counted as visited.", "UKSM, docs/uksm.md")
    UKSM_ALREADY = About("A merged page is left where it is.", "UKSM, docs/uksm.md")
    UKSM_ZERO = About(
        "A page whose sample hashes like a page of zeroes is compared with one, and mapped to the"
        " zero page.",
        "UKSM, docs/uksm.md",
        good=True,
    )
    UKSM_JOINED = About(
        "A merged page with the same sample hash was compared byte by byte, and is equal.",
        "UKSM, docs/uksm.md",
        good=True,
    )
    UKSM_TWIN = About(
        "A waiting page with the same sample hash was compared byte by byte: both become one.",
        "UKSM, docs/uksm.md",
        good=True,
    )
    UKSM_WAITS = About(
        "Nothing has this sample hash: the page waits in the unstable tree, at once and without a"
        " second look.",
        "UKSM, docs/uksm.md",
    )
    UKSM_WAITS_BESIDE = About(
        "Pages with one sample hash are told apart by the hash of the whole page. The first to wait"
        " has none on record yet, so as released UKSM does not find it (quirk: ghost).",
        "UKSM, docs/uksm.md",
    )
    UKSM_NOT_PLACED = About(
        "Something has the same sample hash but could not be merged: the page is in no tree until"
        " its next visit.",
        "UKSM, docs/uksm.md",
    )


@dataclass(frozen=True)
class Decision:
    """One step of a visit. words: what happened, with its figures.

    path: the places it was compared with, from the root down, by their keys (see `model.scene`).
    tree: whose they are, "stable" or "unstable".
    """

    rule: Rule
    words: str
    tree: str = ""
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.words
