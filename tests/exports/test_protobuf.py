from __future__ import annotations

import struct

import numpy as np
from google.protobuf.internal import encoder
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from ksmtrace.exports.protobuf import Rows, double, message, nested, texts, varints, whole

U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
SIZES = st.one_of(U64, st.sampled_from([2 ** (7 * n) + d for n in range(1, 10) for d in (-1, 0)]))


@given(st.lists(SIZES, min_size=1, max_size=23))
def test_varints_are_googles(numbers: list[int]) -> None:
    expected: list[bytes] = []
    for number in numbers:
        encoder._VarintEncoder()(expected.append, number)
    rows = varints(np.array(numbers, np.uint64))
    assert rows.to_bytes() == b"".join(expected)
    assert rows.lengths.sum() == len(rows.to_bytes())


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), U64),
            st.one_of(st.none(), I64),
            st.one_of(st.none(), st.floats(allow_nan=False)),
            st.one_of(st.none(), st.booleans()),
            st.text(max_size=7),
        ),
        min_size=1,
        max_size=11,
    )
)
def test_messages_are_byte_for_byte_what_the_library_writes(
    values: list[tuple[int | None, int | None, float | None, bool | None, str]],
) -> None:
    library = pb.TracePacket()
    for uint, signed, real, flag, text in values:
        one = library.track_event.debug_annotations.add()
        one.string_value = text.encode(errors="replace").decode()
        two = library.track_event.debug_annotations.add()
        two.name_iid = 7
        for field, value in (
            ("bool_value", flag),
            ("uint_value", uint),
            ("int_value", signed),
            ("double_value", real),
        ):
            if value is not None:
                # Of these fields, which exclude each other, the last one written stands.
                setattr(two, field, value)
    columns = [np.array([0 if row[n] is None else row[n] for row in values], dtype) for n, dtype in
               enumerate((np.uint64, np.int64, np.float64, bool))]  # fmt: skip
    known = [np.array([row[n] is not None for row in values]) for n in range(4)]
    order = (3, 0, 1, 2)
    stands = [
        known[n] & ~np.logical_or.reduce([known[m] for m in order[at + 1 :]] or [~known[n] & False])
        for at, n in enumerate(order)
    ]
    second = message(
        whole(1, np.full(len(values), 7)),
        whole(2, columns[3], stands[0]),
        whole(3, columns[0], stands[1]),
        whole(4, columns[1], stands[2]),
        double(5, columns[2], stands[3]),
    )
    both = message(nested(4, texts(6, [row[4] for row in values])), nested(4, second))
    read = pb.TracePacket.FromString(nested(11, _one_row(both)).to_bytes())
    assert read == library
    assert nested(11, _one_row(both)).to_bytes() == library.SerializeToString(deterministic=True)


def _one_row(rows: Rows) -> Rows:
    """All rows as one: what belongs to one message."""
    data = np.frombuffer(rows.to_bytes(), np.uint8)[None, :]
    return Rows(data, np.ones(data.shape, bool))


@given(st.integers(1, 40), st.integers(0, 300))
def test_a_nested_message_of_any_length_has_its_length(rows: int, length: int) -> None:
    encoded = nested(2, texts(1, ["x" * length] * rows)).to_bytes()
    inner = b"\x0a" + encoder._VarintBytes(length) + b"x" * length
    assert encoded == (b"\x12" + encoder._VarintBytes(len(inner)) + inner) * rows


def test_doubles_are_little_endian() -> None:
    assert double(1, np.array([-1.5])).to_bytes() == b"\x09" + struct.pack("<d", -1.5)


def test_an_unpaired_surrogate_does_not_break_a_string() -> None:
    assert pb.EventName.FromString(texts(2, ["a\ud800b"]).to_bytes()).name == "a?b"
