"""Each recording of the library shows what it says it shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from library.declared import LIBRARY
from library.readme import RECORDINGS, path_of

import ksmtrace
from ksmtrace.frames import Recording
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.build import timeline_of
from ksmtrace.timeline.sharing import sharing


def recording(name: str) -> Recording:
    return ksmtrace.open(RECORDINGS / f"{name}.ksm")


def host_samples(name: str) -> pd.DataFrame:
    counters = recording(name).counters
    return counters[counters["tgid"].isna()].sort_values("ts")


def knob_at(name: str, knob: str, ts: pd.Series) -> list[str]:
    """A knob as the latest sample of the host before each moment has it."""
    samples = host_samples(name)
    places = np.searchsorted(samples["ts"].to_numpy(np.uint64), ts.to_numpy(np.uint64)) - 1
    return samples[f"knob_{knob}"].iloc[places].tolist()


def test_every_recording_has_a_test_of_what_it_shows() -> None:
    tested = {name.removeprefix("test_").partition("__")[0] for name in globals()}
    declared = {d.name.translate(str.maketrans("-.", "__")) for d in LIBRARY if path_of(d).is_dir()}
    assert declared - tested == set()


def test_first_merges__nothing_merges_in_its_first_scan_and_late_comers_join() -> None:
    rec = recording("first-merges")
    mail, web, db = rec.processes.index
    pages = rec.pages
    assert (pages["scans_waited"] >= 1).all()
    first = {
        process: pages[pages["process"] == process]["scan"].min() for process in (mail, web, db)
    }
    assert first == {mail: 2, web: 4, db: 8}
    assert (pages[pages["process"] == db]["how"] == "joined").all()
    assert rec.processes["merged_last"].tolist() == [264, 264, 211]


def test_convergence__how_long_each_tenant_took_is_known() -> None:
    processes = recording("convergence").processes
    assert processes["comm"].tolist() == [f"tenant-{number}" for number in range(1, 6)]
    times = processes[["time_to_50_s", "time_to_90_s", "time_to_99_s"]]
    assert times.notna().all(axis=None)
    assert (times.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert processes["merged_last"].tolist() == [750, 750, 750, 750, 499]


def test_smart_scan__pages_are_skipped_in_its_pattern() -> None:
    rec = recording("smart-scan")
    scans = rec.scans
    visited = scans["scan"][scans["pages_scanned"] > 0].tolist()
    assert visited == [1, 2, 3, 4, 6, 9, 14, 23, 32, 41]
    assert (scans["pages_scanned"] + scans["pages_skipped"] == 99).all()
    assert (scans["pages_skipped"] % 99 == 0).all()
    assert rec.pages["scan"].tolist() == [41, 41]


def test_volatile_pages__what_changes_does_not_merge_until_it_rests() -> None:
    rec = recording("volatile-pages")
    by_scan = rec.pages.groupby("scan").size()
    assert by_scan.to_dict() == {2: 44, 10: 62}
    samples = host_samples("volatile-pages").drop_duplicates("full_scans", keep="last")
    volatile = samples.set_index("full_scans")["pages_volatile"]
    assert volatile.loc[2:9].tolist() == [62] * 8
    assert volatile.loc[10] == 0


def test_copy_on_write__every_copy_was_seen_and_three_places_wrote() -> None:
    rec = recording("copy-on-write")
    breaks = rec.breaks
    samples = host_samples("copy-on-write")
    assert len(breaks) == samples["cow_ksm"].iloc[-1] - samples["cow_ksm"].iloc[0] > 0
    assert (rec.pages["end"] == "cow_break").sum() == len(breaks)
    places = breaks.groupby("tgid")[["kernel_mode", "file"]].first()
    assert sorted(places["kernel_mode"]) == [False, False, True]
    assert places["file"].nunique() == 3
    names = rec.processes.set_index("tgid")["comm"]
    assert set(names[breaks["tgid"]]) == {"counter", "copier", "reader"}


def test_sharing_limit__no_page_has_more_sharers_and_a_chain_comes_and_shrinks() -> None:
    rec = recording("sharing-limit")
    pages, samples = rec.stable_pages, host_samples("sharing-limit")
    census = rec.census[rec.census["reason"] == "end"]
    assert census.groupby("pfn").size().max() == 7
    assert (pages["sharers_peak"] == 7).sum() >= 22
    assert samples["stable_node_chains"].max() == 1
    assert samples["stable_node_dups"].max() == 23
    assert 0 < samples["stable_node_dups"].iloc[-1] < 23
    assert (rec.pages["end"] == "exit").any()


def test_zero_pages__they_are_merged_with_the_zero_page_only_while_the_knob_is_on() -> None:
    rec = recording("zero-pages")
    events = rec.events
    zero = events[events["kind"] == "ksm_merge_one_page"]
    assert set(knob_at("zero-pages", "use_zero_pages", zero["ts"])) == {"1"}
    knobs = host_samples("zero-pages")["knob_use_zero_pages"]
    assert knobs[knobs != knobs.shift()].tolist()[:3] == ["0", "1", "0"]
    merged = events[events["kind"] == "ksm_merge_with_ksm_page"]
    assert set(knob_at("zero-pages", "use_zero_pages", merged["ts"])) == {"0", "1"}
    assert len(zero) == (rec.pages["how"] == "zero_page").sum() == 302
    assert rec.accounts["zero_kernel"].max() == 195


def test_fork_and_exit__what_children_inherited_is_told_apart_and_ends_with_them() -> None:
    rec = recording("fork-and-exit")
    processes = rec.processes
    assert processes["inherited"].tolist() == [0, 101, 101, 101, 0]
    assert rec.identities["what"].isin(["enter", "fork"]).sum() >= len(processes)
    assert (rec.pages["end"].value_counts()[["exit", "still_merged"]] == [404, 13]).all()
    assert rec.stable_pages["end"].value_counts()["stale"] == 11
    samples = host_samples("fork-and-exit")
    assert samples["pages_sharing"].max() == 393
    assert samples["cow_ksm"].iloc[-1] - samples["cow_ksm"].iloc[0] == 31


def test_advisor__it_goes_to_its_maximum_and_then_settles_on_another_number() -> None:
    advisor = recording("advisor").advisor
    assert len(advisor) > 10
    assert advisor["agrees"].dropna().all()
    assert advisor["agrees"].notna().sum() >= len(advisor) - 2
    most = advisor["max_pages_to_scan"].iloc[0]
    assert (advisor["pages_to_scan"] == most).any()
    settled = advisor.tail(5)
    assert settled["pages_to_scan"].max() < most / 2
    assert settled["pages_to_scan"].max() < 2 * settled["pages_to_scan"].min()
    assert settled["scan_time_s"].between(3, 5).all()
    assert set(settled["target_scan_time_s"]) == {4}
    scans = recording("advisor").scans
    visited = scans["pages_scanned"].dropna()
    assert len(visited) > 40
    assert set(visited) == {2003, 62002}


def test_unmerge_all__full_scans_begins_again_and_everything_merges_twice() -> None:
    rec = recording("unmerge-all")
    assert rec.scans["seq"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert rec.scans["pages_saved"].tolist() == [0, 370, 370, 370, 370, 0, 370, 370, 370]
    ends = rec.pages["end"].value_counts()
    assert ends["unmerged"] == ends["still_merged"] == 422
    assert rec.stable_pages["end"].value_counts()["unmerged"] == 52


def test_two_guests__both_are_named_and_share_thousands_of_pages() -> None:
    path = RECORDINGS / "two-guests.ksm"
    matrix = sharing(timeline_of(StoredRecording(path)), by="vm")
    assert matrix.index.tolist() == ["guest-a", "guest-b"]
    assert matrix.loc["guest-a", "guest-b"] > 2000
    assert set(recording("two-guests").processes["comm"]) == {"qemu-system-x86"}


def test_two_guests__the_report_names_both_and_what_they_share(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ksmtrace.cli.main import main

    assert main(["report", str(RECORDINGS / "two-guests.ksm")]) == 0
    text = capsys.readouterr().out
    shared = text.partition("shared by virtual machines (2)")[2].splitlines()[2]
    assert shared.split()[:2] == ["guest-a", "guest-b"]
    assert shared.endswith("MiB")


def test_python__five_identical_interpreters_share_what_holds_no_address() -> None:
    rec = recording("python")
    workers = rec.processes[rec.processes["comm"] == "python3"]
    assert len(workers) == 5
    assert (workers["merges"] > 100).all()
    assert workers["exited_ns"].isna().all()
    assert (workers["merged_last"] > 100).all()
    assert (rec.region_ledger["name"] == "[heap]").any()
    assert rec.manifest["command"] == "sh"


def test_node__three_workers_share() -> None:
    rec = recording("node")
    workers = rec.processes[rec.processes["comm"] == "node"]
    assert len(workers) == 3
    assert (workers["merges"] > 100).all()


def test_linux_6_12__it_is_of_that_kernel_and_tells_the_same_story() -> None:
    _same_story_as_here("linux-6.12", "6.12.")


def test_linux_6_1__it_is_of_that_kernel_and_tells_the_same_story() -> None:
    _same_story_as_here("linux-6.1", "6.1.")
    processes = recording("linux-6.1").processes
    forked = processes["parent_tgid"].notna()
    assert forked.sum() == 3
    assert (processes["ksm_merging_pages"].isna() == forked).all()


def _same_story_as_here(name: str, kernel: str) -> None:
    rec = recording(name)
    assert rec.manifest["kernel"].startswith(kernel)
    here = recording("fork-and-exit")
    assert rec.processes["merges"].sum() == here.processes["merges"].sum()


def test_demo__something_of_everything() -> None:
    rec = recording("demo")
    assert set(rec.pages["how"]) >= {"created", "partner", "joined", "inherited", "zero_page"}
    assert len(rec.processes) == 4


def test_analysis__two_tenants_with_writers_and_an_advisor() -> None:
    rec = recording("analysis")
    assert {"/shop", "/reports"} == set(rec.processes["cgroup"].dropna())
    assert len(rec.breaks)
    assert len(rec.advisor)
