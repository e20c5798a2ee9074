from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import batch_of, event, joins_ksm_page, makes_ksm_page, random_batch
from support.exported import busy_recording
from support.html_pages import (
    HOSTILE,
    Elements,
    hostile_recording,
    million_events,
    page_of,
    unpacked,
)
from support.recordings import BEGIN, make_recording

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import KSM_ENTER
from ksmtrace.processes.identity import clean
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.summary import summarise
from ksmtrace.views.html.page_maps import MOMENTS
from ksmtrace.views.html.page_states import STATES, Moments

Factory = pytest.TempPathFactory
LIBRARY = Path(__file__).parents[2] / "recordings"
MERGED = ("merged", "inherited", "zero", "doubtful")


def words_of(page: str) -> str:
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def states_at(page: str, moment: int) -> dict[str, dict[str, int]]:
    """Of each map, how many pages are in each state at a moment, as the file has it."""
    data = Elements(page).data("maps")
    columns = {name: unpacked(column) for name, column in data["changes"].items()}
    of_moment = columns["of_moment"]
    when = np.repeat(np.arange(MOMENTS), of_moment)
    step, cell = columns["cell_step"].astype(np.int64), np.zeros(len(when), np.int64)
    for number in range(MOMENTS):
        rows = when == number
        cell[rows] = np.cumsum(step[rows])
    found = {}
    for one in data["maps"]:
        mine = (cell >= one["first_cell"]) & (cell < one["first_cell"] + one["cells"])
        mine &= when <= moment
        counts = np.bincount(columns["state"][mine], columns["pages"][mine], len(STATES))
        told = dict(zip(STATES, counts.astype(int).tolist(), strict=True))
        told["never"] = one["pages"] - sum(told.values())
        found[f"{one['process']} {one['name']} {one['start']}"] = told
    return found


@pytest.mark.parametrize("name", ["two-guests", "copy-on-write", "fork-and-exit", "linux-6.1"])
def test_the_maps_hold_what_the_timeline_says_at_any_moment(name: str) -> None:
    recording = LIBRARY / f"{name}.ksm"
    page = page_of(recording)
    timeline = timeline_of(StoredRecording(recording))
    data = Elements(page).data("maps")
    begin = timeline.context.begin_ns
    lives = timeline.pages
    start = min(begin, int(lives["merged_ns"].min()))
    moments = Moments(start, start + round(data["duration_s"] * 1e9), MOMENTS)
    known = {
        f"{int(row.start):x}-{row.tgid}": n
        for n, row in enumerate(timeline.region_ledger.itertuples())
    }
    for moment in (0, 211, 499, 733, MOMENTS - 1):
        now = moments.at_ns(moment)
        there = lives["merged_ns"].fillna(start) <= now
        there &= lives["ended_before_ns"].isna() | (lives["ended_before_ns"] > now)
        merged = lives[there].groupby("region")["addr"].nunique()
        for one, told in states_at(page, moment).items():
            tgid, place = one.split()[1], one.split()[-1]
            expected = int(merged.get(known[f"{place}-{tgid}"], 0))
            assert sum(told[state] for state in MERGED) == expected, (one, moment)


def test_figures_are_those_of_the_other_commands(tmp_path: Path) -> None:
    recording = busy_recording(tmp_path / "a.ksm")
    summary = summarise(timeline_of(StoredRecording(recording)))
    words = words_of(page_of(recording))
    assert f"merges {summary.totals.merges}" in words
    assert "29 events were lost." in words
    assert "saved 92.0 KiB at most" in words
    assert "copied again 3 writes to merged pages seen" in words
    assert "/opt/sekrit/lib.so+0xb123" in words


def test_without_scripts_the_tables_are_there_and_what_is_missing_is_said() -> None:
    found = Elements(page_of(LIBRARY / "analysis.ksm"))
    assert len(found.of("noscript")) == 2
    captions = [text for _, text in found.of("caption")]
    for topic in (
        "Processes (", "Mappings", "KSM pages by", "The most shared", "KSM pages shared",
        "Full scans", "Decisions", "How the", "Who wrote", "Samples", "The kernel's",
    ):  # fmt: skip
        assert any(caption.startswith(topic) for caption in captions), topic


def test_no_name_is_markup(tmp_path: Path) -> None:
    page = page_of(hostile_recording(tmp_path / "h.ksm"))
    plain = page_of(busy_recording(tmp_path / "b.ksm"))

    def shape(text: str) -> list[str]:
        return sorted(tag for tag, _, _ in Elements(text).found)

    assert shape(page) == shape(plain)
    for name in HOSTILE.values():
        assert name not in page
    for name in ("sekrit-db", "sekrit vm", "/home/sekrit/heap file.bin"):
        told = [text for _, text in Elements(page).of("bdi")]
        assert any(clean(HOSTILE[name]) in text for text in told), name
    assert not {"\u202e", "\u2066", "\u2028", "\x1b"} & set(page)


