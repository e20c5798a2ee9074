"""What ksmd does with one page, over arrays: `model.visit`, `merging` and `smart_scan`, compiled.

Left out is what the fast engine refuses: pages that are held, locked or huge.
"""

from __future__ import annotations

import errno

from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.stable_nodes import append, detach
from ksmtrace.model.fast.stable_tree import insert, left_its_node, nid_of, search
from ksmtrace.model.fast.stream import merge_one_page, merge_with_ksm_page, mm_of
from ksmtrace.model.fast.tables import (
    CHECKSUM_FIRST,
    COMPARED,
    COW_KSM,
    EXCLUSIVE,
    FAILED,
    HASHED,
    IN_UNSTABLE,
    KSM,
    KSM_PAGES,
    KSM_ZERO,
    MERGES,
    MIGRATING,
    NEXT_FRAME,
    NEXT_PFN,
    OWN_ITEM_FIRST,
    SKIPPED,
    ZERO_ABSENT,
    ZERO_COUNTED,
    ZERO_FRAME,
    ZERO_PAGES,
    Rules,
    Tables,
)
from ksmtrace.model.fast.unstable_tree import remove, search_or_insert, vma_of

_EFAULT = -errno.EFAULT
_ALWAYS_BELOW_AGE = 3
_OLDEST = 255


@compiled
def visit(t: Tables, r: Rules, frame: int, place: int) -> None:
    """cmp_and_merge_page, in the order of the release."""
    if r.visit_order == CHECKSUM_FIRST:
        _checksum_first(t, r, frame, place)
    elif r.visit_order == OWN_ITEM_FIRST:
        _own_item_first(t, r, frame, place)
    else:
        _stable_first(t, r, frame, place)


@compiled
def _checksum_first(t: Tables, r: Rules, frame: int, place: int) -> None:
    node = _stable_node_of(t, frame)
    if node != 0:
        if _is_settled(t, r, place, node):
            return
    else:
        remove_from_trees(t, r, place)
        if _has_changed(t, frame, place):
            return
        if _went_to_the_zero_page(t, r, frame, place):
            return
    ksm_page = search(t, r, frame)
    if ksm_page == frame and node != 0 and t.place[place].head == node:
        return
    remove_from_trees(t, r, place)
    if ksm_page != 0:
        _join(t, r, frame, place, ksm_page)
        return
    _find_twin(t, r, frame, place)


@compiled
def _stable_first(t: Tables, r: Rules, frame: int, place: int) -> None:
    node = _stable_node_of(t, frame)
    if node != 0 and _is_settled(t, r, place, node):
        return
    ksm_page = search(t, r, frame)
    if ksm_page == frame and node != 0 and t.place[place].head == node:
        return
    remove_from_trees(t, r, place)
    if ksm_page != 0:
        _join(t, r, frame, place, ksm_page)
        return
    if _has_changed(t, frame, place):
        return
    if _went_to_the_zero_page(t, r, frame, place):
        return
    _find_twin(t, r, frame, place)


@compiled
def _own_item_first(t: Tables, r: Rules, frame: int, place: int) -> None:
    if t.frame[frame].flags & KSM and t.place[place].head != 0:
        return
    remove_from_trees(t, r, place)
    ksm_page = search(t, r, frame)
    if ksm_page != 0:
        _join(t, r, frame, place, ksm_page)
        return
    if _has_changed(t, frame, place):
        return
    _find_twin(t, r, frame, place)


# The steps.


@compiled
def _stable_node_of(t: Tables, frame: int) -> int:
    return int(t.frame[frame].node) if t.frame[frame].flags & KSM else 0


@compiled
def _is_settled(t: Tables, r: Rules, place: int, node: int) -> bool:
    n = t.node
    migrating = n[node].flags & MIGRATING
    if not migrating and nid_of(r, int(t.frame[n[node].frame].nid)) != n[node].nid:
        left_its_node(t, r, node)
    return t.place[place].head == node and not n[node].flags & MIGRATING


@compiled
def _has_changed(t: Tables, frame: int, place: int) -> bool:
    content = int(t.frame[frame].content)
    checksum = int(t.content[content].checksum) if len(t.content) else content + 1
    t.counts[HASHED] += 1
    if t.place[place].oldchecksum == checksum:
        return False
    t.place[place].oldchecksum = checksum
    return True


