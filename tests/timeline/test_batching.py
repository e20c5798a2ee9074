"""Any split of a stream into batches gives the same tables, and no stream is an exception."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.events.registry import (
    COW_BREAK,
    FIRST_SIGHT,
    INTO_EXISTING,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
    MAPCOUNT_SHIFT,
    RANGE_LEFT,
    WHOLE_ADDRESS_SPACE,
    role_of,
)
from ksmtrace.kernel.releases import profile
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.random_scenarios import FAMILIES, FAMILIES_BY_NAME, random_scenario
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import Timeline, stream_of
from ksmtrace.timeline.tables import TABLES
from tests.support.batches import Row, batch_of, event, random_batch, split
from tests.support.recordings import BEGIN, host_sample, make_recording
from tests.support.recycling import recycled
from tests.support.truth import Truth
from tests.support.truth_recordings import Variant, record
from tests.support.watched_model import truth_of

SETTINGS = settings(max_examples=15, deadline=None)
PAGE = 4096

# Whoever keeps the truth does not follow KSM pages that move.
STAYING = st.sampled_from([family.name for family in FAMILIES if not family.needs])


def _assert_split_is_the_same(recording: StoredRecording, borders: Sequence[int]) -> None:
    events = concatenate(list(recording.event_batches()))
    one = Timeline(recording, stream_of(recording, [events]))
    other = Timeline(recording, stream_of(recording, split(events, borders)))
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), obj=name)


@cache
def _random(family: str, seed: int) -> Truth:
    scenario = random_scenario(FAMILIES_BY_NAME[family], seed)
    return truth_of(plan_scenario(scenario), profile("6.18.44"))


BORDERS = st.one_of(
    st.lists(st.integers(0, 400), max_size=9), st.integers(1, 400).map(lambda n: list(range(n)))
)
"""Random ones, some of them equal so that a batch is empty, or one event each."""


@SETTINGS
@given(
    family=STAYING, seed=st.integers(0, 10**6),
    borders=BORDERS, cow=st.booleans(),
)  # fmt: skip
def test_any_split_of_a_scenario_gives_the_same_tables(
    family: str, seed: int, borders: list[int], *, cow: bool, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("batching") / "a.ksm"
    recording = record(recycled(_random(family, seed)), path, Variant(cow=cow))
    _assert_split_is_the_same(recording, borders)


@SETTINGS
@given(
    family=STAYING, seed=st.integers(0, 10**6),
    chunk=st.integers(1, 60), cow=st.booleans(),
)  # fmt: skip
def test_chunks_of_any_size_give_the_same_tables(
    family: str, seed: int, chunk: int, *, cow: bool, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("batching") / "a.ksm"
    recording = record(recycled(_random(family, seed)), path, Variant(cow=cow))
    one = Timeline(recording, stream_of(recording, recording.event_batches()))
    other = Timeline(recording, stream_of(recording, recording.event_batches(), chunk=chunk))
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), obj=name)


# Streams that no kernel makes: everything about very few pages, in any order.

_FEW = st.integers(0, 3)
_ERR = st.sampled_from((0, 0, 0, 0, -14, -12))
_ARG = st.builds(
    lambda flags, mapcount: flags | mapcount << MAPCOUNT_SHIFT,
    st.sampled_from((0, 0, INTO_EXISTING, INTO_EXISTING, INTO_EXISTING | FIRST_SIGHT)),
    st.integers(0, 5),
)


_KINDS = (
    *(KSM_MERGE_WITH_KSM_PAGE,) * 9,
    *(KSM_REMOVE_RMAP_ITEM, KSM_REMOVE_KSM_PAGE, COW_BREAK) * 2,
    *(KSM_ENTER, KSM_EXIT, KSM_START_SCAN, KSM_STOP_SCAN, KSM_MERGE_ONE_PAGE, LOST, RANGE_LEFT),
)
_PAGES = st.sampled_from((1, 2, WHOLE_ADDRESS_SPACE))


@st.composite
def _any_event(draw: st.DrawFn) -> Row:
    kind, mm = draw(st.sampled_from(_KINDS)), draw(_FEW)
    counted = kind in (KSM_START_SCAN, KSM_STOP_SCAN, LOST)
    row = {
        "pfn": draw(_FEW),
        "item": draw(_FEW),
        "mm": mm,
        "addr": draw(_FEW) * (1 if counted else PAGE),
        "tgid": draw(st.sampled_from((mm, mm, 1))),
        "err": draw(st.integers(1, 7) if kind is RANGE_LEFT else _ERR),
        "arg": draw({KSM_MERGE_WITH_KSM_PAGE.id: _ARG, RANGE_LEFT.id: _PAGES}.get(kind.id, _FEW)),
    }
    used = {slot: value for slot, value in row.items() if role_of(kind, slot) is not None}
    return event(kind, **used)


@st.composite
def _any_stream(draw: st.DrawFn) -> EventBatch:
    rows = draw(st.lists(_any_event(), max_size=40))
    ts = BEGIN
    for row in rows:
        # Now and then two at once, or a clock that goes back on another CPU.
        ts += draw(st.sampled_from((100, 100, 100, 0, -150)))
        row["ts"] = ts
    return batch_of(rows)


def _sampled(path: Path, stream: EventBatch, pages_shared: int) -> StoredRecording:
    counters: Any = {"pages_shared": pages_shared, "pages_sharing": pages_shared, "full_scans": 0}
    samples = [
        host_sample(BEGIN, "start", **counters),
        host_sample(BEGIN + 1500, **counters),
        host_sample(BEGIN + 5000, "end", **counters),
    ]
    return StoredRecording(make_recording(path, [stream], tables={"counters": samples}))


@SETTINGS
@given(
    stream=_any_stream(),
    borders=BORDERS,
    before=st.sampled_from((0, 3)),
)
def test_any_split_of_a_stream_that_no_kernel_makes_gives_the_same_tables(
    stream: EventBatch, borders: list[int], before: int, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("batching") / "a.ksm"
    _assert_split_is_the_same(_sampled(path, stream, before), borders)


@SETTINGS
@given(stream=random_batch(), borders=BORDERS)
def test_any_split_of_random_numbers_gives_the_same_tables(
    stream: EventBatch, borders: list[int], tmp_path_factory: Any
) -> None:
    stream["ts"] = BEGIN + 100 * np.arange(len(stream))
    path = tmp_path_factory.mktemp("batching") / "a.ksm"
    _assert_split_is_the_same(_sampled(path, stream, 0), borders)
