"""What programs do to many pages at once, compiled; `model.memory` does the same for one."""

from __future__ import annotations

from ksmtrace.model.fast.compiled import entry
from ksmtrace.model.fast.stream import mm_of
from ksmtrace.model.fast.tables import (
    EXCLUSIVE,
    I64,
    IN_SWAP_CACHE,
    KSM,
    KSM_ZERO,
    NOBODY,
    U32,
    ZERO_FRAME,
    Tables,
)


@entry
def map_fresh(t: Tables, place: int, contents: U32, frame: int, pfn: int, nid: int) -> None:
    """Map new frames, numbered from `frame` on, one after the other."""
    f = t.frame
    for at in range(len(contents)):
        t.place[place + at].frame = frame + at
        f[frame + at].content = contents[at]
        f[frame + at].mapcount = 1
        f[frame + at].node = NOBODY
        f[frame + at].pfn = pfn + at + 1
        f[frame + at].flags = EXCLUSIVE
        f[frame + at].nid = nid


@entry
def write_places(
    t: Tables,
    places: I64,
    contents: U32,
    frame: int,
    pfn: int,
    reuse: bool,
) -> tuple[int, int, int]:
    """Write whole pages, copying what is shared. reuse: a KSM page mapped once is not copied.

    Returns how many new frames there are, copies of KSM pages, and zero pages of KSM's broken.
    """
    f = t.frame
    new = broken = zeros = 0
    for at in range(len(places)):
        place = places[at]
        old = t.place[place].frame
        if old == NOBODY:
            continue
        alone = f[old].mapcount == 1 and not f[old].flags & IN_SWAP_CACHE
        if old != ZERO_FRAME and (f[old].flags & EXCLUSIVE or alone):
            if not f[old].flags & KSM:
                f[old].flags |= EXCLUSIVE
                f[old].content = contents[at]
                continue
            if reuse:
                f[old].flags = (f[old].flags & (0xFF ^ KSM)) | EXCLUSIVE
                f[old].node = NOBODY
                f[old].content = contents[at]
                continue
        if old == ZERO_FRAME:
            if t.place[place].flags & KSM_ZERO:
                t.place[place].flags &= 0xFF ^ KSM_ZERO
                t.mm[mm_of(t, place)].zero_pages -= 1
                zeros += 1
        else:
            f[old].mapcount -= 1
            broken += 1 if f[old].flags & KSM else 0
        copy = frame + new
        new += 1
        f[copy].content = contents[at]
        f[copy].mapcount = 1
        f[copy].node = NOBODY
        f[copy].pfn = pfn + new
        f[copy].flags = EXCLUSIVE
        f[copy].nid = f[old].nid
        t.place[place].frame = copy
    return new, broken, zeros
