"""Which regions ksmd may ever merge, and which flag of a region keeps it away.

From vma_ksm_compatible in mm/ksm.c (6.12) and ksm_madvise before it: MADV_MERGEABLE and
PR_SET_MEMORY_MERGE silently pass over regions with any of these flags. VM_DROPPABLE came with 6.11.
A DAX file's mapping is passed over too, and shows no flag for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ksmtrace.processes.regions import Region


@dataclass(frozen=True)
class Bar:
    """A flag that keeps a region from KSM. flag: as VmFlags writes it; vm_flag: the kernel's name.

    cause: a short stable name. remedy: what would make such memory eligible, or why nothing does.
    """

    flag: str
    vm_flag: str
    cause: str
    why: str
    remedy: str


_PRIVATE = "map it MAP_PRIVATE; QEMU: memory-backend-ram with share=off"
_DEVICE = "none: it is no ordinary memory"
_SHARED = "shared mappings are never merged"

BARS: tuple[Bar, ...] = (
    Bar(
        "ht", "VM_HUGETLB", "hugetlb", "hugetlbfs pages are never merged",
        "use transparent huge pages instead; QEMU: no hugetlb=on, no -mem-path on hugetlbfs",
    ),
    Bar("sh", "VM_SHARED", "shared", _SHARED, _PRIVATE),
    Bar("ms", "VM_MAYSHARE", "shared", _SHARED, _PRIVATE),
    Bar("pf", "VM_PFNMAP", "device", "a device's or the kernel's own pages", _DEVICE),
    Bar("io", "VM_IO", "device", "a device's registers", _DEVICE),
    Bar("de", "VM_DONTEXPAND", "special", "a special mapping of a driver or the kernel", _DEVICE),
    Bar("mm", "VM_MIXEDMAP", "device", "a device's pages among others", _DEVICE),
    Bar("dp", "VM_DROPPABLE", "droppable", "pages that the kernel may drop", "none is needed"),
)  # fmt: skip
"""In the order in which a person wants to hear of them, the most telling first."""

USERFAULTFD = ("um", "uw", "ui")
"""Flags of regions whose faults a program handles itself: touching them may wake it, or hang."""


def bar_of(region: Region) -> Bar | None:
    """What keeps a region from KSM; None if nothing does."""
    return next((bar for bar in BARS if bar.flag in region.flags), None)


def kind_of_shared(region: Region) -> str:
    """What a shared region is made of, by its name: memfd, shm, file or anonymous."""
    if region.name.startswith("/memfd:"):
        return "memfd"
    if region.name.startswith(("/dev/shm/", "/SYSV", "/dev/zero")):  # noqa: S108 a mapping's name
        return "shared memory"
    return "file" if region.name.startswith("/") else "shared anonymous"


def is_watched_by_userfaultfd(region: Region) -> bool:
    """Whether a program handles this region's faults."""
    return any(flag in region.flags for flag in USERFAULTFD)
