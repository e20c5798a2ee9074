from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.kernel.releases import checksum_comes_first, merge_any_at_exec, parse_release

NUMBERS = st.integers(0, 4099)


@given(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["", "-rc7", "-amd64", "+deb12-amd64", ".el9"]))
def test_the_three_numbers_are_read_whatever_follows(
    major: int, minor: int, patch: int, suffix: str
) -> None:
    assert parse_release(f"{major}.{minor}.{patch}{suffix}") == (major, minor, patch)


def test_a_release_without_a_patch_number_is_its_first() -> None:
    assert parse_release("6.11") == (6, 11, 0)
    assert parse_release("6.1-rc7") == (6, 1, 0)


@given(st.text())
def test_any_text_is_a_release_or_zeros(text: str) -> None:
    assert len(parse_release(text)) == 3


@pytest.mark.parametrize("text", ["", "linux", "v6.1", "6"])
def test_a_text_without_numbers_is_zeros(text: str) -> None:
    assert parse_release(text) == (0, 0, 0)


@pytest.mark.parametrize(
    ("release", "fate"),
    [
        ("2.6.32", "absent"),
        ("5.15.135", "absent"),
        ("6.3.8", "absent"),
        ("6.4.0", "lost"),
        ("6.6.17", "lost"),
        ("6.7.0-rc1", "unscanned"),
        ("6.9.12", "unscanned"),
        ("6.10", "kept"),
        ("6.18.2-amd64", "kept"),
        ("7.1.3", "kept"),
    ],
)
def test_what_becomes_of_merge_any_at_exec(release: str, fate: str) -> None:
    assert merge_any_at_exec(release) == fate


@pytest.mark.parametrize(
    ("release", "first"),
    [("6.9.7", False), ("6.10.0", False), ("6.11.0", True), ("6.18.2", True), ("5.15.7", False)],
)
def test_the_checksum_comes_first_since_6_11(release: str, first: bool) -> None:
    assert checksum_comes_first(release) is first
