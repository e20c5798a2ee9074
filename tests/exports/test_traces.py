"""What is in a trace, as readers that are not ours find it: json, and Perfetto's own library."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb
from support.batches import batch_of
from support.exported import (
    CHILD,
    DB,
    FILE,
    GUEST,
    HEAP,
    MILLION,
    PAGE,
    Shown,
    read_chrome,
    read_perfetto,
    written,
)
from support.recordings import BEGIN, make_recording

from ksmtrace.exports.chrome import write_chrome
from ksmtrace.exports.gather import _run, trace
from ksmtrace.exports.perfetto import write_perfetto
from ksmtrace.exports.trace import Arg, Points, Process, Trace, Track
from ksmtrace.exports.tracks import TABLES, Run, trace_of
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import Timeline, timeline_of
from ksmtrace.timeline.tables import END, HOW, DerivedColumn, frame
from ksmtrace.timeline.tables import TABLES as DERIVED

DEMO = Path(__file__).parents[2] / "recordings/demo.ksm"
READERS = {"chrome": (write_chrome, read_chrome), "perfetto": (write_perfetto, read_perfetto)}


@pytest.fixture(params=READERS)
def reread(request: pytest.FixtureRequest) -> Callable[[Trace], list[Shown]]:
    """Write a trace in a format and read it back with somebody else's library."""
    write, read = READERS[request.param]
    return lambda made: read(written(made, write))


def on(shown: list[Shown], track: str, tgid: int | None = None) -> list[Shown]:
    """The points of the tracks of a name, in the file's order."""
    return [
        s for s in shown if s.track == track and (tgid is None or s.process.endswith(str(tgid)))
    ]


def test_scans_are_slices_that_say_what_they_did(
    busy: Timeline, reread: Callable[[Trace], list[Shown]]
) -> None:
    scans = on(reread(trace(busy)), "scans")
    assert [(s.kind, s.name, s.ts, s.duration) for s in scans] == [
        ("slice", "scan 1", 5 * MILLION, 45 * MILLION),
        ("slice", "scan 2", 60 * MILLION, 40 * MILLION),
        ("slice", "scan 3", 120 * MILLION, 40 * MILLION),
        # It was under way when the recording ended, 200 ms after its start.
        ("slice", "scan 4", 180 * MILLION, 20 * MILLION),
    ]
    second = scans[1].args
    assert (second["seq"], second["merges"], second["ksm_pages_new"]) == (8, 33, 11)
    assert (second["saved_bytes"], second["items_before"]) == (23 * PAGE, 60)
    assert [s.args.get("not_ended") for s in scans] == [None, None, None, True]
    assert scans[2].args["breaks"] == 3
    assert "items_after" not in scans[3].args, "what is not known is left out"


def test_merges_are_instants_of_their_process(
    busy: Timeline, reread: Callable[[Trace], list[Shown]]
) -> None:
    shown = reread(trace(busy))
    for tgid, start, later, how, region in (
        (DB, HEAP, 0, "created", "[heap]"),
        (GUEST, FILE, 11, "partner", "/home/sekrit/heap file.bin"),
        (CHILD, HEAP, 13, "joined", "[heap]"),
    ):
        merges = on(shown, "merges", tgid)
        assert [(s.kind, s.ts, s.name, s.args["addr"]) for s in merges] == [
            ("instant", (61 + n) * MILLION + later, how, start + n * PAGE) for n in range(11)
        ]
        assert {s.args["region"] for s in merges} == {region}
        assert [s.args["ksm_page"] for s in merges] == list(range(11))


def test_breaks_say_which_code_wrote(
    busy: Timeline, reread: Callable[[Trace], list[Shown]]
) -> None:
    breaks = on(reread(trace(busy)), "breaks")
    assert [(s.ts, s.process.split()[1], s.args["addr"], s.args.get("code")) for s in breaks] == [
        (130 * MILLION + 1, str(DB), HEAP, "/opt/sekrit/lib.so+0xb123"),
        (132 * MILLION, str(DB), HEAP + 2 * PAGE, None),
        (131 * MILLION, str(GUEST), FILE + PAGE, "[kernel] _copy_to_iter+0x80"),
    ]
    assert [s.args["kernel_mode"] for s in breaks] == [False, False, True]


