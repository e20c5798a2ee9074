"""Asking for what the next visits will touch: their rows lie all over memory.

A hint to the processor and nothing else; a wrong one costs time only. On hosts of hundreds of
millions of pages most of a visit's time would be spent waiting for memory.
"""

from __future__ import annotations

from ksmtrace.model.fast.compiled import compiled
from ksmtrace.model.fast.handle import prefetch, word_of
from ksmtrace.model.fast.tables import FRAME, IS_CHAIN, KNOWN, NODE, PLACE, Rules, Tables

_FRAME_AHEAD, _KNOWN_AHEAD, _NODE_AHEAD, _PAGE_AHEAD = 32, 24, 16, 8
_PLACE_AT, _FRAME_AT = word_of("place"), word_of("frame")
_KNOWN_AT, _NODE_AT = word_of("known"), word_of("node")
_PLACE_BYTES, _FRAME_BYTES = PLACE.itemsize, FRAME.itemsize
_KNOWN_BYTES, _NODE_BYTES = KNOWN.itemsize, NODE.itemsize


@compiled
def look_ahead(t: Tables, r: Rules, place: int, end: int) -> None:
    """A page's turn has come; those behind it will need these rows."""
    if place + _FRAME_AHEAD >= end or r.unstable_walks:
        return
    frame = int(t.place[place + _FRAME_AHEAD].frame)
    prefetch(t, _FRAME_AT, frame * _FRAME_BYTES)
    content = int(t.frame[t.place[place + _KNOWN_AHEAD].frame].content)
    prefetch(t, _KNOWN_AT, content * _KNOWN_BYTES)
    content = int(t.frame[t.place[place + _NODE_AHEAD].frame].content)
    node = int(t.known[0, content].stable)
    if node != 0:
        prefetch(t, _NODE_AT, node * _NODE_BYTES)
    else:
        prefetch(t, _PLACE_AT, int(t.known[0, content].unstable) * _PLACE_BYTES)
    content = int(t.frame[t.place[place + _PAGE_AHEAD].frame].content)
    node = int(t.known[0, content].stable)
    if node == 0:
        twin = int(t.known[0, content].unstable)
        prefetch(t, _FRAME_AT, int(t.place[twin].frame) * _FRAME_BYTES)
    elif not t.node[node].flags & IS_CHAIN:
        prefetch(t, _FRAME_AT, int(t.node[node].frame) * _FRAME_BYTES)
        prefetch(t, _PLACE_AT, int(t.node[node].newest) * _PLACE_BYTES)
