"""The branches of the algorithm that a set of scenarios should reach: each declared once.

The scanner counts them as it runs; `make fidelity` fails if one is never reached here, unless it
is named below as unreachable in the lab, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_NODES = "it takes two NUMA nodes"


@dataclass(frozen=True)
class _About:
    meaning: str
    unreachable: str = ""


class Branch(Enum):
    """A branch: value.meaning, and value.unreachable if the lab can't get there."""

    VOLATILE = _About("checksum changed: the page waits")
    ALREADY_MERGED = _About("visit of a page that is merged already")
    UNSTABLE_INSERTED = _About("page put into the unstable tree")
    UNSTABLE_BLOCKED = _About("a page in the unstable tree has vanished and blocks the way")
    UNSTABLE_SHARED = _About("the page met itself in the unstable tree, shared by fork")
    NEW_KSM_PAGE = _About("two pages became a new KSM page")
    MERGED_INTO_EXISTING = _About("page mapped onto an existing KSM page")
    INHERITED = _About("KSM page shared by fork was attached")
    FIRST_HALF_FAILED = _About("page could not become a KSM page")
    HALF_MERGE_UNDONE = _About("the second half of a merge failed and the first was undone")
    INTO_EXISTING_FAILED = _About("page could not be mapped onto an existing KSM page")
    ORPHAN = _About("a page that lost its stable node was visited")
    ORPHAN_FAILED = _About("an orphan could not be merged")
    ZERO_MERGED = _About("page mapped to the zero page")
    ZERO_FAILED = _About("page could not be mapped to the zero page")
    ZERO_NOT_MERGEABLE = _About(
        "a zero page's region stopped being mergeable",
        "regions change between batches only, and the visit looks at the region anew",
    )
    PINNED = _About("a merge failed on somebody's reference")
    PINNED_BUT_CLEAN = _About("a pinned page merged because its PTE was clean and shared")
    SMART_SKIP = _About("smart scan skipped a page")
    SMART_SKIP_LEFT_TREE = _About("smart scan took a page out of the unstable tree")
    SMART_SKIP_LEFT_KSM_PAGE = _About("smart scan took a rewritten page off its KSM page")
    TRIMMED = _About("an rmap_item without a page was freed")
    SHARER_LEFT = _About("an rmap_item left a KSM page that lives on")
    STALE_MET_BY_ITEM = _About("a dead KSM page found through one of its items")
    STALE_MET_BY_TRIM = _About("a dead KSM page found while trimming")
    STALE_MET_BY_SEARCH = _About("a dead KSM page met by a search of the stable tree")
    STALE_MET_BY_INSERT = _About(
        "a dead KSM page met by an insertion into the stable tree",
        "the search just before takes the same way down, and finds it",
    )
    STALE_MET_IN_CHAIN = _About("a dead KSM page met in a chain")
    STALE_MET_BY_SWEEP = _About("a dead KSM page removed by run=2 or a knob's change")
    SWEEP_STOPPED = _About("run=2 or a knob's change stopped at a KSM page that is still mapped")
    SWEEP_FOUND_UNMAPPED = _About("run=2 or a knob's change met a KSM page that is only pinned")
    FULL = _About("a KSM page with max_page_sharing mappings took no more")
    OVER_LIMIT = _About("fork exceeded max_page_sharing")
    CHAIN_MADE = _About("a second KSM page of a content made a chain")
    CHAIN_GREW = _About("a chain got one more KSM page")
    CHAIN_PRUNED = _About("a whole chain was looked through for dead pages")
    CHAIN_COLLAPSED = _About("a chain with one page left became that page")
    CHAIN_ERASED = _About("a chain with no page left was erased")
    CHAIN_REORDERED = _About("a page with room moved to the front of its chain")
    BUSY = _About(
        "a search met a locked KSM page", "the lab's processes are still while ksmd works"
    )
    ENTER_BEHIND_CURSOR = _About("an mm entered in mid-scan and waits for the next")
    EXIT_AT_CURSOR = _About("the mm that ksmd was in exited")
    EXIT_REORDERED = _About("an exiting mm was moved behind the cursor")
    EXIT_AT_ONCE = _About("an exiting mm without rmap_items left at once")
    SLOT_DROPPED = _About("ksmd dropped an mm from its list")
    BATCH_ENDED = _About("a batch ended in mid-scan")
    LIST_EMPTY = _About("there was nothing to scan")
    HUGE_PAGE_SPLIT = _About("a merge split a huge page")
    HUGE_PAGE_OF_BOTH = _About("both pages of a merge were of one huge page")
    NUMA_MIGRATED = _About("a KSM page had moved to another NUMA node", _NODES)
    NUMA_SETTLED = _About("a KSM page that had moved went into the tree of its new node", _NODES)
    NUMA_JOINED = _About("a KSM page that had moved met an equal one and made a chain", _NODES)
    NUMA_LEFT_ALONE = _About("the last mapping of one that had moved met an equal one", _NODES)
    NUMA_TREE_PAGE_MOVED = _About("a search found a KSM page that had moved away", _NODES)
    NUMA_REPLACED = _About("a KSM page that had moved took the place of another such", _NODES)
    NUMA_TWIN_MOVED = _About("a page's twin in the unstable tree had moved away", _NODES)
