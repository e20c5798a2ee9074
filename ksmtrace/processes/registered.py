"""Which processes are on ksmd's list, found without having seen them enter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ksmtrace.kernel.sysfs import PROC, read_ksm_stat
from ksmtrace.processes.identity import all_tgids
from ksmtrace.processes.regions import all_regions


def registered_by(values: Mapping[str, int]) -> bool | None:
    """What ksm_stat's values say; None where only smaps can tell (before 6.14, not scanned yet)."""
    if values.get("ksm_rmap_items") or values.get("ksm_merge_any") or values.get("ksm_mergeable"):
        return True
    return False if "ksm_mergeable" in values else None


def is_registered(tgid: int, proc: Path = PROC) -> bool:
    """Whether a process has opted in or has pages on ksmd's list.

    Since 6.14 ksm_stat says so. Before, one that ksmd hasn't scanned yet shows only in smaps.
    """
    values = read_ksm_stat(tgid, proc)
    if not values:
        return False
    said = registered_by(values)
    return any(region.mergeable for region in all_regions(tgid, proc)) if said is None else said


def registered_tgids(proc: Path = PROC) -> list[int]:
    """Every registered process, in order of its id."""
    return sorted(tgid for tgid in all_tgids(proc) if is_registered(tgid, proc))
