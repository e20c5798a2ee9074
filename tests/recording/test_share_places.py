from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.recording.share_places import Places

TGIDS = st.integers(0, 31)
ADDRESSES = st.one_of(st.just(0), st.integers(1, (1 << 56) - 1))


@given(
    st.lists(st.tuples(TGIDS, ADDRESSES), min_size=1, max_size=23),
    st.lists(st.tuples(TGIDS, TGIDS), max_size=11),
    st.integers(1, 5),
)
def test_order_and_distances_stay_within_a_family(
    seen: list[tuple[int, int]], forks: list[tuple[int, int]], pieces: int
) -> None:
    places = Places()
    tgids, addresses = (
        np.array([s[0] for s in seen], np.uint32),
        np.array([s[1] for s in seen], np.uint64),
    )
    for part in np.array_split(np.arange(len(seen)), pieces):
        places.see(tgids[part], addresses[part])
    if forks:
        pairs = np.array(forks, np.uint64)
        places.fork(pairs[:, 0], pairs[:, 1])
    moved = places.addresses(addresses, tgids)
    assert ((moved == 0) == (addresses == 0)).all()
    shift = {}
    for tgid, old, new in zip(tgids.tolist(), addresses.tolist(), moved.tolist(), strict=True):
        if old:
            assert (new - old) % (2 << 20) == 0
            assert new >= 256 << 20
            assert shift.setdefault(tgid, new - old) == new - old
    for parent, child in forks:
        if parent and child and parent in shift and child in shift:
            assert shift[parent] == shift[child]
    everyone = np.unique([*tgids.tolist(), *(t for pair in forks for t in pair)]).astype(np.uint32)
    renamed = places.tgids(everyone)
    assert renamed.dtype == np.uint32
    assert (np.diff(renamed.astype(np.int64)) > 0).all()
    assert (renamed[everyone == 0] == 0).all()
    assert (renamed[everyone != 0] > 1000).all()


def test_the_lowest_address_of_a_family_has_a_fixed_place() -> None:
    places = Places()
    places.see(
        np.array([7, 9], np.uint32), np.array([0x7F00_0000_1000, 0x5500_0020_3000], np.uint64)
    )
    places.fork(np.array([7]), np.array([9]))
    told = places.addresses(np.array([0x5500_0020_3000], np.uint64), np.array([9], np.uint32))
    assert told.tolist() == [(256 << 20) + 0x3000]
