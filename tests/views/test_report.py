from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.recordings import FACTS

from ksmtrace.processes.identity import clean
from ksmtrace.timeline.summary import ProcessSummary, Scan, Summary, Tally
from ksmtrace.views.report import render_report

SECOND = 1_000_000_000


def manifest(**changes: Any) -> dict[str, Any]:
    return {**FACTS, "notes": [], **changes}


def empty_summary(**changes: Any) -> Summary:
    return Summary(manifest=manifest(**changes), ended="duration", duration_s=0.0)


def normal_summary(**changes: Any) -> Summary:
    summary = Summary(
        manifest=manifest(command="python3", command_status=0, **changes),
        ended="command",
        duration_s=61.7,
        sampled_s=61.7,
        events=1_234_567,
        totals=Tally(504_001, 1009, 307, 13, 1013),
        stable_pages_removed=17,
        failures={"ksm_merge_with_ksm_page": {-14: 11}, "ksm_merge_one_page": {-14: 2}},
        counters_first={"pages_shared": 0, "pages_sharing": 7, "ksmd_cpu_ns": 0},
        counters_last={"pages_shared": 1013, "pages_sharing": 503_000, "ksmd_cpu_ns": 7 * SECOND},
        advisor=[{"scan_time": 7, "cpu_percent": 61, "pages_to_scan": 5003, "ts_ns": 1}] * 11,
    )
    summary.scans = [
        Scan(
            merges=1009 * number,
            seq=number,
            start_ns=number * SECOND,
            end_ns=number * SECOND + 700_000_000,
            rmap_items=504_001,
            pages_saved=101 * number - 503,
        )
        for number in range(23)
    ]
    summary.processes = [
        ProcessSummary(
            merges=30_011,
            tgid=40_009 + number,
            comm=f"qemu-system-{number}",
            ksm_rmap_items=30_011,
            ksm_merging_pages=30_011,
            ksm_process_profit=-40_961 * number,
        )
        for number in range(29)
    ]
    return summary


def printed(summary: Summary, *, width: int = 80, color: bool = False) -> str:
    console = Console(
        width=width, highlight=False, force_terminal=color, color_system=None, legacy_windows=False
    )
    with console.capture() as capture:
        console.print(render_report(summary))
    return capture.get()


def lossy_summary() -> Summary:
    summary = normal_summary(
        fields_unknown=["addr", "tgid", "via", "parent_tgid", "first_sight", "mapcount"],
        backend="tracefs",
        backend_why="the best that works here (core: the kernel has no BTF"
        " (/sys/kernel/btf/vmlinux is missing); bcc: bcc finds no kernel headers)",
        knobs_set={"run": "1", "pages_to_scan": "5003", "advisor_mode": "none"},
        notes=["no census: /proc/kpageflags can't be read: run as root on another kernel"],
    )
    summary.lost = 1_000_003
    summary.totals.inherited = None
    summary.ended = "cut"
    return summary


@pytest.mark.parametrize("make", [empty_summary, normal_summary, lossy_summary])
def test_a_report_fits_80_columns(make: Any) -> None:
    lines = printed(make()).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert len(lines) > 7


def test_an_empty_recording_has_a_report() -> None:
    text = printed(empty_summary())
    assert "none lost" in text
    assert "ended by duration" in text


def row_of(text: str, word: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(word))


def test_a_normal_recording_is_told_in_numbers() -> None:
    text = printed(normal_summary())
    assert "1,234,567, none lost" in row_of(text, "events")
    assert "504,001" in row_of(text, "merges")
    assert "307 of them inherited" in row_of(text, "merges")
    assert "11 × Bad address (EFAULT)" in text
    assert "python3, ended with status 0" in row_of(text, "command")
    assert "11.3 % of one core" in row_of(text, "ksmd CPU")
    assert "+502,993" in row_of(text, "pages_sharing")


def test_losses_and_a_killed_recorder_are_told_loudly() -> None:
    text = printed(lossy_summary())
    assert "1,000,003 LOST" in text
    assert "CUT: the recorder was killed" in text
    assert "(the backend can't see them)" in " ".join(text.split())
    assert "note: no census" in text


def test_an_error_that_ended_it_is_told() -> None:
    summary = empty_summary()
    summary.ended = "error: no space left"
    assert "ended by an error: no space left" in printed(summary)


def scan_rows(text: str) -> list[list[str]]:
    """The cells of the scans' table, a list a row."""
    lines = text[text.index("full scans (") :].splitlines()
    rows = [line.replace(" ms", "ms").replace(" s ", "s ").split() for line in lines[2:]]
    return list(itertools.takewhile(len, rows))