def test_a_break_that_was_only_noticed_is_told_from_one_that_was_seen(
    tmp_path: Path, reread: Callable[[Trace], list[Shown]]
) -> None:
    timeline = timeline_of(StoredRecording(DEMO))
    pages = timeline.pages.copy()
    pages["end"] = pages["end"].cat.set_categories(["unknown", "cow_break"]).fillna("unknown")
    pages.loc[[3, 5], "end"] = "cow_break"
    timeline.__dict__["pages"] = pages
    noticed = [s for s in reread(trace(timeline)) if s.track == "breaks noticed"]
    begin = timeline.recording.manifest["clock"]["monotonic_ns"]
    rows = pages.loc[[3, 5]]
    assert sorted(s.ts for s in noticed) == sorted(rows["ended_before_ns"] - begin)
    assert {s.args["ended_after_ns"] for s in noticed} == set(rows["ended_after_ns"])
    assert {s.name for s in noticed} == {"break noticed"}


def test_counters_losses_and_lives_are_there(
    busy: Timeline, reread: Callable[[Trace], list[Shown]]
) -> None:
    shown = reread(trace(busy))
    values = {
        name: [(s.ts // MILLION, s.value) for s in on(shown, name)]
        for name in ("saved_bytes", "pages_shared", "ksm_zero_pages", "pages_volatile")
    }
    assert values == {
        "saved_bytes": [(0, 0), (50, 0), (100, 23 * PAGE), (160, 20 * PAGE)],
        "pages_shared": [(0, 0), (50, 0), (100, 11), (160, 11)],
        "ksm_zero_pages": [(0, 0), (50, 0), (100, 1), (160, 1)],
        "pages_volatile": [(at, 5) for at in (0, 50, 100, 160)],
    }
    # 300,000 ns of each millisecond.
    assert [s.value for s in on(shown, "ksmd_cpu_percent")] == [30, 30, 30]
    assert [s.value for s in on(shown, "advisor_pages_to_scan")] == [1013, 2017]
    assert [(s.ts, s.args["events"]) for s in on(shown, "lost events")] == [(110 * MILLION, 29)]
    assert [(s.ts // MILLION, s.name) for s in on(shown, "life", GUEST)] == [
        (2, "enters ksmd's list"), (170, "exits"),
    ]  # fmt: skip
    assert [s.value for s in on(shown, "merged_pages", GUEST)][-1] == 0
    assert [s.value for s in on(shown, "profit_bytes", DB)] == [40_000]


def test_both_formats_say_the_same(busy: Timeline) -> None:
    for made in (trace(busy), trace(busy, 5), trace(timeline_of(StoredRecording(DEMO)))):
        assert read_chrome(written(made, write_chrome)) == read_perfetto(
            written(made, write_perfetto)
        )


def test_times_go_forward_on_each_track(reread: Callable[[Trace], list[Shown]]) -> None:
    shown = reread(trace(timeline_of(StoredRecording(DEMO)), 1009))
    by_track: dict[tuple[str, str], list[int]] = {}
    for point in shown:
        by_track.setdefault((point.process, point.track), []).append(point.ts)
    assert len(by_track) > 20
    for times in by_track.values():
        assert times == sorted(times)
        assert times[0] >= 0
    scans = [(s.ts, s.ts + (s.duration or 0)) for s in on(shown, "scans")]
    assert all(end <= start for (_, end), (start, _) in pairwise(scans))


def test_beyond_the_limit_merges_are_counted_and_none_is_dropped(
    busy: Timeline, reread: Callable[[Trace], list[Shown]]
) -> None:
    everything, made = trace(busy), trace(busy, 7)
    assert not everything.notes
    (note,) = made.notes
    assert note.startswith("36 merges and breaks are too many to show each: the first 7 are")
    shown = reread(made)
    merges = on(shown, "merges")
    assert len(merges) + len(on(shown, "breaks")) == 7
    last = max(s.ts for s in merges)
    assert sum(s.ts <= last for s in on(reread(everything), "merges")) == 7, "the first ones"
    counted = [s for s in shown if s.track.startswith(("merges per", "breaks per"))]
    by_process = Counter[tuple[str, str]]()
    for point in counted:
        by_process[point.process.split()[1], point.track.split()[0]] += int(point.value or 0)
    assert by_process == {
        (str(DB), "merges"): 11, (str(GUEST), "merges"): 11, (str(CHILD), "merges"): 11,
        (str(DB), "breaks"): 2, (str(GUEST), "breaks"): 1,
    }  # fmt: skip
    ends = [
        list(points)[-1].value for _, points in groupby(counted, lambda s: (s.process, s.track))
    ]
    assert set(ends) == {0}, "the count falls back to nothing after the last bin"
    assert not on(reread(trace(busy, 0)), "merges")


def test_bins_are_bounded_however_long_the_stream(busy: Timeline) -> None:
    made = trace(timeline_of(StoredRecording(DEMO)), 101)
    counted = {n for n, track in enumerate(made.tracks) if " per " in track.name}
    points = sum(int(np.isin(p.track, list(counted)).sum()) for p in made.points)
    assert 0 < points <= 2 * 101


def test_an_empty_recording_gives_an_empty_trace(
    tmp_path: Path, reread: Callable[[Trace], list[Shown]]
) -> None:
    made = trace(timeline_of(StoredRecording(make_recording(tmp_path / "a.ksm"))))
    assert reread(made) == []
    assert made.processes[0].name == "KSM"


def test_without_addresses_there_are_merges_all_the_same(
    tmp_path: Path, reread: Callable[[Trace], list[Shown]], busy: Timeline
) -> None:
    batches = [batch.copy() for batch in busy.recording.event_batches()]  # type: ignore[attr-defined]
    for batch in batches:
        about_pages = batch["item"] != 0
        batch["addr"][about_pages] = 0
        batch["tgid"] = 0
    facts = {"fields_unknown": ["addr", "tgid", "first_sight", "mapcount", "via"]}
    path = make_recording(tmp_path / "a.ksm", batches, facts=facts)
    merges = on(reread(trace(timeline_of(StoredRecording(path)))), "merges")
    assert len(merges) == 33
    assert all("addr" not in s.args and "region" not in s.args for s in merges)
    assert {s.process for s in merges} <= {
        f"process (pid not known) {(1 << 22) + n}" for n in (1, 2, 3)
    }


def test_a_pid_that_is_used_again_gets_tracks_of_its_own(
    busy: Timeline, reread: Callable[[Trace], list[Shown]]
) -> None:
    processes = busy.processes.copy()
    processes["tgid"] = np.uint32(DB)
    timeline = timeline_of(busy.recording)  # type: ignore[arg-type]
    timeline.__dict__["processes"] = processes
    names = {s.process for s in on(reread(trace(timeline)), "merges")}
    assert names == {
        f"sekrit-db {DB}",
        f"sekrit-guest ({DB}) {(1 << 22) + 2}",
        f"sekrit-db ({DB}) {(1 << 22) + 3}",
    }


def test_events_before_the_start_move_the_start(tmp_path: Path) -> None:
    early = batch_of([{"kind": 3, "ts": BEGIN - 17, "addr": 3}])
    recording = StoredRecording(make_recording(tmp_path / "a.ksm", [early]))
    made = trace(timeline_of(recording))
    assert made.begin_ns == BEGIN - 17
    assert made.wall_ns == recording.manifest["clock"]["wall_ns"] - 17
    assert [s.ts for s in read_chrome(written(made, write_chrome)) if s.track == "scans"] == [0]


_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "boolean": st.one_of(st.none(), st.booleans()),
    "str": st.one_of(st.none(), st.text(max_size=5)),
    "Float64": st.one_of(st.none(), st.floats(0, 1e9)),
}


_ROWS_OF = {"process": "processes", "region": "region_ledger", "page": "pages"}


@st.composite
def any_tables(draw: st.DrawFn) -> dict[str, pd.DataFrame]:
    """Derived tables with whatever may stand in them; row numbers name rows that there are."""
    rows = {name: draw(st.integers(0, 7)) for name in TABLES}

    def values(column: DerivedColumn) -> st.SearchStrategy[Any]:
        if column.name == "how":
            return st.sampled_from(HOW)
        if column.name == "end" and column.dtype == "category":
            return st.sampled_from(END)
        if column.dtype in _VALUES:
            return _VALUES[column.dtype]
        if (of := _ROWS_OF.get(column.name)) is not None:
            number = st.integers(0, rows[of] - 1) if rows[of] else st.nothing()
        else:
            # After 13 days nanoseconds are no JavaScript numbers.
            number = st.integers(0, 1 << (30 if column.dtype.endswith("32") else 50))
        return st.one_of(st.none(), number) if column.dtype[0].isupper() else number

    tables = {}
    for name in TABLES:
        columns = {}
        for column in DERIVED[name].columns:
            one = st.lists(values(column), min_size=rows[name], max_size=rows[name])
            drawn = draw(one)
            if name in ("scans", "processes") and column.name in ("scan", "process"):
                drawn = list(range(rows[name]))
            if column.dtype == "category":
                drawn = pd.Categorical(drawn, HOW if column.name == "how" else END)
            columns[column.name] = drawn
        tables[name] = frame(name, columns)
    return tables


@given(any_tables(), st.integers(0, 11))
def test_whatever_stands_in_tables_both_formats_say_the_same(
    busy: Timeline, tables: dict[str, pd.DataFrame], limit: int
) -> None:
    shown = _run(busy)
    run = Run(
        BEGIN, BEGIN + 1, None, PAGE, shown.samples, np.array([7, 3]), np.array([1, 2])
    )  # fmt: skip
    made = trace_of(tables, run, limit)
    told = read_perfetto(written(made, write_perfetto))
    assert told == read_chrome(written(made, write_chrome))
    merges = int(tables["pages"]["merged_ns"].notna().sum())
    if merges + len(tables["breaks"]) + len(tables["pages"]) <= limit:
        assert len(on(told, "merges")) == merges
        assert len(on(told, "breaks")) == len(tables["breaks"])
    by_track: dict[tuple[str, str], list[int]] = {}
    for point in told:
        by_track.setdefault((point.process, point.track), []).append(point.ts)
    assert all(times == sorted(times) for times in by_track.values())


NAMES = st.text(max_size=11)
WHOLE = st.integers(-(2**53), 2**53)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**60), WHOLE, st.floats(allow_nan=False, allow_infinity=False),
                  st.booleans(), NAMES),
        max_size=23,
    ),
    NAMES,
)  # fmt: skip
def test_any_points_are_read_back_as_they_were(
    rows: list[tuple[int, int, float, bool, str]], name: str
) -> None:
    name = name.encode(errors="replace").decode()
    words = tuple(dict.fromkeys(row[4].encode(errors="replace").decode() for row in rows))
    codes = [words.index(row[4].encode(errors="replace").decode()) for row in rows]
    known = np.array([row[3] for row in rows], bool)
    args = (
        Arg("number", np.array([row[1] for row in rows], np.int64), known),
        Arg("real", np.array([row[2] for row in rows], np.float64), known),
        Arg("flag", known),
        Arg("address", np.array([row[0] for row in rows], np.uint64), address=True),
        Arg(f"a {name}", np.array(codes, np.int64), None, words),
    )
    ts = np.array(sorted(row[0] for row in rows), np.int64)
    nothing = np.zeros(len(rows), np.int32)
    points = (
        Points("instant", nothing, ts, (name,), nothing, args=args),
        Points("counter", nothing + 1, ts, value=np.array([row[1] for row in rows], np.int64)),
        Points("counter", nothing + 2, ts, value=np.array([row[2] for row in rows], np.float64)),
    )
    tracks = [
        Track(0, name, "instant"),
        Track(0, name, "counter"),
        Track(0, "%", "counter", "percent"),
    ]
    made = Trace(0, None, [Process(17, name, (name,))], tracks, points)
    expected = [
        Shown(
            f"{name} 17", name, "instant", int(at), name,
            args={
                **({"number": row[1], "real": row[2]} if row[3] else {}),
                "flag": row[3], "address": row[0], f"a {name}": words[code],
            },
        )
        for at, row, code in zip(ts, rows, codes, strict=True)
    ]  # fmt: skip
    for column, at in ((1, name), (2, "%")):
        expected += [
            Shown(f"{name} 17", at, "counter", int(t), value=row[column])
            for t, row in zip(ts, rows, strict=True)
        ]
    assert read_perfetto(written(made, write_perfetto)) == expected
    assert _without_hex(read_chrome(written(made, write_chrome))) == _without_hex(expected)


