from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.capture.trace_pages import ParsedPages, TraceFormat, parse_format, parse_pages
from ksmtrace.events.batch import EVENT
from ksmtrace.events.registry import (
    INTO_EXISTING,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_START_SCAN,
    LOST,
)

PAGE_BYTES = 4096
COMMON = """\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""
SCAN_TEXT = f"""\
name: ksm_start_scan
ID: 557
format:
{COMMON}\tfield:int seq;\toffset:8;\tsize:4;\tsigned:1;
\tfield:u32 rmap_entries;\toffset:12;\tsize:4;\tsigned:0;

print fmt: "seq %d rmap size %d", REC->seq, REC->rmap_entries
"""
MERGE_TEXT = f"""\
name: ksm_merge_with_ksm_page
ID: 563
format:
{COMMON}\tfield:void * ksm_page;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned long pfn;\toffset:16;\tsize:8;\tsigned:0;
\tfield:void * rmap_item;\toffset:24;\tsize:8;\tsigned:0;
\tfield:void * mm;\toffset:32;\tsize:8;\tsigned:0;
\tfield:int err;\toffset:40;\tsize:4;\tsigned:1;
"""
ENTER_TEXT = f"""\
name: ksm_enter
ID: 569
format:
{COMMON}\tfield:void * mm;\toffset:8;\tsize:8;\tsigned:0;
"""
ADVISOR_TEXT = f"""\
name: ksm_advisor
ID: 571
format:
{COMMON}\tfield:s64 scan_time;\toffset:8;\tsize:8;\tsigned:1;
\tfield:unsigned long pages_to_scan;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned int cpu_percent;\toffset:24;\tsize:4;\tsigned:0;
"""
FORMATS = {
    known.number: known
    for known in (
        parse_format(KSM_START_SCAN, SCAN_TEXT),
        parse_format(KSM_MERGE_WITH_KSM_PAGE, MERGE_TEXT),
        parse_format(KSM_ENTER, ENTER_TEXT),
        parse_format(KSM_ADVISOR, ADVISOR_TEXT),
    )
}
TOP = 5 << 59
"""Bits of a time that an absolute time stamp doesn't carry."""


