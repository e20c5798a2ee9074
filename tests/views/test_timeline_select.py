from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.views.timeline_select import (
    ksm_page_numbered,
    one_process,
    page_named,
    parse_address,
    regions_named,
    scan_numbered,
    split_page,
)
from tests.support.timeline_frames import frames, run_of_frames

PROCESSES = [
    {"process": 0, "tgid": 1234, "comm": "python3", "merges": 7},
    {"process": 1, "tgid": 1235, "comm": "python3", "merges": 11},
    {"process": 2, "tgid": 1234, "comm": "sh", "merges": 3},
    {"process": 3, "tgid": 0, "comm": None, "vm": "guest-7"},
    {"process": 4, "tgid": 77, "comm": "77"},
]
PAGES = [
    {"process": 0, "tgid": 1234, "addr": 0x7000_0000_3000},
    {"process": 2, "tgid": 1234, "addr": 0x7000_0000_3000},
    {"process": 1, "tgid": 1235, "addr": 0xFFFF_F000},
    {"process": 0, "tgid": 1234, "addr": 0x7000_0000_3000},
]
REGIONS = [
    {"process": 0, "tgid": 1234, "start": 0x1000, "end": 0x3000, "name": "[heap]"},
    {"process": 1, "tgid": 1235, "start": 0x1000, "end": 0x3000, "name": "[heap]"},
    {"process": 1, "tgid": 1235, "start": 0x5000, "end": 0x6000, "name": "[anon:guest ram]"},
]
TABLES = frames(processes=PROCESSES, pages=PAGES, region_ledger=REGIONS)
RUN = run_of_frames(TABLES)


@pytest.mark.parametrize("text", ["7f2a10000fff", "0x7f2a10000fff", "0X7F2A10000FFF"])
def test_an_address_is_hexadecimal_with_or_without_0x(text: str) -> None:
    assert parse_address(text) == 0x7F2A_1000_0FFF


@given(st.integers(0, (1 << 64) - 1))
def test_any_address_is_read_as_it_is_written(address: int) -> None:
    assert parse_address(f"{address:x}") == parse_address(f"{address:#x}") == address


def refusal(name: Callable[[str], object], text: str) -> KsmtraceError | None:
    """What a text that names nothing is answered with."""
    try:
        name(text)
    except KsmtraceError as error:
        return error
    return None


@given(st.text())
def test_no_text_crashes_the_parsers(text: str) -> None:
    for name in (parse_address, split_page, partial(one_process, TABLES.processes)):
        error = refusal(name, text)
        assert error is None or (error.hint and error.exit_code in (Exit.USAGE, Exit.FAILED))


@pytest.mark.parametrize("text", ["", ":", "1234", ":7000", "1234:", "1234:xyz", "1:" + "f" * 17])
def test_what_is_no_page_is_a_usage_error(text: str) -> None:
    with pytest.raises(KsmtraceError) as caught:
        split_page(text)
    assert caught.value.exit_code == Exit.USAGE


def test_a_process_is_named_by_pid_name_vm_or_row() -> None:
    assert one_process(TABLES.processes, "1235") == 1
    assert one_process(TABLES.processes, "sh") == 2
    assert one_process(TABLES.processes, "guest-7") == 3
    assert one_process(TABLES.processes, "@2") == 2
    assert one_process(TABLES.processes, "77") == 4


@pytest.mark.parametrize("text", ["python3", "1234"])
def test_a_name_that_fits_several_is_refused_with_the_candidates(text: str) -> None:
    with pytest.raises(KsmtraceError) as caught:
        one_process(TABLES.processes, text)
    assert caught.value.exit_code == Exit.USAGE
    other = "python3 1235 (@1)" if text == "python3" else "sh 1234 (@2)"
    assert "python3 1234 (@0)" in caught.value.message
    assert other in caught.value.message
    assert "@0" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["4711", "nobody", "@5", "0"])
def test_a_process_that_is_not_there_is_told_with_those_that_are(text: str) -> None:
    with pytest.raises(KsmtraceError) as caught:
        one_process(TABLES.processes, text)
    assert caught.value.exit_code == Exit.FAILED
    assert str(caught.value.hint).startswith("there are: python3 1235 (@1), python3 1234 (@0)")


def test_of_many_candidates_only_some_are_listed() -> None:
    many = [{"process": n, "tgid": n + 1, "comm": "x"} for n in range(5003)]
    with pytest.raises(KsmtraceError) as caught:
        one_process(frames(processes=many).processes, "x")
    assert "5,003 processes" in caught.value.message
    assert "and 4,996 more" in caught.value.message


def test_all_lives_of_a_page_are_found_wherever_in_it_the_address_lies() -> None:
    for address in ("700000003000", "0x700000003fff"):
        rows, page = page_named(RUN, f"1234:{address}")
        assert rows.tolist() == [0, 1, 3]
        assert page == 0x7000_0000_3000
    rows, _ = page_named(RUN, "sh:700000003000")
    assert rows.tolist() == [1]


def test_a_page_that_was_never_merged_is_told_with_the_nearest() -> None:
    with pytest.raises(KsmtraceError) as caught:
        page_named(RUN, "1235:0")
    assert caught.value.exit_code == Exit.FAILED
    assert "0xfffff000" in str(caught.value.hint)


def test_a_recording_without_addresses_says_so() -> None:
    blind = run_of_frames(TABLES, {"fields_unknown": ["addr"]})
    with pytest.raises(KsmtraceError, match="knows no addresses"):
        page_named(blind, "1234:700000003000")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", [0, 1, 2]),
        ("[heap]", [0, 1]),
        ("guest", [2]),
        ("1235:2fff", [1]),
        ("sh:1000", []),
        ("@2", [2]),
        ("@3", []),
        ("[stack]", []),
    ],
)
def test_a_region_is_named_by_name_place_or_row(text: str, rows: list[int]) -> None:
    if rows:
        assert regions_named(TABLES.region_ledger, TABLES.processes, text).tolist() == rows
        return
    with pytest.raises(KsmtraceError, match="no region") as caught:
        regions_named(TABLES.region_ledger, TABLES.processes, text)
    assert caught.value.exit_code == Exit.FAILED
    assert "[heap], [anon:guest ram]" in str(caught.value.hint)


def test_numbers_that_name_nothing_are_told_with_those_that_do() -> None:
    tables = frames(scans=[{"scan": 0}, {"scan": 1}], stable_pages=[{"end": "alive"}] * 3)
    assert scan_numbered(tables.scans, 1) == 1
    assert ksm_page_numbered(tables.stable_pages, 2) == 2
    for number in (-1, 3):
        with pytest.raises(KsmtraceError) as caught:
            ksm_page_numbered(tables.stable_pages, number)
        assert "0 to 2" in str(caught.value.hint)
    with pytest.raises(KsmtraceError) as caught:
        scan_numbered(tables.scans, 2)
    assert "0 to 1" in str(caught.value.hint)
    with pytest.raises(KsmtraceError, match="no scan 0"):
        scan_numbered(frames().scans, 0)