def test_many_scans_take_few_rows_and_none_is_left_out() -> None:
    summary = normal_summary()
    for scan in summary.scans:
        scan.merges = 5 if scan.seq not in (7, 8, 19) else 100_003 + scan.seq
    rows = scan_rows(printed(summary))
    assert [row[0] for row in rows] == ["0–6", "7", "8", "9–18", "19", "20–22"]
    assert [row[3] for row in rows] == ["35", "100,010", "100,011", "50", "100,022", "15"]


def test_few_scans_take_a_row_each_in_order_of_time() -> None:
    summary = normal_summary()
    del summary.scans[7:]
    assert [row[0] for row in scan_rows(printed(summary))] == [str(n) for n in range(7)]


def test_scans_that_count_from_zero_again_begin_a_new_row() -> None:
    summary = normal_summary()
    for scan in summary.scans:
        scan.merges = 0
        scan.seq %= 17
    assert [row[0] for row in scan_rows(printed(summary))] == ["0–16", "0–5"]


@given(st.lists(st.tuples(st.integers(0, 17), st.sampled_from([0, 0, 5, 1009])), max_size=43))
def test_however_scans_are_put_together_their_merges_add_up(scans: list[tuple[int, int]]) -> None:
    summary = empty_summary()
    summary.scans = [Scan(seq=seq, merges=merges) for seq, merges in scans]
    rows = scan_rows(printed(summary)) if scans else []
    assert sum(int(row[3].replace(",", "")) for row in rows) == sum(n for _, n in scans)


def test_a_scan_that_was_cut_says_so_and_what_is_not_known_is_a_dash() -> None:
    summary = empty_summary()
    summary.scans = [Scan(seq=3, merges=7)]
    assert row_of(printed(summary), "3").split() == ["3", "partly", "–", "7", "0", "0", "–", "–"]


def test_what_is_not_known_of_a_process_is_a_dash() -> None:
    summary = empty_summary()
    summary.processes = [ProcessSummary(tgid=7, merges=5), ProcessSummary(merges=3)]
    text = printed(summary)
    assert row_of(text, "7").split() == ["7", "–", "5", "0", "0", "–", "–", "–"]
    assert row_of(text, "unknown").split() == ["unknown", "–", "3", "0", "0", "–", "–", "–"]


def test_inheritance_and_counters_that_are_not_known_are_dashes() -> None:
    summary = empty_summary(memory_bytes=None)
    summary.totals.inherited = None
    summary.counters_first = {"pages_shared": None, "pages_skipped": None, "full_scans": 0}
    summary.counters_last = {"pages_shared": 7, "pages_skipped": None, "full_scans": 0}
    text = printed(summary)
    assert "– of them inherited" in text
    assert row_of(text, "pages_shared").split() == ["pages_shared", "–", "7", "–"]
    assert row_of(text, "full_scans").split() == ["full_scans", "0", "0", "+0"]
    assert "pages_skipped" not in text
    assert "None" not in text


def test_names_make_room_for_numbers() -> None:
    summary = normal_summary()
    for process in summary.processes:
        process.comm = "a-process-with-a-long-name"
    text = printed(summary)
    heads = text[text.index("processes (29)") :].splitlines()[1]
    assert heads.split()[0] == "process"
    assert heads.split()[-4:] == ["merged", "now", "saved", "profit"]
    for number in range(15):
        row = row_of(text, str(40_009 + number))
        assert row.count("30,011") == 2
        assert row.count("…") <= 1
        assert row.rstrip().endswith(" KiB" if number else " 0 B")


def test_the_numbers_of_a_large_host_are_shown_whole() -> None:
    summary = normal_summary()
    summary.processes = [
        ProcessSummary(
            merges=12_345_679,
            zero_merges=1_234_577,
            failed_merges=10_007,
            tgid=4_194_301,
            vm="a-virtual-machine-with-a-long-name",
            ksm_merging_pages=12_345_701,
            ksm_process_profit=47 << 30,
        )
    ]
    summary.scans = [
        Scan(
            merges=12_345_679,
            zero_merges=1_234_577,
            failed_merges=10_007,
            seq=1009,
            start_ns=SECOND,
            end_ns=1009 * SECOND,
            rmap_items=268_435_459,
            pages_saved=12_345_701,
        )
    ]
    text = printed(summary)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "4194301" in text
    row = row_of(text, "4194301")
    for number in ("12,345,679", "1,234,577", "10,007", "12,345,701", "47.1 GiB", "47.0 GiB"):
        assert number in row
    row = row_of(text, "1009")
    for number in ("268,435,459", "12,345,679", "1,234,577", "10,007", "+12,345,701"):
        assert number in row


MARKUP = "[red]x[/red]"
HOSTILE = [
    MARKUP,
    "[/]",
    "[link=http://a]b",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;owned\x07",
    "a\nb\rc",
    "\u202egnp.exe",
    "\u05d0\u05d1\u05d2",
    "\u009b31m",
]