@dataclass
class Page:
    """A page as kernel/trace/ring_buffer.c fills it."""

    begin: int
    data: bytearray = field(default_factory=bytearray)
    missed: int | None = None
    missed_stored: bool = True
    now: int = 0

    def __post_init__(self) -> None:
        self.now = self.begin

    def _head(self, code: int, delta: int) -> bytes:
        assert delta < 1 << 27
        return struct.pack("<I", delta << 5 | code)

    def record(self, delta: int, body: bytes, *, long_form: bool = False) -> int:
        """A data record; returns its time."""
        body = body.ljust((len(body) + 3) & ~3, b"\0")
        if long_form or len(body) > 28 * 4:
            self.data += self._head(0, delta) + struct.pack("<I", len(body) + 4) + body
        else:
            self.data += self._head(len(body) // 4, delta) + body
        self.now += delta
        return self.now

    def discard(self, delta: int, size: int) -> None:
        """A record that was given up: its length behind the header, its time kept."""
        self.data += self._head(29, max(delta, 1)) + struct.pack("<I", size) + bytes(size - 4)
        self.now += max(delta, 1)

    def extend(self, delta: int) -> None:
        """More time than a record's 27 bits can hold."""
        self.data += self._head(30, delta & (1 << 27) - 1) + struct.pack("<I", delta >> 27)
        self.now += delta

    def stamp(self, time: int) -> None:
        """An absolute time, its low 59 bits."""
        low = time & (1 << 59) - 1
        self.data += self._head(31, low & (1 << 27) - 1) + struct.pack("<I", low >> 27)
        self.now = time

    def bytes(self) -> bytes:
        commit = len(self.data)
        data = bytes(self.data)
        if commit + 4 <= PAGE_BYTES - 16:
            data += struct.pack("<I", 29)  # the rest is padding, not counted
        if self.missed is not None:
            commit |= 1 << 31
            if self.missed_stored and len(self.data) + 8 <= PAGE_BYTES - 16:
                commit |= 1 << 30
                data = bytes(self.data) + struct.pack("<Q", self.missed)
        whole = struct.pack("<QQ", self.begin, commit) + data
        assert len(whole) <= PAGE_BYTES
        return whole.ljust(PAGE_BYTES, b"\xa5")


def scan_body(seq: int, entries: int = 0, pid: int = 7, number: int = 557) -> bytes:
    return struct.pack("<HBBiiI", number, 1, 2, pid, seq, entries)


def merge_body(page: int, pfn: int, item: int, mm: int, err: int, pid: int = 47) -> bytes:
    return struct.pack("<HBBiQQQQi", 563, 0, 0, pid, page, pfn, item, mm, err)


def parse(*pages: Page, cpu: int = 3) -> ParsedPages:
    data = np.frombuffer(b"".join(page.bytes() for page in pages), np.uint8)
    return parse_pages(data.reshape(-1, PAGE_BYTES), cpu, FORMATS)


def listed(parsed: ParsedPages, slot: str) -> list[int]:
    values: list[int] = parsed.events[slot].tolist()
    return values


def test_a_format_says_where_each_field_lies() -> None:
    known = FORMATS[563]
    assert known.kind is KSM_MERGE_WITH_KSM_PAGE
    assert known.fields["ksm_page"] == (8, 8)
    assert known.fields["err"] == (40, 4)


@pytest.mark.parametrize("text", ["", "ID: x\n", "ID: 5\n", SCAN_TEXT])
def test_a_text_that_is_no_format_of_the_kind_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="format of ksm_merge_with_ksm_page"):
        parse_format(KSM_MERGE_WITH_KSM_PAGE, text)


def test_every_field_of_a_merge_is_read() -> None:
    page = Page(begin=1009)
    page.record(5, merge_body(page=0xFFFF_0000, pfn=11, item=1 << 63 | 13, mm=17, err=-14))
    page.record(7, merge_body(page=0, pfn=19, item=23, mm=29, err=0))
    parsed = parse(page)
    assert listed(parsed, "ts") == [1014, 1021]
    assert listed(parsed, "pfn") == [11, 19]
    assert listed(parsed, "item") == [1 << 63 | 13, 23]
    assert listed(parsed, "mm") == [17, 29]
    assert listed(parsed, "err") == [-14, 0]
    assert listed(parsed, "arg") == [INTO_EXISTING, 0]
    assert listed(parsed, "cpu") == [3, 3]
    assert listed(parsed, "tgid") == listed(parsed, "addr") == [0, 0]
    assert parsed.pids.tolist() == [47, 47]


def test_an_advisors_decision_is_read() -> None:
    page = Page(begin=1)
    page.record(1, struct.pack("<HBBiqQI", 571, 0, 0, 47, 199, 5003, 61))
    parsed = parse(page)
    assert (listed(parsed, "err"), listed(parsed, "addr"), listed(parsed, "arg")) == (
        [199],
        [5003],
        [61],
    )


def test_a_negative_task_id_is_read_as_such() -> None:
    page = Page(begin=1)
    page.record(1, scan_body(3, pid=-1))
    assert parse(page).pids.tolist() == [-1]


def test_a_record_may_tell_its_length_behind_its_header() -> None:
    page = Page(begin=100)
    page.record(1, scan_body(3), long_form=True)
    page.record(2, scan_body(5))
    parsed = parse(page)
    assert listed(parsed, "addr") == [3, 5]
    assert listed(parsed, "ts") == [101, 103]


def test_a_long_record_of_somebody_else_is_stepped_over() -> None:
    page = Page(begin=100)
    page.record(1, struct.pack("<H", 4001) + bytes(1021))
    page.record(2, scan_body(5))
    assert listed(parse(page), "addr") == [5]