def test_the_same_recording_gives_the_same_bytes(tmp_path: Path) -> None:
    recording = busy_recording(tmp_path / "a.ksm")
    assert page_of(recording) == page_of(recording)


def test_a_million_events_make_less_than_three_megabytes(tmp_path: Path) -> None:
    recording = million_events(tmp_path / "m.ksm")
    assert StoredRecording(recording).manifest["events"] > 1_000_000
    page = page_of(recording)
    assert len(page.encode()) < 3_000_000
    data = Elements(page).data("maps")
    assert data["lives"] is None
    assert "single pages are cut from this file" in words_of(page)
    assert all(one["pages_per_cell"] > 1 for one in data["maps"])


def test_a_recording_of_one_event_has_a_page(tmp_path: Path) -> None:
    one = batch_of([event(KSM_ENTER, BEGIN + 1, mm=1, tgid=7)])
    words = words_of(page_of(make_recording(tmp_path / "a.ksm", [one])))
    assert "It can't be told" in words
    assert "No counters were sampled." in words
    assert "there is nothing to draw" in words


def test_a_recording_without_events_has_a_page(tmp_path: Path) -> None:
    words = words_of(page_of(make_recording(tmp_path / "a.ksm", [])))
    assert "No process is known" in words
    assert "No full scan was recorded." in words


def test_pages_of_no_known_mapping_are_drawn_where_they_lie(tmp_path: Path) -> None:
    rows = []
    for number in range(5):
        at = {"ts": BEGIN + 1000 * number, "pfn": 7 + number}
        near, far = 0x10000 + 4096 * number, 0x900000000 + 4096 * number
        rows += [makes_ksm_page(**at, mm=1, tgid=11, addr=near, item=number)]
        rows += [joins_ksm_page(**at, mm=1, tgid=11, addr=far, item=100 + number, mapcount=2)]
    page = page_of(make_recording(tmp_path / "a.ksm", [batch_of(rows)]))
    maps = Elements(page).data("maps")["maps"]
    assert [(m["name"], m["pages"]) for m in maps] == [("at 10000", 5), ("at 900000000", 5)]
    last = states_at(page, MOMENTS - 1)
    assert [one["merged"] for one in last.values()] == [5, 5]


def test_a_source_without_addresses_says_so_in_place_of_maps(tmp_path: Path) -> None:
    recording = busy_recording(tmp_path / "a.ksm", fields_unknown=["addr", "tgid"])
    assert "does not tell where pages lie" in words_of(page_of(recording))


def test_of_very_many_processes_the_fullest_are_told_and_the_others_counted(
    tmp_path: Path,
) -> None:
    rows = []
    for number in range(1009):
        own = {"mm": 4096 * (number + 1), "tgid": 1000 + number, "item": 64 * number}
        make = joins_ksm_page if number else makes_ksm_page
        rows.append(make(7, BEGIN + number, addr=0x10000, **own))
    rows.append(joins_ksm_page(7, BEGIN + 2000, mm=4096 * 503, tgid=1502, item=1, addr=1 << 40))
    page = page_of(make_recording(tmp_path / "a.ksm", [batch_of(rows)]))
    words = words_of(page)
    assert "Processes (1,009)" in words
    assert "The 30 processes with most merges of 1,009" in words
    assert "pid 1502" in words
    assert "KSM pages shared by processes (1,009, the 20 that map most KSM pages)" in words
    assert "40 of 1,010 mappings are drawn" in words


@given(batches=st.lists(random_batch(), max_size=3), watched=st.booleans(), placed=st.booleans())
@settings(max_examples=37)
def test_any_stream_has_a_page(
    batches: list[EventBatch], watched: bool, placed: bool, tmp_path_factory: Factory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for batch in batches:
        # A clock that stands at nothing, or has gone for 146 years, is no clock.
        batch["ts"] = batch["ts"] >> np.uint64(2) | np.uint64(1)
    facts = {"cow": {"obstacles": [], "seen_by": ["page_fault_user"]}} if watched else {}
    facts |= {} if placed else {"fields_unknown": ["addr", "first_sight", "mapcount"]}
    page = page_of(make_recording(folder / "a.ksm", batches, facts=facts))
    told = Elements(page)
    assert told.of("title") == [({}, "KSM report: a.ksm")]
    assert told.data("charts")["cells"] >= 1
