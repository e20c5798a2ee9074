from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from ksmtrace.top.loading import loading
from ksmtrace.top.recorded import RecordedSource
from ksmtrace.top.rows import labelled
from ksmtrace.top.state import (
    ROUTINE,
    WHATS,
    Burst,
    Group,
    Moment,
    Place,
    Rows,
    Scan,
    Series,
    TopState,
    What,
)
from ksmtrace.top.table import COLUMNS
from ksmtrace.top.ui import SORTS, Ui, pressed
from ksmtrace.views.top import render_top
from ksmtrace.views.top_json import top_dict
from ksmtrace.views.top_parts import recent_lines
from ksmtrace.views.top_words import burst_words

ANALYSIS = Path(__file__).parents[2] / "recordings" / "analysis.ksm"
HOSTILE = ["[bold red]x[/]", "\x1b[2J\x1b]0;x\x07", "\u202egnp.exe", "שלום עולם", "名前" * 41,
           "a\nb\tc\r", "e\u0301" * 31, "", "👩‍👩‍👧‍👦", "\u200b\u2066x"]  # fmt: skip
SIZES = [(80, 24), (81, 25), (100, 30), (132, 43), (200, 60), (300, 100)]


def screen(state: TopState, ui: Ui, width: int, height: int | None) -> list[str]:
    """The lines as a terminal without colour has them."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height or 500, highlight=False)
    console.print(render_top(state, ui, width, height))
    return out.getvalue().removesuffix("\n").split("\n")


@cache
def recorded(second: float = 20.0) -> TopState:
    source = RecordedSource(ANALYSIS)
    return source.state(source.moment(second))


def hostile(names: list[str]) -> TopState:
    """A live state in which everything is called something."""
    count = len(names)
    columns = {str(column.name): np.full(count, 1e12 / 7) for column in COLUMNS}
    labels = {name: labelled([*names]) for name in ("comm", "cgroup", "vm")}
    return TopState(
        place=Place("capture", names[0] if names else "6.18", 4096, 3, backend="core", cow=True),
        moment=Moment(107 * 10**9, 100 * 10**9),
        rows=Rows(np.arange(count) + (1 << 31) - 100, columns, labels),
        recent=[Burst(106 * 10**9, what, 10**12, 11, name) for what in WHATS for name in names],
        notes=names,
    )


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("ui", [Ui(speed=4), Ui(by="cgroup"), Ui(by="vm"), Ui(help=True, speed=1)])
def test_the_screen_is_as_large_as_the_terminal(width: int, height: int, ui: Ui) -> None:
    for state in (recorded(), hostile(HOSTILE), loading(Path("x" * 301))):
        lines = screen(state, ui, width, height)
        assert len(lines) == height
        assert max(map(cell_len, lines)) <= width


@given(st.lists(st.text(max_size=67), min_size=1, max_size=5), st.sampled_from(SIZES))
def test_no_name_steers_the_terminal_or_leaves_its_line(
    names: list[str], size: tuple[int, int]
) -> None:
    lines = screen(hostile(names), Ui(), *size)
    assert len(lines) == size[1]
    assert max(map(cell_len, lines)) <= size[0]
    assert all(line.isprintable() for line in lines)


def test_markup_in_a_name_is_shown_and_not_obeyed() -> None:
    text = "\n".join(screen(hostile(HOSTILE), Ui(), 200, 60))
    assert "[bold red]x[/]" in text
    assert "\\u202egnp.exe" in text
    assert "\x1b" not in text


def test_a_moment_of_a_recording_at_80_by_24() -> None:
    lines = screen(recorded(), Ui(speed=4), 80, 24)
    assert lines[0].startswith("ksmtrace top  analysis.ksm")
    assert " 20.00 s of 44.04 s" in lines[1]
    text = "\n".join(lines)
    for told in (
        "saved    2.4 MiB", "shared   97", "sharing 560", "1:5.8", "zero pages 53",
        "volatile 108", "scan     24  ━", "90 %", "ends in 142 ms", "merges ", "breaks ",
        "scan-time", "31 pages", "18.71 s  scan 23 ended after 595 ms",
        "▼saved", "breaks/s", "31967  web-2",
    ):  # fmt: skip
        assert told in text, told
    assert lines[-1].startswith("q quit  ? help")
    assert lines[-1].endswith("+- speed")


def test_a_wide_screen_has_what_happened_beside_the_table() -> None:
    lines = screen(recorded(), Ui(speed=4), 200, 60)
    line = next(line for line in lines if "31967  web-2" in line)
    head = next(line for line in lines if "▼saved" in line)
    assert head.index("recent") > 110
    assert " s  " in line[110:]


@pytest.mark.parametrize(("width", "height"), [(79, 24), (80, 23), (20, 5), (1, 1), (5, 100)])
def test_a_terminal_that_is_too_small_is_told_how_large_it_must_be(width: int, height: int) -> None:
    lines = screen(recorded(), Ui(), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    if width >= 20:
        assert "80" in "".join(lines)


def test_s_and_r_change_the_order_and_mark_the_column() -> None:
    ui = Ui()
    heads = []
    for _ in SORTS:
        lines = screen(recorded(), ui, 132, 43)
        heads.append(next(line for line in lines if "▼" in line).split("▼")[1].split()[0])
        ui = pressed(ui, "s")
    assert heads == ["saved", "merged", "profit", "merges/s", "net/s", "breaks/s"]
    lines = screen(recorded(), Ui(reverse=True), 80, 24)
    at = next(n for n, line in enumerate(lines) if "▲saved" in line)
    assert "log" in lines[at + 1]


def test_groups_are_sums_of_their_processes() -> None:
    text = "\n".join(screen(recorded(), Ui(by="cgroup"), 80, 24))
    # web-1 and web-2 (844 KiB and 1 MiB), db.
    assert "/shop" in text
    assert "/reports" in text
    assert "procs  cgroup" in text


def test_help_names_the_keys_of_a_recording_only_there() -> None:
    assert "on to where the next scan ends" in "\n".join(
        screen(recorded(), Ui(help=True, speed=1), 80, 24)
    )
    text = "\n".join(screen(hostile(["x"]), Ui(help=True), 80, 24))
    assert "next scan" not in text
    assert "sort by the next column" in text


def test_what_is_not_known_is_a_dash() -> None:
    state = TopState(Place("counters", "6.1", 4096, None), Moment(1, 1))
    text = "\n".join(screen(state, Ui(), 80, 24))
    assert "saved    –" in text
    assert "0 B" not in text
    assert "– of a core, – of the host" in text


def test_a_paused_and_a_playing_recording_say_so() -> None:
    state = recorded()
    for paused, word in ((True, "paused"), (False, "playing")):
        moment = replace(state.moment, speed=4.0, paused=paused)
        assert word in screen(replace(state, moment=moment), Ui(speed=4), 80, 24)[1]
    end = replace(state.moment, ns=state.moment.end_ns or 0, speed=4.0)
    assert "at the end" in screen(replace(state, moment=end), Ui(speed=4), 80, 24)[1]


def test_printed_once_it_has_no_keys_and_no_more_lines_than_it_takes() -> None:
    lines = screen(recorded(), Ui(speed=None), 80, None)
    assert "quit" not in lines[-1]
    assert lines[-1].endswith("log")


@pytest.mark.parametrize(
    ("burst", "words"),
    [
        (Burst(0, "merged", 1_204, 11, "web"), "merged 1,204 pages of web (11)"),
        (Burst(0, "merged", 1, processes=17), "merged 1 page of 17 other processes"),
        (Burst(0, "attached", 7, 11, "web"), "attached 7 pages of web (11) to KSM pages"),
        (Burst(0, "inherited", 211, 11, "web"), "web (11) took over 211 merged pages by fork"),
        (Burst(0, "zero", 53, 11), "mapped 53 pages of 11 onto the zero page"),
        (Burst(0, "failed", 7), "failed to merge 7 pages"),
        (Burst(0, "broke", 1, 11, "db"), "db (11) wrote to 1 merged page: copied"),
        (Burst(0, "entered", 1), "a forked process came onto ksmd's list"),
        (Burst(0, "entered", 1, 11, "db"), "db (11) registered with KSM"),
        (Burst(0, "exited", 2), "2 processes left ksmd's list"),
        (Burst(0, "scanned", 1, number=5, seconds=0.64), "scan 5 ended after 640 ms"),
        (Burst(0, "scanned", 31, number=5), "31 scans ended, the last was 5"),
        (Burst(0, "decided", 1, number=31), "the advisor chose pages_to_scan=31"),
        (Burst(0, "died", 13), "ksmd found 13 KSM pages dead"),
        (Burst(0, "left", 1, 11, "db"), "db (11) gave up 1 range of memory"),
        (Burst(0, "lost", 9), "LOST 9 events: they came faster than they were read"),
    ],
)  # fmt: skip
def test_a_burst_in_words(burst: Burst, words: str) -> None:
    assert burst_words(burst) == words


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        (Scan(7, basis="ksmd is stopped"), "7  none under way: ksmd is stopped"),
        (Scan(7, under_way=True, basis="it began before top did"),
         "7  end unknown: it began before top did"),
        (Scan(7, under_way=True, elapsed_s=2, fraction=0.5, visited_pages=1_009,
              expected_pages=2_018, ends_in_s=2), "50 % 1,009 of 2,018  2.00 s, ends in 2.00 s"),
    ],
)  # fmt: skip
def test_a_scan_in_words(scan: Scan, words: str) -> None:
    state = replace(hostile(["x"]), scan=scan)
    line = next(line for line in screen(state, Ui(), 80, 24) if line.startswith("scan"))
    assert words in line


def test_a_sparkline_shows_the_last_cells_and_the_most_of_them() -> None:
    values = [None, *map(float, range(101))]
    state = replace(
        hostile(["x"]), series=Series(1.0, {"merges_per_s": values}),
        figures={"merges_per_s": 97.0},
    )  # fmt: skip
    line = next(line for line in screen(state, Ui(), 80, 24) if line.startswith("merges"))
    assert line.endswith("█ 97/s, most 100/s")
    assert line[9] == "▅"


def test_the_json_has_stable_names_and_null_for_what_is_not_known() -> None:
    told = top_dict(recorded(), Ui())
    assert told["figures"]["saved_bytes"] == (560 + 53) * 4096
    assert told["scan"]["seq"] == 24
    assert told["process"][0]["comm"] == "web-2"
    assert told["process"][0]["merged_pages"] == 211
    assert told["recent"][0]["words"] == "scan 23 ended after 595 ms"
    empty = top_dict(TopState(Place("counters", "6.1", 4096, None), Moment(1, 1)), Ui(by="vm"))
    assert empty["vm"] is None
    assert empty["lost"] is None


def test_scans_and_decisions_leave_room_for_what_happened_at_80_by_24() -> None:
    lines = screen(recorded(44.04), Ui(speed=4), 80, 24)
    at = next(n for n, line in enumerate(lines) if line.startswith("recent"))
    end = next(n for n, line in enumerate(lines) if "▼saved" in line)
    told = lines[at:end]
    assert len(told) >= 4
    assert sum("scan " in line or "advisor" in line for line in told) == 1
    assert "merged 7 pages of batch" in told[1]
    assert "left ksmd's list" in told[2]


@given(st.lists(st.sampled_from(WHATS), max_size=29), st.integers(1, 23))
def test_no_line_of_what_happened_stays_free_and_the_order_is_kept(
    whats: list[What], most: int
) -> None:
    bursts = [Burst(100 - n, what, 3, 11) for n, what in enumerate(whats)]
    lines = recent_lines(replace(hostile(["x"]), recent=bursts), most)
    assert len(lines) == (min(most, len(bursts)) or 1)
    others = [burst_words(b) for b in bursts if b.what not in ROUTINE]
    shown = [line.plain[20:].strip() for line in lines if bursts]
    told = [words for words in shown if words in others]
    assert told == others[: len(told)]
    # All of them, or so many that three quarters of the lines are theirs.
    assert len(told) == len(others) or len(told) >= most - max(most // 4, 1)


def test_the_chart_of_what_is_saved_ends_where_its_figure_is() -> None:
    source = RecordedSource(ANALYSIS.parent / "demo.ksm")
    state = source.state(source.end_ns)
    assert state.figures["saved_bytes"] == 0
    line = next(line for line in screen(state, Ui(), 80, 24) if "5.2 MiB" in line)
    assert line.endswith("▁ 0 B, most 5.2 MiB")
    for second in (3.0, 4.04, 5.99):
        state = source.state(source.moment(second))
        assert state.series is not None
        assert state.series.values["saved_bytes"][-1] == state.figures["saved_bytes"]


@pytest.mark.parametrize("run", ["0", "1", "2"])
@pytest.mark.parametrize(
    ("pages", "sleep", "words"),
    [("4000000000", "4000000001", "smart, all pages/46 d"), ("100", "20", "smart, 100 pages/20 ms"),
     ("3000", "20", "smart, 3,000 pages/20 ms")],
)  # fmt: skip
def test_ksmds_settings_are_whole_at_80_columns(
    run: str, pages: str, sleep: str, words: str
) -> None:
    knobs = {"run": run, "pages_to_scan": pages, "sleep_millisecs": sleep, "smart_scan": "1"}
    figures = {"ksmd_percent_of_one_core": 100.0, "ksmd_percent_of_host": 50.0}
    state = replace(hostile(["x"]), knobs=knobs, figures=figures, scan=Scan(expected_pages=1_009))
    line = next(line for line in screen(state, Ui(), 80, 24) if line.startswith("ksmd"))
    assert line.endswith(words)
    assert "100.0 % of a core" in line


def test_more_pages_than_can_be_read_are_not_said_to_be_all() -> None:
    knobs = {"run": "1", "pages_to_scan": "4000000000", "sleep_millisecs": "20"}
    state = TopState(Place("counters", "6.1", 4096, None), Moment(1, 1), knobs=knobs)
    line = next(line for line in screen(state, Ui(), 80, 24) if line.startswith("ksmd"))
    assert line.endswith("4,000 M pages/20 ms")


@pytest.mark.parametrize("by", ["process", "cgroup", "vm"])
def test_where_processes_cannot_be_read_none_is_unknown(by: Group) -> None:
    nobody = hostile([])
    assert nobody.rows is not None
    some = replace(nobody, rows=replace(nobody.rows, unreadable=34))
    assert "that can be read" in "\n".join(screen(some, Ui(by=by), 80, 24))
    assert top_dict(some, Ui(by=by))[by] is None
    assert "that can be read" not in "\n".join(screen(nobody, Ui(by=by), 80, 24))
    assert top_dict(nobody, Ui(by=by))[by] == []


def test_counts_are_integers_in_the_json_of_a_recording() -> None:
    told = json.loads(json.dumps(top_dict(recorded(), Ui())))
    both = {**told["figures"], **told["process"][0]}
    for name, kind in (
        ("saved_bytes", int), ("profit_bytes", int), ("pages_shared", int), ("full_scans", int),
        ("merged_pages", int), ("merges", int), ("items", int), ("sharing_per_shared", float),
        ("visits_per_s", float), ("merges_per_s", float), ("skipped_percent", float),
    ):  # fmt: skip
        assert type(both[name]) is kind, name
