"""What each commit that touched KSM means for a trace: Linux 6.0 to 6.12, one entry a commit.

`releases` says how a release behaves; here stands which commits made it so, and which of the
others can be seen at all. The folio conversions of 6.8 and 6.10 are left out: long series that
change nothing. Earlier and later releases have no list here: their notes are all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ksmtrace.kernel.releases import parse_release

Status = Literal["modelled", "visible", "no effect"]
"""modelled: the reference scanner behaves differently because of it. visible: it shows in a
counter, an event or another interface. no effect: in no trace, counter or merge."""


@dataclass(frozen=True)
class Change:
    """A commit of the kernel, with the release that brought it.

    subject: its own first line. effect: what it means for a trace, one sentence.
    """

    commit: str
    release: str
    subject: str
    status: Status
    effect: str


CHANGES: tuple[Change, ...] = (
    Change(
        "3218f8712d6b",
        "6.0",
        "mm: handling Non-LRU pages returned by vm_normal_pages",
        "no effect",
        "Device memory that the CPU can map, new then, is never a candidate.",
    ),
    Change(
        "9800562f2ab4",
        "6.0",
        "mm/folio-compat: Remove migration compatibility functions",
        "no effect",
        "An inner function's name.",
    ),
    Change(
        "b4e6f66e45b4",
        "6.1",
        "ksm: use a folio in replace_page()",
        "no effect",
        "Folios inside; pages are replaced as before.",
    ),
    Change(
        "58730ab6c7ca",
        "6.1",
        "ksm: convert to use common struct mm_slot",
        "no effect",
        "ksmd's list of processes shares its type with khugepaged's; its order stays.",
    ),
    Change(
        "79b099415637",
        "6.1",
        "ksm: convert ksm_mm_slot.link to ksm_mm_slot.hash",
        "no effect",
        "A private member's name.",
    ),
    Change(
        "23f746e412b4",
        "6.1",
        "ksm: convert ksm_mm_slot.mm_list to ksm_mm_slot.mm_node",
        "no effect",
        "A private member's name.",
    ),
    Change(
        "21fbd59136e0",
        "6.1",
        "ksm: add the ksm prefix to the names of the ksm private structures",
        "no effect",
        "BPF programs say ksm_rmap_item; every kernel with tracepoints has that name.",
    ),
    Change(
        "cb4df4cae4f2",
        "6.1",
        "ksm: count allocated ksm rmap_items for each process",
        "visible",
        "/proc/PID/ksm_stat begins, with one line: ksm_rmap_items.",
    ),
    Change(
        "f7091ed64ec8",
        "6.1",
        "mm: fix the handling Non-LRU pages returned by follow_page",
        "no effect",
        "Unmerging passes over device memory, which ksmd never merges.",
    ),
    Change(
        "a5f18ba07276",
        "6.1",
        "mm/ksm: use vma iterators instead of vma linked list",
        "no effect",
        "Regions are still walked by ascending address.",
    ),
    Change(
        "088b8aa537c2",
        "6.1",
        "mm: fix PageAnonExclusive clearing racing with concurrent RCU GUP-fast",
        "no effect",
        "Closes a race of a merge with a pin taken at that moment.",
    ),
    Change(
        "507228044236",
        "6.1",
        "mm/khugepaged: record SCAN_PMD_MAPPED when scan_pmd() finds hugepage",
        "no effect",
        "khugepaged's own bookkeeping.",
    ),
    Change(
        "b970599e807",
        "6.2",
        "mm: hwpoison: support recovery from ksm_might_need_to_copy()",
        "no effect",
        "Broken memory met while copying at swap-in no longer stops the kernel.",
    ),
    Change(
        "d7c0e68dab98",
        "6.2",
        "mm/ksm: convert break_ksm() to use walk_page_range_vma()",
        "modelled",
        "Unmerging a range finds its PROT_NONE pages again; 6.1 leaves them on their KSM pages.",
    ),
    Change(
        "6cce3314b928",
        "6.2",
        "mm/ksm: fix KSM COW breaking with userfaultfd-wp via FAULT_FLAG_UNSHARE",
        "modelled",
        "Unmerging leaves a clean copy: after a fork it can merge again although it is pinned.",
    ),
    Change(
        "58f595c66591",
        "6.2",
        "mm/ksm: simplify break_ksm() to not rely on VM_FAULT_WRITE",
        "no effect",
        "Unmerging looks at the page again instead of asking the fault; it ends the same.",
    ),
    Change(
        "6a56ccbcf6c6",
        "6.2",
        "mm/autonuma: use can_change_(pte|pmd)_writable() to replace savedwrite",
        "no effect",
        "NUMA hinting keeps no write bit aside; from 6.1 to 6.4 such pages are no candidates.",
    ),
    Change(
        "1eeaa4fd39b0",
        "6.2",
        "memory: move hotplug memory notifier priority to same file for easy sorting",
        "no effect",
        "Two constants moved.",
    ),
    Change(
        "6db504ce55bd",
        "6.3",
        "mm/ksm: fix race with VMA iteration and mm_struct teardown",
        "no effect",
        "Keeps ksmd off the regions of a process that is being torn down.",
    ),
    Change(
        "f67d6b266493",
        "6.3",
        "Merge branch 'mm-hotfixes-stable' into mm-stable",
        "no effect",
        "A merge of branches.",
    ),
    Change(
        "7d4a8be0c4b2",
        "6.3",
        "mm/mmu_notifier: remove unused mmu_notifier_range_update_to_read_only export",
        "no effect",
        "An argument that nobody used.",
    ),
    Change(
        "2c281f54f556",
        "6.4",
        "mm/ksm: move disabling KSM from s390/gmap code to KSM code",
        "no effect",
        "s390 only, and only where the code stands.",
    ),
    Change(
        "24139c07f413",
        "6.4",
        "mm/ksm: unmerge and clear VM_MERGEABLE when setting PR_SET_MEMORY_MERGE=0",
        "modelled",
        "Opting a process out unmerges all its regions, also those that madvise had opted in.",
    ),
    Change(
        "d21077fbc2fc",
        "6.4",
        "mm: add new KSM process and sysfs knobs",
        "visible",
        "general_profit; ksm_merging_pages and ksm_process_profit in /proc/PID/ksm_stat.",
    ),
    Change(
        "d7597f59d1d3",
        "6.4",
        "mm: add new api to enable ksm per process",
        "modelled",
        "PR_SET_MEMORY_MERGE opts a whole process in, with its forks; it ends at exec until 6.7.",
    ),
    Change(
        "4248d0083ec5",
        "6.4",
        "mm: ksm: support hwpoison for ksm page",
        "no effect",
        "Broken memory in a KSM page is told to every process that maps it.",
    ),
    Change(
        "739100c88f49",
        "6.4",
        "mm: add tracepoints to ksm",
        "visible",
        "The tracepoints begin: scans, processes on ksmd's list, merges, removals.",
    ),
    Change(
        "49b0638502da",
        "6.5",
        "mm: enable page walking API to lock vmas during the walk",
        "no effect",
        "Unmerging takes one lock more.",
    ),
    Change(
        "f985fc322063",
        "6.5",
        "mm/swapfile: fix wrong swap entry type for hwpoisoned swapcache page",
        "no effect",
        "Only broken memory in the swap cache.",
    ),
    Change(
        "1fec6890bf22", "6.5", "mm: remove references to pagevec", "no effect", "A comment's word."
    ),
    Change(
        "c33c794828f2",
        "6.5",
        "mm: ptep_get() conversion",
        "no effect",
        "Page table entries are read by a function.",
    ),
    Change(
        "04dee9e85cf5",
        "6.5",
        "mm/various: give up if pte_offset_map[_lock]() fails",
        "no effect",
        "Only where a page table vanishes meanwhile.",
    ),
    Change(
        "26e1a0c3277d",
        "6.5",
        "mm: use pmdp_get_lockless() without surplus barrier()",
        "no effect",
        "Page table entries are read with a barrier less.",
    ),
    Change(
        "8b47933544a6",
        "6.6",
        "proc/ksm: add ksm stats to /proc/pid/smaps",
        "visible",
        "smaps and smaps_rollup say KSM:, without pages mapped to the zero page.",
    ),
    Change(
        "d256d1cd8da1",
        "6.6",
        "mm: memory-failure: use rcu lock instead of tasklist_lock when collect_procs()",
        "no effect",
        "Another lock, only for broken memory.",
    ),
    Change(
        "5994eabf3bbb",
        "6.6",
        "merge mm-hotfixes-stable into mm-stable to pick up depended-upon changes",
        "no effect",
        "A merge of branches.",
    ),
    Change(
        "b348b5fe2b5f",
        "6.6",
        "mm/ksm: add pages scanned metric",
        "modelled",
        "pages_scanned begins, counting whole batches: wrong until 6.10.",
    ),
    Change(
        "1a8e84305783",
        "6.6",
        "ksm: consider KSM-placed zeropages when calculating KSM profit",
        "visible",
        "general_profit and ksm_process_profit count the zero pages too.",
    ),
    Change(
        "6080d19f0704",
        "6.6",
        "ksm: add ksm zero pages for each process",
        "visible",
        "ksm_stat says ksm_zero_pages.",
    ),
    Change(
        "e2942062e01d",
        "6.6",
        "ksm: count all zero pages placed by KSM",
        "modelled",
        "ksm_zero_pages begins; before, pages mapped to the zero page are in no counter.",
    ),
    Change(
        "79271476b336",
        "6.6",
        "ksm: support unsharing KSM-placed zero pages",
        "modelled",
        "Unmerging also gives zero pages a copy of their own; before, they stay.",
    ),
    Change(
        "e5a689912689",
        "6.7",
        "mm/ksm: add pages_skipped metric",
        "visible",
        "pages_skipped counts the visits that smart scan spares.",
    ),
    Change(
        "b0540208a59e",
        "6.7",
        "mm/ksm: document pages_skipped sysfs knob",
        "no effect",
        "Documentation.",
    ),
    Change(
        "5e924ff54d08",
        "6.7",
        'mm/ksm: add "smart" page scanning mode',
        "modelled",
        "A page that doesn't merge is visited less often, so it may merge up to 8 scans later.",
    ),
    Change(
        "75d7dd4138ed", "6.7", "mm/ksm: document smart scan mode", "no effect", "Documentation."
    ),
    Change(
        "4e5fa4f5eff6",
        "6.8",
        "mm/ksm: add ksm advisor",
        "modelled",
        "With the advisor on, pages_to_scan changes after each full scan.",
    ),
    Change(
        "66790e9a735b",
        "6.8",
        "mm/ksm: add sysfs knobs for advisor",
        "visible",
        "The knob advisor_mode and four settings; pages_to_scan can't be set while it is on.",
    ),
    Change(
        "5088b49730af",
        "6.8",
        "mm/ksm: add tracepoint for ksm advisor",
        "visible",
        "ksm_advisor tells each decision, just before ksm_stop_scan.",
    ),
    # Not modelled: it mends lost updates of a plain counter by several CPUs at once, and the
    # reference scanner, which does one thing at a time, has none to lose.
    Change(
        "c2dc78b86e08",
        "6.10",
        "mm/ksm: fix ksm_zero_pages accounting",
        "visible",
        "ksm_zero_pages is atomic; before, simultaneous changes could be lost.",
    ),
    Change(
        "730cdc2c72c6",
        "6.10",
        "mm/ksm: fix ksm_pages_scanned accounting",
        "modelled",
        "pages_scanned counts every visit; before, whole batches plus one, or nothing.",
    ),
    Change(
        "d58a361b0350",
        "6.11",
        "mm/ksm: don't waste time searching stable tree for fast changing page",
        "modelled",
        "A new page joins a KSM page at its second visit; before, at its first.",
    ),
    Change(
        "32f51ead3d77",
        "6.12",
        "mm: remove PageSwapCache",
        "no effect",
        "Folios inside; the same question is asked.",
    ),
)
"""Oldest release first."""

WITHOUT_CHANGES = ("6.9",)
"""Releases of that range in which no commit touched KSM."""


def _by_release() -> dict[str, tuple[Change, ...]]:
    names = {change.release for change in CHANGES} | set(WITHOUT_CHANGES)
    return {
        name: tuple(change for change in CHANGES if change.release == name)
        for name in sorted(names, key=parse_release)
    }


CHANGES_BY_RELEASE: Mapping[str, tuple[Change, ...]] = MappingProxyType(_by_release())


def changes_in(release: str) -> tuple[Change, ...] | None:
    """The changes of a release like 6.11: () if there were none, None if it has no list here."""
    return CHANGES_BY_RELEASE.get(release)
