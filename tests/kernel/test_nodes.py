from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.kernel.nodes import nodes_of, parse_zoneinfo, spans_of_nodes


def zone(node: int, name: str, start: int, spanned: int) -> str:
    return (
        f"Node {node}, zone {name:>8}\n  per-node stats\n      nr_inactive_anon 5\n"
        f"  pages free     7\n        spanned  {spanned}\n        present  3\n"
        f"  node_unreclaimable:  0\n  start_pfn:           {start}\n"
    )


def test_zones_are_read_and_empty_ones_left_out() -> None:
    text = zone(0, "DMA", 1, 4095) + zone(0, "Movable", 0, 0) + zone(1, "Normal", 8192, 100)
    assert parse_zoneinfo(text) == [(1, 4096, 0), (8192, 8292, 1)]


def test_each_frame_has_its_node() -> None:
    frames = np.array([0, 1, 4095, 4096, 8291, 8292], np.uint64)
    spans = [(1, 4096, 0), (8192, 8292, 1)]
    assert nodes_of(frames, spans).tolist() == [-1, 0, 0, -1, 1, -1]


def test_a_span_within_another_is_its_own_node() -> None:
    frames = np.array([5, 15, 25], np.uint64)
    assert nodes_of(frames, [(0, 100, 0), (10, 20, 1)]).tolist() == [0, 1, 0]


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_zoneinfo(text)


@given(st.integers(0, 300))
def test_a_text_cut_anywhere_is_read_as_far_as_it_goes(length: int) -> None:
    text = zone(0, "DMA", 1, 4095) + zone(1, "Normal", 8192, 100)
    assert len(parse_zoneinfo(text[:length])) <= 2


def test_this_hosts_frames_belong_to_nodes() -> None:
    assert spans_of_nodes()