def with_name(hostile: str) -> Summary:
    summary = normal_summary()
    summary.processes[0].comm = hostile
    summary.processes[1].vm = hostile
    summary.processes[1].cgroup = hostile
    return summary


def harmless(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_that_a_recorder_stores_are_shown_and_never_obeyed(hostile: str) -> None:
    stored = clean(hostile)
    text = printed(with_name(stored), color=True)
    assert harmless(text)
    assert stored[:7] in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert len(text.splitlines()) == len(printed(normal_summary()).splitlines())


def test_names_in_a_foreign_recording_are_never_obeyed() -> None:
    obeyed = [raw for raw in HOSTILE if not harmless(printed(with_name(raw), color=True))]
    assert obeyed == []


WORDS = {
    "kernel": "6.18.2-{}",
    "backend": "{}",
    "backend_why": "{}",
    "command": "{}",
    "notes": ["{}"],
    "fields_unknown": ["{}"],
    "knobs_set": {"run": "{}"},
}


def filled(value: Any, word: str) -> Any:
    if isinstance(value, str):
        return value.format(word)
    if isinstance(value, list):
        return [filled(inner, word) for inner in value]
    return {key: filled(inner, word) for key, inner in value.items()}


@pytest.mark.parametrize("key", WORDS)
def test_no_word_of_a_manifest_steers_the_terminal(key: str) -> None:
    words = [raw for raw in HOSTILE if not raw.startswith("[")]
    summaries = {raw: empty_summary(**{key: filled(WORDS[key], raw)}) for raw in words}
    assert [raw for raw in words if not harmless(printed(summaries[raw], color=True))] == []


@pytest.mark.parametrize("key", WORDS)
def test_no_word_of_a_manifest_is_markup(key: str) -> None:
    for word in ("[red]x", "[none] scan-time", "[link=http://a]b", "[/]"):
        assert word in printed(empty_summary(**{key: filled(WORDS[key], word)}))


@given(st.text(st.characters(codec="utf-8"), max_size=31))
def test_any_name_that_a_recorder_stores_can_be_shown(raw: str) -> None:
    text = printed(with_name(clean(raw)), color=True)
    assert harmless(text)


def told(summary: Summary, shared: pd.DataFrame | None = None) -> list[str]:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        console.print(render_report(summary, shared=shared))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    return lines


def pages_shared(names: list[str], pages: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame(pages, index=pd.Index(names), columns=pd.Index(names))


def test_virtual_machines_are_told_with_what_each_two_share_most_first() -> None:
    names = ["alpha", "beta", "gamma"]
    shared = pages_shared(names, [[5003, 1009, 7], [1009, 4001, 2003], [7, 2003, 3001]])
    lines = told(normal_summary(), shared)
    begin = next(n for n, line in enumerate(lines) if "shared by virtual machines (3)" in line)
    assert [line.split()[:3] for line in lines[begin + 2 : begin + 5]] == [
        ["beta", "gamma", "2,003"],
        ["alpha", "beta", "1,009"],
        ["alpha", "gamma", "7"],
    ]


def test_of_many_virtual_machines_only_those_that_share_most_are_told() -> None:
    many = 101
    shared = pages_shared([f"guest-{n}" * 9 for n in range(many)], [[13] * many] * many)
    assert any("--sharing vm" in line for line in told(normal_summary(), shared))


@pytest.mark.parametrize("shared", [None, pages_shared([], []), pages_shared(["one"], [[7]])])
def test_nobody_s_sharing_is_told_without_two_machines(shared: pd.DataFrame | None) -> None:
    assert not any("shared by" in line for line in told(normal_summary(), shared))


def test_a_run_of_the_lab_is_told_with_its_title() -> None:
    lab = {"scenario": 'title = "Why two\\u001b scans"\n[[step]]\nscan = 1\n'}
    (line,) = [line for line in told(empty_summary(lab=lab)) if line.startswith("scenario")]
    assert line.split(maxsplit=1)[1].strip() == "Why two\\x1b scans"


@pytest.mark.parametrize("lab", [None, {}, [], {"scenario": 7}, {"scenario": "title = ["},
                                 {"scenario": "title = 7"}, {"scenario": "x = 1"}])  # fmt: skip
def test_a_title_that_is_none_is_left_out(lab: Any) -> None:
    assert not any(line.startswith("scenario") for line in told(empty_summary(lab=lab)))


def test_one_cpu_is_not_several() -> None:
    assert "1 CPU," in told(empty_summary(cpus=1))[0]
    assert "3 CPUs," in told(empty_summary(cpus=3))[0]
