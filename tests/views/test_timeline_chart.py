from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ksmtrace.timeline.tables import END, HOW, NODE_END, TABLES
from ksmtrace.views.timeline_accounts import accounts_view
from ksmtrace.views.timeline_advisor import advisor_view
from ksmtrace.views.timeline_chart import strip_chart
from ksmtrace.views.timeline_ksm_page import ksm_page_view
from ksmtrace.views.timeline_page import page_view
from ksmtrace.views.timeline_parts import View
from ksmtrace.views.timeline_process import process_view, processes_view
from ksmtrace.views.timeline_regions import regions_view
from ksmtrace.views.timeline_scan import scan_view
from tests.support.timeline_frames import Frames, at, run_by_hand, run_of_frames, shown

COW = {"cow": {"seen_by": ["page_fault_user"]}}


def account(seconds: float, shared: int, merged: int, **more: Any) -> dict[str, Any]:
    sums = {"merged_least": merged, "merged_most": merged, "residual": 0}
    kernel = {"shared_kernel": shared, "merged_kernel": merged, "zero_kernel": 0}
    return {"ts_ns": at(seconds), "reason": "interval", **kernel, **sums, **more}


def small_run(**changes: Any) -> Any:
    """Two scans, seven pages of which two ended, three samples."""
    pages = [
        {"process": 0, "tgid": 1234, "addr": 0x7000 + 4096 * n, "ksm_page": 0, "scan": 2,
         "merged_ns": at(2 + n / 10), "how": ("created", "partner", *["joined"] * 5)[n]}
        for n in range(7)
    ]  # fmt: skip
    for page in pages[:2]:
        page |= {"end": "cow_break", "ended_before_ns": at(4), "ended_after_ns": at(3)}
    tables: dict[str, Any] = {
        "scans": [
            {"scan": 1, "start_ns": at(0.5), "end_ns": at(1.5)},
            {"scan": 2, "start_ns": at(2), "end_ns": at(3), "merges": 7},
        ],
        "pages": pages,
        "stable_pages": [{"end": "alive", "sharers_peak": 7}],
        "processes": [{"tgid": 1234, "comm": "python3", "merges": 7}],
        "accounts": [account(0, 0, 0), account(3, 1, 7), account(5, 1, 5, silent=2)],
    }
    return run_by_hand(**{**tables, **changes})


def test_the_run_is_one_row_a_thing_with_its_scale() -> None:
    assert shown(strip_chart(small_run())).splitlines()[2:10] == [
        "scans            │1─────────   │2─────────                   1..2",
        f"merges/s     {'▁' * 18}{'█' * 7}{'▁' * 22} 0..9",
        f"ends/s       {'▁' * 37}█{'▁' * 9} 0..19",
        f"saved        {'▁' * 28}{'█' * 18}▆ 0..24.0 KiB",
        f"KSM pages    {'▁' * 28}{'█' * 19} 0..1",
        "             ├────────┼────────┼─────────┼────────┼─────────",
        "             0 s      1        2         3        4",
        "",
    ]


def test_the_words_say_what_the_strips_sum_up_to() -> None:
    text = " ".join(shown(strip_chart(small_run())).split())
    assert "merges 7 in 2 scans" in text
    assert "how 1 created, 1 partner, 5 joined" in text
    assert "ends 5 still_merged, 2 cow_break" in text
    assert "saved 24.0 KiB at most, 16.0 KiB at the end" in text
    assert "the events account for every page the kernel counts (3 samples)" in text
    assert "allowing for up to 2 silent" in text


def test_what_to_type_next_is_of_this_recording() -> None:
    text = shown(strip_chart(small_run()))
    for example in (
        "--scan 2",
        "--process 1234",
        "--page 1234:7000",
        "--ksm-page 0",
        "--sharing",
    ):
        assert f"  ksmtrace timeline a.ksm {example}\n" in text
    assert "--breaks" not in text


def test_with_cow_the_breaks_seen_stand_for_the_ends() -> None:
    run = small_run(manifest=COW, breaks=[{"ts_ns": at(4), "process": 0}] * 3)
    text = shown(strip_chart(run))
    assert "breaks/s" in text
    assert "ends/s" not in text
    assert "timeline a.ksm --breaks" in text


def test_rows_that_have_nothing_to_say_are_left_out_and_others_are_not() -> None:
    text = shown(strip_chart(small_run()))
    assert not any(label in text for label in ("advisor", "zero pages", "LOST"))
    run = small_run(
        advisor=[{"ts_ns": at(n), "pages_to_scan": 100 * n} for n in range(1, 4)],
        accounts=[account(1, 0, 0), account(3, 0, 0, lost=11), account(4, 0, 0, lost=11)],
    )
    lines = shown(strip_chart(run)).splitlines()
    advisor = next(line for line in lines if line.startswith("advisor"))
    assert advisor.endswith("100..300 pages")
    assert advisor[13] == " "
    lost = next(line for line in lines if line.startswith("LOST  "))
    assert lost.split() == ["LOST", "x", "11"]
    assert "11 events: what is told here is not all" in "\n".join(lines)


def test_a_residual_is_printed_never_hidden() -> None:
    run = small_run(accounts=[account(1, 0, 5, residual=-3), account(2, 0, 5), account(3, 0, 5)])
    text = " ".join(shown(strip_chart(run)).split())
    assert "up to 3 merged pages remain unexplained, in 1 of 3 samples, first at 1.000 s" in text
    assert "account for every page" not in text


