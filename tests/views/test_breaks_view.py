from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO

import pytest
from rich.console import Console
from support.batches import batch_of, event
from support.recordings import host_sample
from support.timelines import timeline_in_memory

from ksmtrace.events.registry import COW_BREAK, ZERO_PAGE
from ksmtrace.timeline.breaks import BreakTables, break_accounts, top_writers
from ksmtrace.views.breaks import breaks_as_dict, render_breaks

LONG = "/a/very/long/path/" + "folder/" * 13 + "library.so"


def tables(cow_ksm: list[int | None], places: int = 2) -> BreakTables:
    """A recording of 13 breaks by each of some places, and one of a zero page."""
    rows = [event(COW_BREAK, 20, tgid=7, item=0x1000 + place) for place in range(places)] * 13 + [
        event(COW_BREAK, 20, tgid=9, item=0x5000, arg=ZERO_PAGE)
    ]
    known = {"knob_run": "1", "full_scans": 3, "pages_shared": 0, "pages_sharing": 0}
    counters = [
        host_sample(ts, cow_ksm=cow, ksm_zero_pages=zero, **known)
        for ts, cow, zero in zip((10, 99), cow_ksm, (5, 3), strict=True)
    ]
    there = {"ts": 1, "tgid": 7}
    code = [
        {**there, "ip": 0x1000, "file": LONG, "offset": 0x77},
        {**there, "ip": 0x1001, "file": "[kernel]", "offset": 5, "symbol": "copy_\x1b[31mto"},
    ]
    batch = batch_of(rows)
    timeline = timeline_in_memory([batch], tables={"counters": counters, "code": code})
    return BreakTables(break_accounts(timeline, [batch]), top_writers(timeline))


def shown(found: BreakTables, names: Mapping[int, str] | None = None) -> str:
    out = StringIO()
    Console(file=out, width=80, highlight=False).print(render_breaks(found, names or {}))
    return out.getvalue()


def test_the_account_and_the_writers_are_shown() -> None:
    text = shown(tables([100, 131]))
    lines = [line.split() for line in text.splitlines()]
    assert ["copied", "31"] in [line[:2] for line in lines]
    assert ["seen", "26"] in [line[:2] for line in lines]
    assert ["unseen", "5"] in [line[:2] for line in lines]
    assert ["zero", "seen", "1"] in [line[:3] for line in lines]
    assert "library.so+0x77" in text.replace("\n", "").replace(" ", "")
    assert "[kernel] copy_\\x1b[31mto+0x5" in text
    assert "surplus" not in text


def test_writers_have_their_names_where_these_are_known() -> None:
    text = shown(tables([100, 131]), {7: "red\x1b[31m is it"})
    assert text.count("red\\x1b[31m is it 7 ") == 2
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("9 ")] == [["9", "1"]]


@pytest.mark.parametrize("called", ["", "a-name-that-is-far-too-long-for-a-column-" * 2])
def test_it_fits_80_columns(called: str) -> None:
    text = shown(tables([100, 131], 31), {7: called})
    assert max(map(len, text.splitlines())) <= 80
    assert called[:20] in text


def test_of_many_writers_the_first_are_shown() -> None:
    text = shown(tables([100, 1031], 31))
    assert "32 places" in text
    assert "--json lists all" in text
    assert len(text.splitlines()) < 30


@pytest.mark.parametrize("cow_ksm", [[None, 3], [3, None]])
def test_what_is_not_known_is_no_number(cow_ksm: list[int | None]) -> None:
    found = tables(cow_ksm)
    lines = [line.split()[:2] for line in shown(found).splitlines()]
    assert ["copied", "–"] in lines
    assert ["unseen", "–"] in lines
    told = breaks_as_dict(found)
    assert told["unseen"] is None
    assert told["seen"] == 26


def test_json_holds_every_writer_and_nothing_but_plain_values() -> None:
    told = json.loads(json.dumps(breaks_as_dict(tables([100, 131], 31))))
    assert len(told["writers"]) == 32
    assert told["writers"][0]["file"] == LONG
    assert told["writers"][2]["file"] is None
    assert told["writers"][-1]["zero_page"] == 1
    assert told["unseen"] == 0
    assert told["surplus"] == 31 * 13 - 31


def test_without_writers_there_is_no_table() -> None:
    quiet = tables([100, 131], 0)
    assert "who wrote" in shown(quiet)
    none = BreakTables(quiet.accounts, quiet.writers.iloc[:0])
    assert "who wrote" not in shown(none)