def test_a_discarded_record_is_left_out_and_its_time_counts() -> None:
    page = Page(begin=100)
    page.record(1, scan_body(3))
    page.discard(11, 24)
    page.record(2, scan_body(5))
    parsed = parse(page)
    assert listed(parsed, "addr") == [3, 5]
    assert listed(parsed, "ts") == [101, 114]


def test_time_goes_on_by_an_extend() -> None:
    page = Page(begin=100)
    page.record(1, scan_body(3))
    page.extend((1 << 55) + 12345)
    page.record(0, scan_body(5))
    assert listed(parse(page), "ts") == [101, 101 + (1 << 55) + 12345]


def test_an_absolute_time_keeps_the_top_bits_of_the_time_before() -> None:
    page = Page(begin=TOP | 100)
    page.record(1, scan_body(3))
    page.stamp(TOP | (1 << 58) | 999)
    page.record(7, scan_body(5))
    assert listed(parse(page), "ts") == [TOP | 101, TOP | (1 << 58) | 1006]


def test_missed_events_stand_before_the_pages_first_with_their_number() -> None:
    before, after = Page(begin=100), Page(begin=200, missed=4099)
    before.record(1, scan_body(3))
    after.record(1, scan_body(5))
    parsed = parse(before, after)
    assert listed(parsed, "kind") == [KSM_START_SCAN.id, LOST.id, KSM_START_SCAN.id]
    assert listed(parsed, "ts") == [101, 200, 201]
    assert listed(parsed, "addr") == [3, 4099, 5]
    assert listed(parsed, "cpu") == [3, 3, 3]
    assert parsed.pids.tolist() == [7, 0, 7]


def test_missed_events_without_a_number_are_at_least_one() -> None:
    page = Page(begin=200, missed=4099, missed_stored=False)
    page.record(1, scan_body(5))
    parsed = parse(page)
    assert listed(parsed, "addr") == [1, 5]


def test_a_full_page_has_no_room_for_the_number() -> None:
    page = Page(begin=200, missed=4099)
    while len(page.data) + 20 <= PAGE_BYTES - 16:
        page.record(1, scan_body(5))
    assert len(page.data) + 8 > PAGE_BYTES - 16
    parsed = parse(page)
    assert listed(parsed, "kind")[0] == LOST.id
    assert listed(parsed, "addr")[0] == 1
    assert len(parsed.events) == 1 + len(page.data) // 20


def test_no_pages_are_no_events() -> None:
    parsed = parse_pages(np.empty((0, PAGE_BYTES), np.uint8), 0, FORMATS)
    assert len(parsed.events) == len(parsed.pids) == 0
    assert parsed.events.dtype == EVENT
    assert len(parse(Page(begin=7)).events) == 0


def test_what_lies_behind_the_committed_bytes_is_not_read() -> None:
    page = Page(begin=1)
    page.record(1, scan_body(3))
    committed = len(page.data)
    page.record(1, scan_body(5))
    raw = bytearray(page.bytes())
    raw[8:12] = struct.pack("<I", committed)
    parsed = parse_pages(np.frombuffer(raw, np.uint8).reshape(1, -1), 0, FORMATS)
    assert listed(parsed, "addr") == [3]


SMALL = st.integers(0, (1 << 27) - 1)
RECORDS = st.one_of(
    st.tuples(st.just("scan"), SMALL, st.integers(0, (1 << 31) - 1)),
    st.tuples(st.just("long"), SMALL, st.integers(0, (1 << 31) - 1)),
    st.tuples(st.just("merge"), SMALL, st.integers(0, (1 << 64) - 1)),
    st.tuples(st.just("other"), SMALL, st.integers(2, 211)),
    st.tuples(st.just("discard"), SMALL, st.integers(1, 29).map(lambda n: 4 * n)),
    st.tuples(st.just("extend"), st.integers(0, (1 << 50)), st.just(0)),
    st.tuples(st.just("stamp"), st.integers(0, (1 << 40)), st.just(0)),
)
Script = tuple[int, int | None, bool, list[tuple[str, int, int]]]
PAGES = st.tuples(
    st.integers(0, 1 << 57).map(lambda begin: TOP | begin),
    st.none() | st.integers(1, 1 << 40),
    st.booleans(),
    st.lists(RECORDS, max_size=13),
)


