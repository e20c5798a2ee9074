"""Tables that grow beyond memory hold what they would in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline import growing
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.growing import GrowingTable, column
from ksmtrace.timeline.tables import TABLES

RECORDING = Path(__file__).parents[2] / "recordings" / "analysis.ksm"


@given(st.lists(st.lists(st.integers(0, 250), max_size=900), max_size=7))
def test_a_table_in_files_holds_what_was_appended(parts: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "IN_MEMORY_ROWS", 1031)
        table = GrowingTable({"number": np.uint64, "small": np.uint8})
        for part in parts:
            if part:
                table.extend(number=np.array(part, np.uint64) << np.uint64(40), small=part)
    whole = [number for part in parts for number in part]
    assert len(table) == len(whole)
    assert table["number"].tolist() == [number << 40 for number in whole]
    assert table["small"].tolist() == whole


def test_a_long_columns_copy_is_its_own() -> None:
    values = np.arange(101, dtype=np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "IN_MEMORY_ROWS", 100)
        copy = column(values)
    copy[3] = 7
    assert (values[3], copy[3], copy[100]) == (3, 7, 100)


def test_a_timeline_in_files_has_the_same_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = StoredRecording(RECORDING)
    in_memory = timeline_of(recording)
    tables = {name: getattr(in_memory, name) for name in TABLES}
    monkeypatch.setattr(growing, "IN_MEMORY_ROWS", 37)
    monkeypatch.setattr(growing, "_FIRST", 16)
    in_files = timeline_of(recording)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(getattr(in_files, name), table, obj=name)
    assert in_files.stream.lives.table.in_files