def test_a_residual_of_zero_pages_is_printed_too() -> None:
    run = small_run(accounts=[account(1, 0, 5, zero_residual=7)])
    assert "up to 7 zero pages remain unexplained" in " ".join(shown(strip_chart(run)).split())


def test_a_recording_without_counters_claims_nothing() -> None:
    text = shown(strip_chart(small_run(accounts=[])))
    assert "no counters to compare with" in " ".join(text.split())
    assert "KSM pages " in text
    assert not any(line.startswith("saved") for line in text.splitlines())


def test_an_empty_recording_is_shown_as_empty() -> None:
    text = shown(strip_chart(run_by_hand()))
    assert text.splitlines()[2].split() == ["scans", "none"]
    assert "0 in 0 scans" in text
    assert "look closer" not in text


def test_many_scans_are_a_rate() -> None:
    scans = [{"scan": n, "start_ns": at(n / 100), "end_ns": at(n / 100)} for n in range(499)]
    assert "0..103.4, 0 to 498" in shown(strip_chart(small_run(scans=scans)))


def test_a_name_with_blanks_is_quoted_where_it_is_to_be_typed() -> None:
    run = run_by_hand(scans=[{"scan": 0}], name="my run.ksm")
    assert "timeline 'my run.ksm' --scan 0" in shown(strip_chart(run))


def test_json_has_the_rows_and_what_is_not_known_is_null() -> None:
    told = json.loads(strip_chart(small_run()).as_json())
    assert told["totals"]["merges"] == 7
    assert told["totals"]["breaks"] is None
    assert told["how"]["joined"] == 5
    assert told["scans"][1]["start_ns"] == at(2)
    assert told["scans"][1]["seq"] is None
    assert len(told["strip"]["saved_bytes"]) == len(told["strip"]["merges_per_s"]) == 100
    assert sum(told["strip"]["merges_per_s"]) * told["strip"]["cell_s"] == 7


def test_csv_is_the_table_of_scans() -> None:
    lines = strip_chart(small_run()).as_csv().splitlines()
    assert lines[0].split(",") == [column.name for column in TABLES["scans"].columns]
    assert len(lines) == 3
    assert lines[1].startswith("1,,")


_NS = st.one_of(st.integers(at(-1), at(7)), st.integers(0, 1 << 62))
_SMALL = st.integers(-3, 7)
_WORDS = {"reason": ("start", "scan", "interval", "end"), "comm": ("a\x1b[31m", "ü" * 90, "sh")}


def values(table: str, name: str, dtype: str) -> st.SearchStrategy[Any]:
    """Anything that a column can hold."""
    told: st.SearchStrategy[Any]
    if dtype == "category":
        words = HOW if name == "how" else NODE_END if table == "stable_pages" else END
        return st.sampled_from(words)
    if dtype == "string":
        told = st.sampled_from(_WORDS[name]) if name in _WORDS else st.text(max_size=13)
    elif dtype in ("bool", "boolean"):
        told = st.booleans()
    elif dtype.lower() == "float64":
        told = st.floats(0, 1e9)
    elif name.endswith("_ns"):
        told = _NS
    elif dtype.lower() == "uint64":
        told = st.integers(0, (1 << 64) - 1)
    elif dtype == "uint32":
        told = st.integers(0, (1 << 32) - 1)
    else:
        told = st.one_of(_SMALL, st.integers(0, (1 << 31) - 1))
    nullable = dtype[0].isupper() or dtype in ("string", "boolean")
    return st.one_of(st.none(), told) if nullable else told


def rows(table: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    columns = {c.name: values(table, c.name, c.dtype) for c in TABLES[table].columns}
    return st.lists(st.fixed_dictionaries(columns), max_size=3)


TIMELINES = st.fixed_dictionaries({name: rows(name) for name in TABLES})
MANIFESTS = st.fixed_dictionaries(
    {
        "cow": st.sampled_from([None, *COW.values()]),
        "duration_s": st.one_of(st.none(), st.floats(0, 1e7)),
        "kernel": st.sampled_from(["6.18.2", "6.12-" + "x" * 90]),
    }
)


@settings(max_examples=40, deadline=None)
@given(TIMELINES, MANIFESTS, st.sampled_from([40, 80, 81, 200]))
def test_no_tables_crash_a_view_and_every_line_fits(
    tables: dict[str, Any], manifest: dict[str, Any], width: int
) -> None:
    run = run_by_hand(manifest, **tables)
    views: list[View] = [strip_chart(run), accounts_view(run), advisor_view(run)]
    views.append(processes_view(run))
    views += [scan_view(run, row) for row in range(len(tables["scans"]))]
    views += [process_view(run, row) for row in range(len(tables["processes"]))]
    views += [ksm_page_view(run, row) for row in range(len(tables["stable_pages"]))]
    regions = pd.RangeIndex(len(tables["region_ledger"])).to_numpy()
    views += [regions_view(run, regions), *(regions_view(run, regions[n : n + 1]) for n in regions)]
    if tables["pages"]:
        views.append(page_view(run, pd.RangeIndex(len(tables["pages"])).to_numpy(), 0x7000))
    for view in views:
        assert all(cell_len(line) <= width for line in shown(view, width).split("\n"))
        json.loads(view.as_json())
        assert view.as_csv()


def test_a_million_lives_are_drawn_without_a_look_at_each() -> None:
    few = small_run().tables
    pages = few.pages.iloc[np.tile(np.arange(7), 150_001)].reset_index(drop=True)
    text = shown(strip_chart(run_of_frames(Frames(**{**few.__dict__, "pages": pages}))))
    assert "750,005 joined" in " ".join(text.split())
