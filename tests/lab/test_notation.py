from __future__ import annotations

import pytest
from hypothesis import given
from support.batches import (
    Row,
    batch_of,
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    random_batch,
    scan_starts,
    scan_stops,
)

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    COW_BREAK,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    RANGE_LEFT,
    EventKind,
)
from ksmtrace.lab.notation import Teller, without_scans

EFAULT = -14
NAMES = {1: "a", 2: "b"}


def told(*rows: Row) -> list[str]:
    return teller().tell(batch_of(rows))


def teller() -> Teller:
    return Teller(lambda mm, _tgid: NAMES.get(mm, "?"), lambda process, page: f"{process}[{page}]")


def about(kind: EventKind, page: int, mm: int = 1, **slots: int) -> Row:
    return event(kind, mm=mm, addr=page, **slots)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (scan_starts(7, 1, items=11), "START 7"),
        (scan_stops(7, 1, items=11), "STOP 7"),
        (event(KSM_ENTER, mm=1), "ENTER a"),
        (event(KSM_EXIT, mm=2), "EXIT b"),
        (makes_ksm_page(5, mm=1, addr=3), "NEW a[3]"),
        (makes_ksm_page(5, mm=1, addr=3, err=EFAULT), "NEW! a[3]"),
        (joins_ksm_page(5, mm=1, addr=3), "ADD a[3] to a page from before"),
        (joins_ksm_page(5, mm=1, addr=3, err=EFAULT), "ADD! a[3] to a page from before"),
        (about(KSM_MERGE_ONE_PAGE, 3), "ZERO a[3]"),
        (about(KSM_MERGE_ONE_PAGE, 3, err=EFAULT), "ZERO! a[3]"),
        (about(KSM_REMOVE_RMAP_ITEM, 3, mm=2), "DROP b[3]"),
        (about(COW_BREAK, 3, mm=2), "BREAK b[3]"),
        (event(RANGE_LEFT, mm=2, addr=0x3000, arg=5), "LEFT b 0x3000"),
        (event(KSM_REMOVE_KSM_PAGE, pfn=5), "GONE a page from before"),
        (event(KSM_ADVISOR, err=2, addr=5000, arg=1), "ADVISE 5000"),
        (loses(13), "LOST 13"),
    ],
)
def test_each_kind_has_its_line(row: Row, line: str) -> None:
    assert told(row) == [line]


def test_a_ksm_page_is_called_after_the_page_that_it_was() -> None:
    lines = told(
        makes_ksm_page(5, mm=1, addr=3),
        joins_ksm_page(5, mm=2, addr=0),
        event(KSM_REMOVE_KSM_PAGE, pfn=5),
    )
    assert lines == ["NEW a[3]", "ADD b[0] to a[3]", "GONE a[3]"]


def test_a_frame_that_becomes_a_ksm_page_again_is_called_anew() -> None:
    lines = told(
        makes_ksm_page(5, mm=1, addr=3),
        makes_ksm_page(5, mm=2, addr=1),
        joins_ksm_page(5, mm=1, addr=0),
    )
    assert lines[-1] == "ADD a[0] to b[1]"


def test_a_failed_try_gives_no_name() -> None:
    lines = told(
        makes_ksm_page(5, mm=1, addr=3),
        makes_ksm_page(5, mm=2, addr=1, err=EFAULT),
        joins_ksm_page(5, mm=1, addr=0),
    )
    assert lines[-1] == "ADD a[0] to a[3]"


def test_names_last_from_one_batch_to_the_next() -> None:
    one = teller()
    one.tell(batch_of([makes_ksm_page(5, mm=1, addr=3)]))
    assert one.tell(batch_of([event(KSM_REMOVE_KSM_PAGE, pfn=5)])) == ["GONE a[3]"]


def test_a_process_is_asked_for_by_mm_and_owner() -> None:
    asked = []

    def process_of(mm: int, tgid: int) -> str:
        asked.append((mm, tgid))
        return "a"

    Teller(process_of, lambda _process, page: str(page)).tell(
        batch_of([event(KSM_ENTER, mm=17, tgid=0), about(KSM_MERGE_ONE_PAGE, 3, mm=19, tgid=7)])
    )
    assert asked == [(17, 0), (19, 7)]


def test_scans_can_be_left_out() -> None:
    lines = ("START 0", "NEW a[0]", "STOP 0", "ADVISE 5", "START 1", "ENTER start")
    assert without_scans(lines) == ["NEW a[0]", "ADVISE 5", "ENTER start"]


@given(random_batch())
def test_any_event_has_a_line(batch: EventBatch) -> None:
    lines = teller().tell(batch)
    assert len(lines) == len(batch)
    assert all(line and "\n" not in line for line in lines)
