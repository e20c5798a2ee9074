from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.vm.channel import Channel, ChannelClosed

VALUES = st.recursive(
    st.none() | st.integers() | st.binary(max_size=300) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


class Pipe:
    """Bytes that arrive in pieces, as over a serial port."""

    def __init__(self, sizes: list[int]) -> None:
        self.data = bytearray()
        self._sizes = sizes

    def write(self, data: bytes) -> None:
        self.data += data

    def read(self, most: int) -> bytes:
        size = min(self._sizes.pop(0) if self._sizes else 7, most)
        part = bytes(self.data[:size])
        del self.data[:size]
        return part


@given(st.lists(VALUES, max_size=6), st.lists(st.integers(1, 16), max_size=200))
def test_values_arrive_as_they_were_sent_whatever_the_pieces(
    values: list[Any], sizes: list[int]
) -> None:
    pipe = Pipe(sizes)
    channel = Channel(pipe.read, pipe.write)
    for value in values:
        channel.send(value)
    assert [channel.receive() for _ in values] == values
    with pytest.raises(ChannelClosed):
        channel.receive()


@given(st.integers(0, 40))
def test_a_message_that_was_cut_off_is_no_message(kept: int) -> None:
    pipe = Pipe([])
    channel = Channel(pipe.read, pipe.write)
    channel.send(list(range(1000)))
    del pipe.data[kept:]
    with pytest.raises(ChannelClosed):
        channel.receive()
