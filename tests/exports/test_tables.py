from __future__ import annotations

import io
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from support.recordings import make_recording

from ksmtrace.exports.gather import DERIVED, STORED, table_of
from ksmtrace.exports.tables import frame_batches, write_csv, write_parquet
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import Timeline, timeline_of
from ksmtrace.timeline.tables import TABLES, frame

DEMO = Path(__file__).parents[2] / "recordings/demo.ksm"


@pytest.fixture(scope="module")
def demo() -> Timeline:
    return timeline_of(StoredRecording(DEMO))


@pytest.mark.parametrize("name", DERIVED)
def test_parquet_gives_pandas_the_same_table_back(
    busy: Timeline, demo: Timeline, name: str, tmp_path: Path
) -> None:
    for timeline in (busy, demo):
        with (tmp_path / "a.parquet").open("wb") as sink:
            write_parquet(*frame_batches(getattr(timeline, name)), sink)
        assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), getattr(timeline, name))


@pytest.mark.parametrize("name", DERIVED)
def test_csv_gives_pandas_the_same_values_back(
    busy: Timeline, demo: Timeline, name: str, tmp_path: Path
) -> None:
    for timeline in (busy, demo):
        table = getattr(timeline, name)
        with (tmp_path / "a.csv").open("wb") as sink:
            write_csv(*frame_batches(table), sink)
        types = {c: "str" if str(t) in ("category", "string", "str") else t
                 for c, t in table.dtypes.items()}  # fmt: skip
        read = pd.read_csv(tmp_path / "a.csv", dtype=types)
        assert list(read) == [column.name for column in TABLES[name].columns]
        for column in table:
            expected = table[column].astype(object).where(table[column].notna(), None)
            got = read[column].astype(object).where(read[column].notna(), None)
            assert list(got) == list(expected), column


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_duckdb_counts_and_sums_the_same(busy: Timeline, tmp_path: Path, suffix: str) -> None:
    write = {"csv": write_csv, "parquet": write_parquet}[suffix]
    path = tmp_path / f"pages.{suffix}"
    with path.open("wb") as sink:
        write(*frame_batches(busy.pages), sink)
    told = duckdb.sql(
        f"select count(*), sum(ksm_page), count(ended_before_ns), max(addr),"
        f" count(*) filter (\"end\" = 'cow_break'), count(*) filter (proven) from '{path}'"
    ).fetchall()
    pages = busy.pages
    assert told == [
        (len(pages), pages["ksm_page"].sum(), pages["ended_before_ns"].count(),
         pages["addr"].max(), (pages["end"] == "cow_break").sum(), pages["proven"].sum())
    ]  # fmt: skip


def test_stored_tables_come_as_they_are_stored(busy: Timeline, busy_path: Path) -> None:
    stored = StoredRecording(busy_path)
    for name in STORED:
        raw = io.BytesIO()
        write_parquet(*table_of(stored, None, name), raw)
        again = pd.read_parquet(io.BytesIO(raw.getvalue()))
        assert_frame_equal(again, stored.table(name).to_pandas())
        write_csv(*table_of(stored, None, name), io.BytesIO())


def test_an_empty_recording_has_every_table_with_its_columns(tmp_path: Path) -> None:
    stored = StoredRecording(make_recording(tmp_path / "a.ksm"))
    timeline = timeline_of(stored)
    for name in DERIVED + STORED:
        raw = io.BytesIO()
        write_csv(*table_of(stored, timeline, name), raw)
        head = raw.getvalue().decode().splitlines()[0].replace('"', "").split(",")
        if name in DERIVED:
            assert head == [column.name for column in TABLES[name].columns]
        else:
            assert head == stored.table(name).schema.names


TEXT = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=7))


@given(
    st.lists(st.tuples(TEXT, st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))), max_size=7)
)
def test_any_text_survives_csv(rows: list[tuple[str | None, int | None]]) -> None:
    table = pa.table(
        {"text": pa.array([r[0] for r in rows], pa.string()),
         "number": pa.array([r[1] for r in rows], pa.int64())}
    )  # fmt: skip
    raw = io.BytesIO()
    write_csv(table.schema, table.to_batches(), raw)
    again = pa.csv.read_csv(
        io.BytesIO(raw.getvalue()),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types={"text": pa.string(), "number": pa.int64()}, null_values=[""],
            strings_can_be_null=True, quoted_strings_can_be_null=False,
        ),
    )  # fmt: skip
    assert again.to_pydict() == table.to_pydict()


def test_what_is_not_known_is_empty_and_false_is_false() -> None:
    rows = frame("breaks", [
        {"ts_ns": 1, "scan": 2, "process": None, "tgid": 3, "addr": 4, "page": None,
         "kernel_mode": False, "zero_page": True, "file": None, "offset": None, "symbol": ""},
    ])  # fmt: skip
    raw = io.BytesIO()
    write_csv(*frame_batches(rows), raw)
    assert raw.getvalue().decode().splitlines()[1] == '1,2,,3,4,,false,true,,,""'
    assert np.isnan(pd.read_csv(io.BytesIO(raw.getvalue()))["process"][0])