@compiled
def _went_to_the_zero_page(t: Tables, r: Rules, frame: int, place: int) -> bool:
    if not r.use_zero_pages or r.zero_pages == ZERO_ABSENT:
        return False
    if t.place[place].oldchecksum != r.zero_checksum:
        return False
    err = _EFAULT
    if not t.frame[frame].flags & KSM and t.frame[frame].content == r.zero_content:
        err = 0
        t.frame[frame].mapcount -= 1
        t.place[place].frame = ZERO_FRAME
        t.counts[COMPARED] += PAGE_SIZE
        t.counts[MERGES] += 1
        if r.zero_pages == ZERO_COUNTED:
            t.place[place].flags |= KSM_ZERO
            t.counts[ZERO_PAGES] += 1
            t.mm[mm_of(t, place)].zero_pages += 1
    merge_one_page(t, r, int(t.frame[ZERO_FRAME].pfn), place, err)
    return err == 0


@compiled
def _join(t: Tables, r: Rules, frame: int, place: int, ksm_page: int) -> None:
    if _merge(t, r, place, frame, ksm_page):
        append(t, r, place, int(t.frame[ksm_page].node))


@compiled
def _find_twin(t: Tables, r: Rules, frame: int, place: int) -> None:
    twin = search_or_insert(t, r, frame, place)
    if twin == 0:
        return
    if not _merge(t, r, place, frame, 0):
        return
    if not _merge(t, r, twin, int(t.place[twin].frame), frame):
        _break_cow(t, r, place)
        return
    node = insert(t, r, frame)
    if node == 0:
        _break_cow(t, r, twin)
        _break_cow(t, r, place)
        return
    append(t, r, twin, node)
    append(t, r, place, node)


@compiled
def _merge(t: Tables, r: Rules, place: int, page: int, onto: int) -> bool:
    """One attempt, with its event: onto another page, or (0) made a KSM page itself."""
    f = t.frame
    merged = page == onto
    if not merged and not f[page].flags & KSM:
        merged = True
        if onto == 0:
            f[page].flags = (f[page].flags | KSM) & (0xFF ^ EXCLUSIVE)
            f[page].node = 0
        else:
            f[page].mapcount -= 1
            f[onto].mapcount += 1
            t.place[place].frame = onto
            t.counts[COMPARED] += PAGE_SIZE
    if merged:
        if page != onto:
            t.counts[MERGES if onto != 0 else KSM_PAGES] += 1
        remove_from_trees(t, r, place)
    else:
        t.counts[FAILED] += 1
    merge_with_ksm_page(t, r, onto, page, place, 0 if merged else _EFAULT)
    return merged


@compiled
def _break_cow(t: Tables, r: Rules, place: int) -> None:
    """Give a place a page of its own again."""
    frame = t.place[place].frame
    vma = vma_of(t, place)
    if not r.unshare_finds_prot_none and t.vma[vma].none:
        return
    f = t.frame
    if not f[frame].flags & KSM:
        return
    t.counts[COW_KSM] += 1
    copy = t.counts[NEXT_FRAME]
    t.counts[NEXT_FRAME] += 1
    t.counts[NEXT_PFN] += 1
    f[copy].pfn = t.counts[NEXT_PFN]
    f[copy].content = f[frame].content
    f[copy].mapcount = 1
    f[copy].node = 0
    f[copy].flags = EXCLUSIVE
    f[copy].nid = t.vma[vma].nid
    f[frame].mapcount -= 1
    t.place[place].frame = copy


@compiled
def remove_from_trees(t: Tables, r: Rules, place: int) -> None:
    """Take an item out of whichever tree it is in."""
    if t.place[place].head != 0:
        detach(t, r, place)
    elif t.place[place].flags & IN_UNSTABLE:
        remove(t, r, place)


@compiled
def skips(t: Tables, place: int) -> bool:
    """Smart scan: whether this visit of a page that isn't merged is left out."""
    age = int(t.place[place].age)
    if age < _OLDEST:
        t.place[place].age = age + 1
    if age < _ALWAYS_BELOW_AGE:
        return False
    if t.place[place].remaining_skips == 0:
        if age <= 3:
            skipped = 1
        elif age <= 5:
            skipped = 2
        elif age <= 8:
            skipped = 4
        else:
            skipped = 8
        t.place[place].remaining_skips = skipped
        return False
    t.place[place].remaining_skips -= 1
    t.counts[SKIPPED] += 1
    return True