def write(script: Script) -> tuple[Page, list[tuple[int, int, int]]]:
    """A page, and kind, time and number of what must be read from it."""
    begin, missed, stored, records = script
    page = Page(begin, missed=missed, missed_stored=stored)
    expected = []
    if missed is not None:
        expected.append((LOST.id, begin, missed if stored else 1))
    for what, delta, number in records:
        if what in ("scan", "long"):
            time = page.record(delta, scan_body(number), long_form=what == "long")
            expected.append((KSM_START_SCAN.id, time, number))
        elif what == "merge":
            time = page.record(delta, merge_body(1, number, 2, 3, -14))
            expected.append((KSM_MERGE_WITH_KSM_PAGE.id, time, number))
        elif what == "other":
            page.record(delta, struct.pack("<H", 4001) + bytes(number))
        elif what == "discard":
            page.discard(delta, number)
        elif what == "extend":
            page.extend(delta)
        else:
            page.stamp(page.now + delta)
    return page, expected


@given(st.lists(PAGES, max_size=7))
def test_whatever_an_encoder_writes_is_read_in_order(scripts: list[Script]) -> None:
    written = [write(script) for script in scripts]
    if not written:
        return
    parsed = parse(*(page for page, _ in written))
    numbers = np.where(
        parsed.events["kind"] == KSM_MERGE_WITH_KSM_PAGE.id,
        parsed.events["pfn"],
        parsed.events["addr"],
    )
    found = zip(listed(parsed, "kind"), listed(parsed, "ts"), numbers.tolist(), strict=True)
    assert list(found) == [row for _, expected in written for row in expected]


@given(st.lists(PAGES, min_size=1, max_size=7), st.integers(1, 6))
def test_pages_parsed_apart_give_the_same(scripts: list[Script], border: int) -> None:
    pages = [write(script)[0] for script in scripts]
    whole = parse(*pages)
    parts = [parse(*some) for some in (pages[:border], pages[border:]) if some]
    assert np.array_equal(np.concatenate([part.events for part in parts]), whole.events)
    assert np.array_equal(np.concatenate([part.pids for part in parts]), whole.pids)


def raw_pages(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(-1, 128)


@given(st.lists(st.binary(min_size=128, max_size=128), max_size=5))
def test_random_bytes_never_raise(pages: list[bytes]) -> None:
    parsed = parse_pages(raw_pages(b"".join(pages)), 0, FORMATS)
    assert len(parsed.events) == len(parsed.pids)


@given(
    st.lists(st.integers(0, 31) | st.integers(0, (1 << 32) - 1), max_size=28),
    st.integers(0, (1 << 32) - 1),
)
def test_random_records_never_raise(words: list[int], commit: int) -> None:
    data = struct.pack("<QII", 7, commit, 0) + struct.pack(f"<{len(words)}I", *words)
    parse_pages(raw_pages(data.ljust(128, b"\0")), 0, FORMATS)
    some = parse_pages(raw_pages((data[:8] + b"\x70\0\0\0" + data[12:]).ljust(128, b"\0")), 0, {})
    assert len(some.events) == 0


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_record_that_ends_early_is_no_error(size: int, width: int) -> None:
    wide = TraceFormat(KSM_REMOVE_KSM_PAGE, 573, {"pfn": (8 + width, 8)})
    page = Page(begin=1)
    page.record(1, struct.pack("<H", 573) + bytes(size))
    data = np.frombuffer(page.bytes(), np.uint8).reshape(1, -1)[:, :128]
    parse_pages(np.ascontiguousarray(data), 0, {573: wide})
