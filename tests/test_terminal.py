"""Keys that a terminal sends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.terminal import keys_of


def test_arrows_and_letters_are_told_apart_even_in_one_piece() -> None:
    assert keys_of(b"s\x1b[C\x1bOD.\x1b[4~q") == ["s", "right", "left", ".", "end", "q"]


def test_a_lone_escape_is_a_key_and_an_unknown_sequence_is_none() -> None:
    assert keys_of(b"\x1b") == ["escape"]
    assert keys_of(b"\x1b[200~\x1b[1;5Cq") == ["q"]


def test_keys_without_a_sign_have_names() -> None:
    assert keys_of(b"\r\x7f \x1b[5~\x08\n") == [
        "enter", "backspace", " ", "page up", "backspace", "enter",
    ]  # fmt: skip


@given(st.binary())
def test_every_key_has_a_name(data: bytes) -> None:
    assert all(keys_of(data))
