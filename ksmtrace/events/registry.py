"""The one place where an event kind, its fields, their slots and meaning are declared.

The numpy dtype (`batch`), the C header (`c_header`), the stored schema (`recording.schema`)
and `docs/events.md` follow from what stands here.

Tracepoint facts: include/trace/events/ksm.h, added in Linux 6.4 (739100c88f49), with
ksm_advisor since 6.8 (5088b49730af).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Role = Literal["pointer", "identity", "value"]
"""How a slot's zero reads. pointer, identity: 0 means unknown. value: 0 is a number like any other.

Pointers (kernel addresses and page frame numbers) are also what a recording replaces by pseudonyms.
"""


@dataclass(frozen=True)
class Slot:
    """One member of the fixed 56-byte record."""

    name: str
    numpy: str
    c: str
    meaning: str


SLOTS: tuple[Slot, ...] = (
    Slot("ts", "<u8", "__u64", "when, in nanoseconds of CLOCK_MONOTONIC"),
    Slot("pfn", "<u8", "__u64", "page frame number"),
    Slot("item", "<u8", "__u64", "kernel address of the rmap_item"),
    Slot("mm", "<u8", "__u64", "kernel address of the mm_struct"),
    Slot("addr", "<u8", "__u64", "virtual address of the page"),
    Slot("tgid", "<u4", "__u32", "process that owns the mm"),
    Slot("err", "<i4", "__s32", "0, or a negative errno"),
    Slot("kind", "<u2", "__u16", "the event kind's id"),
    Slot("cpu", "<u2", "__u16", "CPU the event was emitted on"),
    Slot("arg", "<u4", "__u32", "flags or a small number, by kind"),
)


@dataclass(frozen=True)
class Field:
    """One field of an event kind: where it sits and what it says."""

    slot: str
    role: Role
    meaning: str


@dataclass(frozen=True)
class EventKind:
    """One kind of event.

    tracepoint: the kernel's name, None for kinds that ksmtrace itself makes. since: first kernel.
    fields: by name; a field's slot may be shared by several fields when each takes some bits.
    """

    id: int
    name: str
    since: str | None
    fields: Mapping[str, Field]
    meaning: str
    note: str = ""
    tracepoint: bool = True


def _fields(**fields: Field) -> Mapping[str, Field]:
    return MappingProxyType(fields)


_PFN = Field("pfn", "pointer", "page frame")
_ITEM = Field("item", "pointer", "the rmap_item: one per scanned (process, address)")
_MM = Field("mm", "pointer", "address space")
_ADDR = Field("addr", "identity", "virtual address of the page in that address space")
_TGID = Field("tgid", "identity", "process that owns the address space")
_ERR = Field("err", "value", "0, or -14 (EFAULT) for a try that failed")
_SEQ = Field("addr", "value", "number of the full scan, as in full_scans; 0 again after run=2")
_RMAP_ENTRIES = Field("arg", "value", "rmap_items in use")

INTO_EXISTING = 1 << 0
FIRST_SIGHT = 1 << 1
MAPCOUNT_SHIFT = 8

VIA_SELF, VIA_FORK, VIA_EXEC = 1, 2, 3

KERNEL_MODE = 1 << 0
ZERO_PAGE = 1 << 1
UNCHECKED = 1 << 2

LEFT_MUNMAP, LEFT_DISCARD, LEFT_UNMERGEABLE, LEFT_PRCTL, LEFT_MREMAP, LEFT_MAP_FIXED, LEFT_BRK = (
    range(1, 8)
)
WHOLE_ADDRESS_SPACE = 0xFFFFFFFF
"""`pages` of a range_left that names no range: everything the process has."""

KSM_ENTER = EventKind(
    id=1,
    name="ksm_enter",
    since="6.4",
    fields=_fields(
        mm=_MM,
        tgid=_TGID,
        via=Field("arg", "value", "how: 0 unknown, 1 madvise or prctl, 2 fork, 3 exec"),
        parent_tgid=Field("addr", "identity", "the forking process, where via is fork"),
    ),
    meaning="an address space was put on ksmd's list",
    note="For a fork the child has no process id yet: tgid is unknown here and known from the "
    "child's first merge on. Sources without BPF don't know via.",
)
KSM_EXIT = EventKind(
    id=2,
    name="ksm_exit",
    since="6.4",
    fields=_fields(mm=_MM, tgid=_TGID),
    meaning="the last user of a listed address space is gone",
    note="Not the pair of ksm_enter: it is missing where ksmd had already dropped the mm.",
)
KSM_START_SCAN = EventKind(
    id=3,
    name="ksm_start_scan",
    since="6.4",
    fields=_fields(seq=_SEQ, rmap_entries=_RMAP_ENTRIES),
    meaning="a full scan begins",
)
KSM_STOP_SCAN = EventKind(
    id=4,
    name="ksm_stop_scan",
    since="6.4",
    fields=_fields(seq=_SEQ, rmap_entries=_RMAP_ENTRIES),
    meaning="a full scan ended; full_scans becomes seq + 1",
)
KSM_MERGE_ONE_PAGE = EventKind(
    id=5,
    name="ksm_merge_one_page",
    since="6.4",
    fields=_fields(pfn=_PFN, rmap_item=_ITEM, mm=_MM, addr=_ADDR, tgid=_TGID, err=_ERR),
    meaning="ksmd tried to map a zero-filled page onto the zero page",
    note="Only with use_zero_pages=1. pfn is the zero page's frame, the same in every event.",
)
KSM_MERGE_WITH_KSM_PAGE = EventKind(
    id=6,
    name="ksm_merge_with_ksm_page",
    since="6.4",
    fields=_fields(
        pfn=_PFN,
        rmap_item=_ITEM,
        mm=_MM,
        addr=_ADDR,
        tgid=_TGID,
        err=_ERR,
        into_existing=Field("arg", "value", "bit 0: onto an existing KSM page"),
        first_sight=Field(
            "arg", "value", "bit 1: the rmap_item never got a checksum, so ksmd sees it first now"
        ),
        mapcount=Field("arg", "value", "bits 8 up: mappings of the KSM page just after, 0 unknown"),
    ),
    meaning="ksmd tried to map a page onto a KSM page",
    note="A new KSM page is two of these: the first, without into_existing, turns the page itself "
    "into a KSM page; the second maps its twin onto it. If the second fails the first is undone "
    "without an event. Pages shared by fork are reported like merges.",
)
KSM_REMOVE_RMAP_ITEM = EventKind(
    id=7,
    name="ksm_remove_rmap_item",
    since="6.4",
    fields=_fields(pfn=_PFN, rmap_item=_ITEM, mm=_MM, addr=_ADDR, tgid=_TGID),
    meaning="an rmap_item left a KSM page that ksmd found dead",
    note="A dead KSM page with n items gives n - 1 of these: none for the oldest. Items that leave "
    "a living KSM page give none at all.",
)
KSM_REMOVE_KSM_PAGE = EventKind(
    id=8,
    name="ksm_remove_ksm_page",
    since="6.4",
    fields=_fields(pfn=_PFN),
    meaning="ksmd found that a KSM page is dead",
    note="Found late: the page died at some moment before.",
)
KSM_ADVISOR = EventKind(
    id=9,
    name="ksm_advisor",
    since="6.8",
    fields=_fields(
        scan_time=Field("err", "value", "duration of the scan, in whole seconds"),
        pages_to_scan=Field("addr", "value", "the new pages_to_scan"),
        cpu_percent=Field("arg", "value", "ksmd's CPU during the scan, percent of one core"),
    ),
    meaning="the scan-time advisor chose a new pages_to_scan",
    note="The first after a switch of advisor_mode counts from boot and is wrong.",
)
LOST = EventKind(
    id=10,
    name="lost",
    since=None,
    fields=_fields(count=Field("addr", "value", "events lost before this moment on this CPU")),
    meaning="events were lost here, because the reader was too slow",
    note="Stands in the stream where the loss ended: after the last event that was kept on that "
    "CPU and before the next one.",
    tracepoint=False,
)

COW_BREAK = EventKind(
    id=11,
    name="cow_break",
    since=None,
    fields=_fields(
        pfn=_PFN,
        ip=Field("item", "pointer", "instruction that wrote; table code says where that is"),
        mm=_MM,
        addr=_ADDR,
        tgid=_TGID,
        kernel_mode=Field("arg", "value", "bit 0: the kernel wrote for the process, as read(2)"),
        zero_page=Field("arg", "value", "bit 1: the zero page was mapped there, by ksmd"),
        unchecked=Field(
            "arg", "value", "bit 2: whether the process may write there could not be looked up"
        ),
    ),
    meaning="a process wrote to a merged page and gets a copy of its own",
    note="Only with `record --cow`. Seen as the page fault happens. Writes that take no fault of "
    "the process (GUP, io_uring, a KVM guest's) are not seen.",
    tracepoint=False,
)
RANGE_LEFT = EventKind(
    id=12,
    name="range_left",
    since=None,
    fields=_fields(
        mm=_MM,
        addr=Field("addr", "value", "where the range starts"),
        tgid=_TGID,
        pages=Field("arg", "value", "pages in the range; 0xffffffff: the whole address space"),
        how=Field(
            "err",
            "value",
            "1 munmap, 2 madvise that discards, 3 madvise(MADV_UNMERGEABLE), "
            "4 prctl(PR_SET_MEMORY_MERGE, 0), 5 mremap, 6 mmap(MAP_FIXED) over it, 7 brk",
        ),
    ),
    meaning="a process gave up, moved or unshared a range where KSM pages may lie",
    note="Only with `record --cow`, and only of processes registered with KSM. Emitted as the "
    "system call returns with success (sys_exit): an event that comes before may be of a page that "
    "was just then given up. A heap that shrinks "
    "(brk) is seen if it was opted in or changed before under the recorder's eyes. Not seen: calls "
    "of 32-bit programs, process_madvise, and MADV_FREE, which drops nothing at once.",
    tracepoint=False,
)

KINDS: tuple[EventKind, ...] = (
    KSM_ENTER,
    KSM_EXIT,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_REMOVE_KSM_PAGE,
    KSM_ADVISOR,
    LOST,
    COW_BREAK,
    RANGE_LEFT,
)
BY_ID: Mapping[int, EventKind] = MappingProxyType({kind.id: kind for kind in KINDS})
TRACEPOINTS: tuple[EventKind, ...] = tuple(kind for kind in KINDS if kind.tracepoint)


def role_of(kind: EventKind, slot: str) -> Role | None:
    """How `kind` uses `slot`, or None if it doesn't."""
    if slot in ("ts", "kind", "cpu"):
        return "value"
    return next((f.role for f in kind.fields.values() if f.slot == slot), None)
