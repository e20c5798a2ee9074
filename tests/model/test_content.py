from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.model.content import (
    CHECKSUMS,
    PAGE_SIZE,
    ZERO,
    content_of,
    jhash2_checksum,
    overwritten,
    page_of,
    xxhash_checksum,
)

COUNTING = bytes(i & 255 for i in range(PAGE_SIZE))
VECTORS = {
    "all 00": (bytes(PAGE_SIZE), 0x32D8BBDB, 0x61574272),
    "all 01": (b"\x01" * PAGE_SIZE, 0x68DA1F79, 0xA096A553),
    "all ff": (b"\xff" * PAGE_SIZE, 0x4282321F, 0x8602B83E),
    "all cf": (b"\xcf" * PAGE_SIZE, 0xCED8678F, 0x6E176054),
    "counting": (COUNTING, 0x186AF6A4, 0xFF35631B),
}
"""Page, xxhash (5.0 and later), jhash2 (before), as the specification has them (3.4)."""

# Most pages of interest are short, or differ in a few places only.
PAGES = st.one_of(
    st.binary(max_size=9).map(page_of),
    st.binary(min_size=1, max_size=5).map(lambda end: end.rjust(PAGE_SIZE, b"\0")),
    st.builds(
        lambda at, data: bytes(at) + data + bytes(PAGE_SIZE - at - len(data)),
        st.integers(0, PAGE_SIZE - 7),
        st.binary(max_size=7),
    ),
    st.binary(min_size=PAGE_SIZE, max_size=PAGE_SIZE),
)


@pytest.mark.parametrize("name", VECTORS)
def test_checksums_are_the_kernel_s(name: str) -> None:
    page, xxhash, jhash2 = VECTORS[name]
    content = content_of(page)
    assert xxhash_checksum(content) == xxhash
    assert jhash2_checksum(content) == jhash2
    assert CHECKSUMS["xxhash"](content) == xxhash
    assert CHECKSUMS["jhash2"](content) == jhash2


@given(PAGES)
def test_a_page_s_content_is_the_whole_page(page: bytes) -> None:
    content = content_of(page)
    assert page_of(content) == page
    assert not content.endswith(b"\0")
    assert content_of(content) == content


@given(PAGES, PAGES)
def test_contents_are_ordered_as_memcmp_orders_pages(one: bytes, other: bytes) -> None:
    # bytes compare unsigned, byte by byte, as memcmp of two whole pages does.
    assert (content_of(one) < content_of(other)) == (one < other)
    assert (content_of(one) == content_of(other)) == (one == other)


@given(PAGES)
def test_a_checksum_is_the_page_s_however_its_end_is_written(page: bytes) -> None:
    for checksum in CHECKSUMS.values():
        assert checksum(content_of(page)) == checksum(page) < 1 << 32


def test_the_zero_page_is_the_smallest() -> None:
    assert content_of(bytes(PAGE_SIZE)) == ZERO
    assert content_of(bytes(PAGE_SIZE - 1) + b"\x01") > ZERO


@given(PAGES, st.integers(0, PAGE_SIZE), st.binary(max_size=11))
def test_overwriting_changes_those_bytes_and_no_others(
    page: bytes, offset: int, data: bytes
) -> None:
    if offset + len(data) > PAGE_SIZE:
        with pytest.raises(ValueError, match="leaves the page"):
            overwritten(content_of(page), offset, data)
        return
    after = page_of(overwritten(content_of(page), offset, data))
    assert after == page[:offset] + data + page[offset + len(data) :]


def test_nothing_is_written_before_the_page() -> None:
    with pytest.raises(ValueError, match="leaves the page"):
        overwritten(b"a", -1, b"b")


def test_zeroes_written_at_the_end_of_a_content_make_it_shorter() -> None:
    assert overwritten(b"same1", 4, b"\0") == b"same"
    assert overwritten(b"same", 0, bytes(4)) == ZERO
