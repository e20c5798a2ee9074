"""Events written as other tools print them, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from support.batches import Row, batch_of, event

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    BY_ID,
    INTO_EXISTING,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
)


def header(form: str, entries: int) -> bytes:
    """The lines before the first event. entries: how many there are."""
    return {
        "tracefs": b"# tracer: nop\n#\n"
        b"# entries-in-buffer/entries-written: %d/%d   #P:3\n#\n" % (entries, entries),
        "trace-cmd": b"cpus=3\n",
        "perf": b"# ========\n# os release : 6.12.3\n# arch : x86_64\n# ========\n#\n",
    }[form]


COMM = {KSM_ENTER.id: "a b-1 [7] x: y", KSM_EXIT.id: "<...>"}
"""Command names of ksm_enter and ksm_exit; a process chooses its own."""


def body(one: Any, *, bare: bool) -> str:
    """What stands behind an event's name. bare: pointers without 0x, as the kernel prints them."""

    def pointer(slot: str) -> str:
        return f"{one[slot]:016x}" if bare else f"0x{one[slot]:x}"

    kind = int(one["kind"])
    if kind in (KSM_ENTER.id, KSM_EXIT.id):
        return f"mm {pointer('mm')}"
    if kind in (KSM_START_SCAN.id, KSM_STOP_SCAN.id):
        # The kernel prints both with %d.
        return f"seq {np.int32(one['addr'])} rmap size {np.uint32(one['arg']).view(np.int32)}"
    if kind == KSM_ADVISOR.id:
        return f"ksm scan time {one['err']} pages_to_scan {one['addr']} cpu percent {one['arg']}"
    if kind == KSM_REMOVE_KSM_PAGE.id:
        return f"pfn {one['pfn']}"
    where = f"pfn {one['pfn']} rmap_item {pointer('item')} mm {pointer('mm')}"
    if kind == KSM_REMOVE_RMAP_ITEM.id:
        return where
    existing = kind == KSM_MERGE_ONE_PAGE.id or one["arg"] & INTO_EXISTING
    return f"{'ksm ' if existing else ''}{where} error {one['err']}"


def line_of(one: Any, form: str, digits: int) -> bytes:
    """One event's or loss's line."""
    ns, cpu = int(one["ts"]), int(one["cpu"])
    when = f"{ns // 10**9}.{ns % 10**9 // 10 ** (9 - digits):0{digits}d}"
    comm = COMM.get(int(one["kind"]), "ksmd")
    if one["kind"] == LOST.id:
        count = int(one["addr"])
        return {
            "tracefs": f"CPU:{cpu} [LOST {count} EVENTS]\n",
            "trace-cmd": f"CPU:{cpu} [{count} EVENTS DROPPED]\n",
            "perf": f"{comm:>16} {45:5d} [{cpu:03d}] {when}: PERF_RECORD_LOST lost {count}\n",
        }[form].encode()
    name, told = BY_ID[int(one["kind"])].name, body(one, bare=form == "tracefs")
    return {
        "tracefs": f"{comm:>16}-{45:<7d} [{cpu:03d}] ..... {when:>12}: {name}: {told}\n",
        "trace-cmd": f"{comm:>16}-{45:<5d} [{cpu:03d}] {when:>12}: {name + ':':<21} {told}\n",
        "perf": f"{comm:>16} {45:5d} [{cpu:03d}] {when}: {'ksm:' + name:>26}: {told}\n",
    }[form].encode()


def lines_of(batch: EventBatch, form: str, digits: int = 9) -> list[bytes]:
    """A batch's lines, without a header. digits: behind the point of a time."""
    return [line_of(one, form, digits) for one in batch]


def text_of(batch: EventBatch, form: str, digits: int = 9) -> bytes:
    """A batch as a whole text."""
    entries = int((batch["kind"] != LOST.id).sum())
    return header(form, entries) + b"".join(lines_of(batch, form, digits))


def with_times_of_losses(batch: EventBatch) -> EventBatch:
    """The batch, each loss with the time of the next event, or else of the last one."""
    batch = batch.copy()
    events = np.flatnonzero(batch["kind"] != LOST.id)
    for row in np.flatnonzero(batch["kind"] == LOST.id).tolist():
        later = events[events > row]
        if len(later):
            batch["ts"][row] = batch["ts"][later[0]]
        else:
            batch["ts"][row] = batch["ts"][events[-1]] if len(events) else 0
    return batch


_TIMES = st.integers(0, 10**9 - 1).map(lambda us: 1000 * us) | st.integers(0, 10**18 - 1)
_POINTERS = st.integers(1, (1 << 64) - 1)
_PFNS = st.integers(0, 1 << 52)
_CPUS = st.integers(0, 8191)
_U31 = st.integers(0, (1 << 31) - 1)
_U32 = st.integers(0, (1 << 32) - 1)
_ERRORS = st.sampled_from([0, -14])


_SLOTS: dict[int, dict[str, st.SearchStrategy[int]]] = {
    KSM_ENTER.id: {"mm": _POINTERS},
    KSM_EXIT.id: {"mm": _POINTERS},
    KSM_START_SCAN.id: {"addr": _U31, "arg": _U32},
    KSM_STOP_SCAN.id: {"addr": _U31, "arg": _U32},
    KSM_MERGE_ONE_PAGE.id: {"pfn": _PFNS, "item": _POINTERS, "mm": _POINTERS, "err": _ERRORS},
    KSM_MERGE_WITH_KSM_PAGE.id: {
        "pfn": _PFNS,
        "item": _POINTERS,
        "mm": _POINTERS,
        "err": _ERRORS,
        "arg": st.sampled_from([0, INTO_EXISTING]),
    },
    KSM_REMOVE_RMAP_ITEM.id: {"pfn": _PFNS, "item": _POINTERS, "mm": _POINTERS},
    KSM_REMOVE_KSM_PAGE.id: {"pfn": _PFNS},
    KSM_ADVISOR.id: {"err": st.integers(0, 10**9), "addr": _U32, "arg": _U32},
    LOST.id: {"addr": st.integers(1, 10**6)},
}
"""What a kernel can print, by kind."""


@st.composite
def _event(draw: st.DrawFn) -> Row:
    kind = BY_ID[draw(st.sampled_from(sorted(_SLOTS)))]
    told = {slot: draw(values) for slot, values in _SLOTS[kind.id].items()}
    return event(kind, draw(_TIMES), cpu=draw(_CPUS), **told)


def printable_events(most: int = 17) -> st.SearchStrategy[EventBatch]:
    """Events that a kernel without BPF can tell, with losses among them."""
    rows: st.SearchStrategy[Sequence[Row]] = st.lists(_event(), max_size=most)
    return rows.map(batch_of)