def _without_hex(shown: list[Shown]) -> list[dict[str, Any]]:
    """Times of 2^60 ns are no JavaScript numbers; a word may look like an address."""
    return [
        {**vars(s), "ts": 0, "args": {k: v for k, v in s.args.items() if k[:2] != "a "}}
        for s in shown
    ]


def test_chrome_events_have_what_the_format_requires(busy: Timeline) -> None:
    whole = json.loads(written(trace(busy, 11), write_chrome))
    assert whole["displayTimeUnit"] == "ms"
    events = whole["traceEvents"]
    required = {
        "X": {"ph", "pid", "tid", "ts", "dur", "name", "cat", "args"},
        "i": {"ph", "pid", "tid", "ts", "s", "name", "cat", "args"},
        "C": {"ph", "pid", "ts", "name", "args"},
        "M": {"ph", "pid", "tid", "ts", "name", "args"},
    }
    assert {e["ph"] for e in events} == set(required)
    for one in events:
        assert set(one) == required[one["ph"]]
        assert isinstance(one["ts"], int | float)
        assert one["ts"] >= 0
        assert one.get("dur", 0) >= 0


def test_perfetto_knows_the_clocks_and_the_units(busy: Timeline) -> None:
    read = pb.Trace.FromString(written(trace(busy), write_perfetto))
    (snapshot,) = (p.clock_snapshot for p in read.packet if p.HasField("clock_snapshot"))
    assert {c.clock_id: c.timestamp for c in snapshot.clocks} == {
        pb.BUILTIN_CLOCK_MONOTONIC: BEGIN,
        pb.BUILTIN_CLOCK_REALTIME: busy.recording.manifest["clock"]["wall_ns"],
    }
    assert snapshot.primary_trace_clock == pb.BUILTIN_CLOCK_MONOTONIC
    descriptors = [p.track_descriptor for p in read.packet if p.HasField("track_descriptor")]
    units = {d.name: (d.counter.unit, d.counter.unit_name) for d in descriptors}
    assert units["saved_bytes"] == (pb.CounterDescriptor.UNIT_SIZE_BYTES, "")
    assert units["pages_shared"] == (pb.CounterDescriptor.UNIT_COUNT, "")
    assert units["ksmd_cpu_percent"] == (pb.CounterDescriptor.UNIT_UNSPECIFIED, "%")
    labels = {d.process.pid: list(d.process.process_labels) for d in descriptors if d.process.pid}
    assert labels[GUEST] == ["cgroup /", "vm sekrit vm"]
