"""UKSM's hash: its steps, and what stands for the pages behind short contents."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.model.content import content_of, overwritten
from ksmtrace.model.uksm.hashing import (
    INITIAL,
    WORDS,
    Hashes,
    NameHasher,
    PageHasher,
    extend,
    lines_read,
    moved,
    permutation,
    undo,
)

ORDER = permutation(random.Random(7))
NAMES, PAGES = NameHasher(ORDER), PageHasher(ORDER)
STRENGTH = st.integers(0, 1034)


def page(seed: int) -> bytes:
    return random.Random(seed).randbytes(4096)


def test_extended_to_the_full_strength_and_back_a_hash_is_what_it_was() -> None:
    content = page(1)
    words = PAGES.words(content)
    at_64 = extend(INITIAL, words, 0, 64)
    full = extend(at_64, words, 64, 1034)
    assert at_64 == PAGES.at(content, 64)
    assert full == PAGES.at(content, 1034)
    assert undo(full, words, 1034, 64) == at_64


@given(seed=st.integers(0, 50), start=STRENGTH, end=STRENGTH)
def test_any_strength_leads_to_any_other(seed: int, start: int, end: int) -> None:
    words = PAGES.words(page(seed))
    assert moved(extend(INITIAL, words, 0, start), words, start, end) == extend(
        INITIAL, words, 0, end
    )


def test_a_step_adds_a_word_and_mixes() -> None:
    content = content_of(struct.pack("<1024I", *range(5000, 6024)))
    value = INITIAL
    for word in (ORDER[0], ORDER[1]):
        value = (value + 5000 + word) % 2**32
        value = (value + value * 256) % 2**32
        value ^= value // 4096
    assert PAGES.at(content, 2) == value


def test_beyond_1024_the_first_words_are_read_again() -> None:
    words = PAGES.words(page(3))
    assert PAGES.at(page(3), 1034) == extend(INITIAL, [*words, *words[:10]][:1024], 0, 1034)
    last_ten = INITIAL
    for word in [*words, *words[:10]]:
        last_ten = extend(last_ten, [word], 0, 1)
    assert PAGES.at(page(3), 1034) == last_ten


@pytest.mark.parametrize("hasher", [NAMES, PAGES])
@given(rank=st.integers(20, 1023), strength=st.integers(1, 1034))
def test_a_difference_counts_once_its_word_is_read(
    hasher: NameHasher | PageHasher, rank: int, strength: int
) -> None:
    name = b"same"
    word = ORDER[rank]
    if word < 2:
        # What follows the name without a zero byte is more of the name.
        return
    other = overwritten(name, word * 4, b"!")
    differs = hasher.at(name, strength) != hasher.at(other, strength)
    assert differs == (strength > rank)


@given(
    contents=st.lists(st.binary(min_size=1, max_size=12), min_size=2, max_size=20, unique=True),
    strength=st.integers(1, 1034),
)
def test_a_name_stands_for_a_page_that_differs_everywhere(
    contents: list[bytes], strength: int
) -> None:
    contents = [content for content in contents if b"\0" not in content]
    assert len({NAMES.at(content, strength) for content in contents}) == len(contents)


def test_zeros_with_a_word_in_them_look_empty_until_it_is_read() -> None:
    almost = overwritten(b"", ORDER[100] * 4, b"x")
    hashes = Hashes(NAMES, 64)
    assert hashes.at(almost) == hashes.zero
    hashes.set_strength(101)
    assert hashes.at(almost) != hashes.zero
    hashes.set_strength(1034)
    assert hashes.zero is None


@given(strength=st.integers(1, 1033))
def test_only_zeros_have_the_hash_of_zeros_once_all_is_read(strength: int) -> None:
    hashes = Hashes(PAGES, strength)
    assert hashes.zero == PAGES.at(b"", strength)
    assert hashes.full(b"") != hashes.full(b"x")


def test_how_many_cache_lines_a_hash_touches() -> None:
    lines = {strength: round(lines_read(strength)) for strength in (1, 16, 64, 256, 1024, 1034)}
    assert lines == {1: 1, 16: 14, 64: 41, 256: 63, 1024: 64, 1034: 64}


def test_the_order_reads_each_word_once() -> None:
    assert sorted(ORDER) == list(range(WORDS))
    assert permutation(random.Random(7)) == ORDER != permutation(random.Random(8))
