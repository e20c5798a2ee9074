"""Where the facts come from: a host's files, and recordings."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from support.batches import batch_of, scan_starts, scan_stops
from support.compared import small_recording
from support.hard_streams import CUT_BY_A_LOSS, MS, as_imported, counted, one_a_ms
from support.recordings import BEGIN, SECOND, change_manifest, host_sample, make_recording

from ksmtrace.inspect.advise.answer import answer
from ksmtrace.inspect.advise.domains import shared_by
from ksmtrace.inspect.advise.facts import Series
from ksmtrace.inspect.advise.from_host import scans_in, watch
from ksmtrace.inspect.advise.from_recording import facts_of_recording
from ksmtrace.kernel.host import meminfo
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.views.advise import render_answer
from tests.cli.test_hard_recordings import HARD

RECORDINGS = Path(__file__).parents[2] / "recordings"


def told(path: Path) -> tuple[dict[str, Any], str]:
    """The JSON, and the page on one line."""
    found = answer(facts_of_recording(StoredRecording(path)))
    out = io.StringIO()
    Console(file=out, width=80, highlight=False).print(render_answer(found))
    assert max(map(cell_len, out.getvalue().splitlines())) <= 80
    as_json: dict[str, Any] = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    return as_json, " ".join(out.getvalue().split())


def ids(as_json: dict[str, Any]) -> list[str]:
    return [one["id"] for one in as_json["advice"]]


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*.ksm")), ids=lambda p: p.stem)
def test_every_recording_that_comes_with_ksmtrace_gives_a_page(path: Path) -> None:
    as_json, page = told(path)
    assert as_json["verdict"]["figures"]["saved_pages"] > 0
    assert "nan" not in page.split()
    assert as_json["shared"] is not None


@pytest.mark.parametrize("name", HARD)
def test_a_recording_that_is_hard_to_reconstruct_gives_a_page(tmp_path: Path, name: str) -> None:
    _, page = told(make_recording(tmp_path / "a.ksm", **HARD[name]))
    assert "nan" not in page.split()


def test_two_guests_share_and_are_told_so() -> None:
    as_json, page = told(RECORDINGS / "two-guests.ksm")
    assert "8,244 of 8,266 KSM pages (32.2 MiB) are shared across 2 virtual machines" in page
    assert "guest-b and guest-a: 8,244 pages" in page
    assert "by timing" in page
    by_vm = next(one for one in as_json["shared"] if one["by"] == "vm")
    assert sorted(by_vm["domains"]) == ["guest-a", "guest-b"]
    assert as_json["verdict"]["state"] == "pays"
    assert as_json["verdict"]["figures"]["saved_pages"] == 16_728


def test_copy_on_write_churn_is_named_with_its_writers() -> None:
    as_json, page = told(RECORDINGS / "copy-on-write.ksm")
    assert ids(as_json) == ["churn"]
    assert "558 merged pages were copied" in page
    assert "counter (32182) 186 times, copier (32183) 186 times, reader (32184) 186 times" in page
    assert "mmap.cpython-311" in page


def test_a_demo_whose_workload_has_ended_is_judged_at_its_fullest() -> None:
    as_json, page = told(RECORDINGS / "demo.ksm")
    assert as_json["verdict"]["state"] == "pays"
    assert as_json["verdict"]["figures"]["saved_pages"] == 1_328
    assert "Judged at its fullest" in page
    assert "One cgroup only, /ksm-demo" in page


def test_a_list_that_costs_more_than_is_saved_is_told_with_the_loser() -> None:
    as_json, page = told(RECORDINGS / "advisor.ksm")
    assert ids(as_json) == ["negative_profit", "smart_scan_off"]
    assert as_json["advice"][0]["evidence"]["worst_tgid"] == 11_758
    assert "502 of 62,002 pages merged" in page


def test_the_sharing_limit_is_told_with_the_chain() -> None:
    as_json, page = told(RECORDINGS / "sharing-limit.ksm")
    assert ids(as_json) == ["sharing_limit"]
    evidence = as_json["advice"][0]["evidence"]
    assert (evidence["stable_node_chains"], evidence["stable_node_dups"]) == (1, 14)
    assert "driven scan by scan" in page


def test_a_busy_ksmd_that_finds_nothing_more_is_to_scan_slower() -> None:
    as_json, _ = told(RECORDINGS / "python.ksm")
    assert as_json["verdict"]["state"] == "dear"
    assert ids(as_json)[0] == "scans_too_fast"


def test_figures_are_those_that_diff_has(tmp_path: Path) -> None:
    path = small_recording(tmp_path / "a.ksm")
    figures = told(path)[0]["verdict"]["figures"]
    # 2 s of CPU in 10 s; saved 0 for 4 s and 9 pages for 6 s.
    assert figures["ksmd_percent_of_one_core"] == pytest.approx(20)
    assert figures["saved_mean_bytes"] == pytest.approx(5.4 * 4096)
    assert figures["saved_pages"] == 13
    assert figures["scan_s"] == pytest.approx(2.5)


def test_without_counters_nothing_is_judged(tmp_path: Path) -> None:
    as_json, page = told(make_recording(tmp_path / "a.ksm"))
    assert as_json["verdict"]["state"] == "unknown"
    assert as_json["advice"] == []
    assert as_json["overcommit"]["fits"] is None
    assert "no counters were recorded" in page


def test_an_imported_text_does_not_say_who_shares(tmp_path: Path) -> None:
    batch = as_imported(one_a_ms(CUT_BY_A_LOSS))
    facts = {"fields_unknown": ["tgid", "addr"], "kernel": "unknown", "imported_from": "perf"}
    path = make_recording(tmp_path / "a.ksm", [batch], facts=facts, final={"duration_s": None})
    as_json, page = told(path)
    assert as_json["shared"] is None
    assert "imported text doesn't tell whose pages" in page
    assert "which kernel it was" in page


def test_losses_are_told(tmp_path: Path) -> None:
    path = make_recording(
        tmp_path / "a.ksm", [one_a_ms(CUT_BY_A_LOSS)], tables={"counters": counted(4, 4)}
    )
    lost = facts_of_recording(StoredRecording(path)).unknown
    assert any("lost events" in sentence for sentence in lost)
    assert MS > 0


def test_a_cut_recording_says_so(tmp_path: Path) -> None:
    path = small_recording(tmp_path / "a.ksm")
    change_manifest(path, {"ended": None})
    assert "the recording was cut" in told(path)[1]


def test_copies_that_run_2_made_are_no_churn(tmp_path: Path) -> None:
    def samples(run: str) -> list[dict[str, Any]]:
        return [
            {**host_sample(BEGIN + second * SECOND, cow_ksm=second * 1_009, pages_shared=0,
                           pages_sharing=0), "knob_run": run}
            for second in range(3)
        ]  # fmt: skip

    assert ids(told(make_recording(tmp_path / "a.ksm", tables={"counters": samples("1")}))[0])
    path = make_recording(tmp_path / "b.ksm", tables={"counters": samples("2")})
    assert "churn" not in ids(told(path)[0])


def test_scan_time_is_between_ends_that_were_seen() -> None:
    at = np.arange(0, 10, 0.5)
    # Scans end at 1.5 s, 4.5 s and (two of them) 8.5 s.
    scans = np.searchsorted([1.5, 4.5, 8.5, 8.5], at, "right") + 7.0
    assert scans_in(Series(at, {"full_scans": scans})) == (pytest.approx(7 / 3), 4)
    assert scans_in(Series(at[:4], {"full_scans": scans[:4]})) == (None, 1)
    assert scans_in(Series(at, {"full_scans": scans[::-1]})) == (None, 0)
    assert scans_in(Series(at)) == (None, 0)


def test_watching_samples_both_ends_and_keeps_what_is_absent_absent() -> None:
    samples = itertools.count(1)

    def counters() -> dict[str, int]:
        number = next(samples)
        return {"full_scans": number} if number > 1 else {"full_scans": 1, "gone": 5}

    series = watch(counters, 0.12, lambda _words: None)
    assert series.at_s[0] == 0
    assert series.span_s == pytest.approx(0.12, abs=0.1)
    assert list(series.values("full_scans")) == list(range(1, len(series.at_s) + 1))
    assert series.values("gone")[0] == 5
    assert np.isnan(series.values("gone")[1:]).all()


def test_meminfo_is_read_in_bytes() -> None:
    text = "MemTotal:       1000 kB\nMemAvailable:    617 kB\nHugePages_Total:       7\n"
    assert meminfo(text) == {"MemTotal": 1_024_000, "MemAvailable": 631_808}


@given(st.text())
def test_no_text_hurts_meminfo(text: str) -> None:
    assert all(value >= 0 for value in meminfo(text).values())


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(-1, 4)), max_size=60),
)
def test_sharing_across_domains_is_what_counting_by_hand_gives(
    mappings: list[tuple[int, int]],
) -> None:
    names = ["a", "b", "c", "d", "e"]
    pages = np.array([page for page, _ in mappings], np.uint64)
    domains = np.array([domain for _, domain in mappings], np.int64)
    found = shared_by("cgroup", pages, domains, names, 4096)
    by_page: dict[int, set[int]] = {}
    for page, domain in mappings:
        if domain >= 0:
            by_page.setdefault(page, set()).add(domain)
    assert found.ksm_pages == len(by_page)
    assert found.ksm_pages_across == sum(len(users) > 1 for users in by_page.values())
    expected = {
        frozenset((names[a], names[b])): both
        for a, b in itertools.combinations(range(5), 2)
        if (both := sum({a, b} <= users for users in by_page.values()))
    }
    assert {frozenset((p.one, p.other)): p.ksm_pages for p in found.pairs} == expected
    assert [p.ksm_pages for p in found.pairs] == sorted(expected.values(), reverse=True)
    assert found.domains == tuple(
        names[d] for d in sorted({d for users in by_page.values() for d in users})
    )


def test_scans_of_another_clock_than_the_recordings_have_a_length(tmp_path: Path) -> None:
    rows = [scan_starts(0, BEGIN - 9 * SECOND), scan_stops(0, BEGIN - 6 * SECOND)]
    path = make_recording(tmp_path / "a.ksm", [batch_of(rows)])
    assert facts_of_recording(StoredRecording(path)).scan_s == 3.0
