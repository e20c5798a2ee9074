"""Every backend against truth: a workload of known content, and sysfs."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from ksmtrace.capture.choose import SOURCES
from ksmtrace.events.batch import concatenate
from ksmtrace.events.registry import KSM_MERGE_WITH_KSM_PAGE
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import KSM
from ksmtrace.recording.reader import StoredRecording
from tests.live.conftest import Actor, Recorder, run_ksmtrace

# `fentry` is for kernels without tracepoints: tests/kernels tries it.
HERE = [name for name in SOURCES if name != "fentry"]

# 11 contents shared within and across, 7 zero pages, pages of their own: all counts prime.
SHARED = [100 + content for content in range(11) for _ in range(13)]
FIRST = SHARED + [0] * 7 + [1000 + number for number in range(17)]
SECOND = SHARED[:101] + [0] * 5 + [2000 + number for number in range(19)]


def expected(actors: list[Actor]) -> set[tuple[int, int]]:
    """(tgid, address) of every page whose content occurs twice at least."""
    places: dict[int, list[tuple[int, int]]] = {}
    for one in actors:
        for number, content in enumerate(one.contents):
            places.setdefault(content, []).append((one.pid, one.address(number)))
    return {place for same in places.values() if len(same) > 1 for place in same}


@pytest.mark.parametrize("backend", HERE)
def test_recorded_merges_equal_sysfs_and_every_page_is_right(
    backend: str,
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    record: Callable[..., Recorder],
    counters: Callable[[], dict[str, int]],
) -> None:
    recorder = record("--backend", backend)
    actors = [actor(FIRST), actor(SECOND)]
    ksmd.scan(3)
    now = counters()
    assert recorder.end() == 0, recorder.words()

    report = json.loads(run_ksmtrace("report", recorder.target, "--json").stdout)
    places = expected(actors)
    assert now["pages_shared"] + now["pages_sharing"] == len(places)
    assert report["totals"]["merges"] == len(places)
    assert report["totals"]["failed_merges"] == 0
    assert report["totals"]["stable_pages_created"] == now["pages_shared"] == 12
    assert report["lost"] == 0
    assert report["counters_last"]["pages_sharing"] == now["pages_sharing"]
    assert [scan["seq"] for scan in report["scans"]] == [0, 1, 2]

    recording = StoredRecording(recorder.target)
    events = concatenate(list(recording.event_batches()))
    merges = events[events["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
    if backend == "tracefs":
        assert report["totals"]["inherited"] is None
        assert not merges["addr"].any()
        # Both actors registered while we looked, so ksm_enter proves both owners.
        assert set(merges["tgid"].tolist()) == {one.pid for one in actors}
    else:
        assert report["totals"]["inherited"] == 0
        pairs = list(zip(merges["tgid"].tolist(), merges["addr"].tolist(), strict=True))
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == places

    census = recording.table("census").to_pandas()
    census = census[census["reason"] == "end"]
    assert set(zip(census["tgid"], census["addr"], strict=True)) == places
    assert census["pfn"].nunique() == now["pages_shared"]
    # The census names frames as the events do.
    assert set(census["pfn"]) == set(merges["pfn"].tolist())


@pytest.mark.parametrize("backend", [name for name in HERE if name != "tracefs"])
def test_a_fork_that_shares_merged_pages_is_told_from_merging(
    backend: str,
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    record: Callable[..., Recorder],
) -> None:
    recorder = record("--backend", backend)
    parent = actor([500] * 23)
    ksmd.scan(2)
    # A shell's fork does as well: the actor itself forks through its interpreter's os.fork.
    parent.do("fork")
    ksmd.scan(1)
    recorder.end()
    report = json.loads(run_ksmtrace("report", recorder.target, "--json").stdout)
    assert report["totals"]["merges"] == 2 * 23
    assert report["totals"]["inherited"] == 23
    by_tgid = {process["tgid"]: process for process in report["processes"]}
    child = next(tgid for tgid in by_tgid if tgid not in (0, parent.pid))
    assert by_tgid[parent.pid]["inherited"] == 0
    assert by_tgid[child]["inherited"] == by_tgid[child]["merges"] == 23
    assert by_tgid[child]["comm"] == by_tgid[parent.pid]["comm"]


@pytest.mark.parametrize(("twin_first", "inherited"), [(True, None), (False, 0)])
def test_whether_a_page_shared_by_fork_is_inherited_cant_be_told_if_its_frame_became_the_ksm_page(
    twin_first: bool,
    inherited: int | None,
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    record: Callable[..., Recorder],
) -> None:
    recorder = record("--backend", "core")
    # ksmd visits in order of registration, and the page it visits second becomes the KSM page.
    if twin_first:
        actor([500, 777])
    parent = actor([500])
    parent.do("fork")
    if not twin_first:
        actor([500, 777])
    ksmd.scan(4)
    recorder.end()
    report = json.loads(run_ksmtrace("report", recorder.target, "--json").stdout)
    assert report["totals"]["merges"] == 3
    assert report["totals"]["inherited"] == inherited
    assert report["counters_last"]["pages_sharing"] == 2


def test_zero_pages_are_counted_apart(
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    record: Callable[..., Recorder],
    counters: Callable[[], dict[str, int]],
) -> None:
    (KSM / "use_zero_pages").write_text("1")  # the stepper restores it
    recorder = record()
    zeros = actor([0] * 29 + [7, 7, 7])
    ksmd.scan(2)
    assert counters()["ksm_zero_pages"] == 29
    recorder.end()
    report = json.loads(run_ksmtrace("report", recorder.target, "--json").stdout)
    assert report["totals"]["zero_merges"] == 29
    assert report["totals"]["merges"] == 3
    mine = next(p for p in report["processes"] if p["tgid"] == zeros.pid)
    assert mine["zero_merges"] == mine["ksm_zero_pages"] == 29


def test_batches_hold_what_numpy_says_they_hold(
    ksmd: Stepper, actor: Callable[[list[int]], Actor], record: Callable[..., Recorder]
) -> None:
    recorder = record()
    actor([9] * 31)
    ksmd.scan(2)
    recorder.end()
    events = concatenate(list(StoredRecording(recorder.target).event_batches()))
    assert (np.diff(events["ts"].astype(np.int64)) >= 0).all()
    assert set(events["cpu"].tolist()) <= set(range(64))
