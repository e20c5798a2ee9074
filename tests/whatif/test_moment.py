"""A moment scanned by both engines, and read from recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.inspect.estimate.savings import pages_saved
from ksmtrace.kernel.costs import DEFAULT
from ksmtrace.kernel.releases import profile
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.whatif import loading
from ksmtrace.whatif.moment import Moment, read_moment
from ksmtrace.whatif.passes import Passes, saved, scan
from tests.support.moments import moment

RECORDINGS = Path(__file__).parents[2] / "recordings"


def scanned(one: Moment, kernel: str = "6.18", most: int = 30, **knobs: str) -> Passes:
    return scan(one, profile(kernel), f"ksm:{kernel}", knobs, DEFAULT, most=most)


@settings(max_examples=67, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 7), max_size=23), min_size=1, max_size=5),
    st.sampled_from([2, 3, 5, 256]),
)
def test_what_a_snapshot_saves_is_what_the_estimate_reckons(
    contents: list[list[int]], limit: int
) -> None:
    done = scanned(moment(contents), max_page_sharing=str(limit))
    everything = [content for held in contents for content in held]
    if not everything:
        assert done.done == []
        return
    sizes = np.unique(np.array(everything, np.int64), return_counts=True)[1]
    assert done.converged
    assert saved(done.done[-1].counters) == int(pages_saved(sizes, limit).sum())


@settings(max_examples=37, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=29), min_size=1, max_size=4),
    st.integers(0, 11),
    st.sampled_from(["2011", "4.19", "6.6", "6.12", "6.18"]),
    st.lists(st.integers(0, 40), max_size=12),
)
def test_both_engines_say_the_same_of_a_moment(
    contents: list[list[int]], changing: int, kernel: str, forked: list[int]
) -> None:
    one = moment(contents, changing)
    for page in forked:
        # Pages of two processes that are equal may be one frame, shared by fork.
        if 0 < page < len(one) and one.contents[page] == one.contents[page - 1]:
            one.frames[page] = one.frames[page - 1]
    runs = [
        scan(one, profile(kernel), kernel, {}, DEFAULT, engine=engine, most=14)
        for engine in ("readable", "fast")
    ]
    assert [each.counters for each in runs[0].done] == [each.counters for each in runs[1].done]
    assert [each.visits[-1] for each in runs[0].done] == [each.visits[-1] for each in runs[1].done]
    assert runs[0].converged == runs[1].converged


def test_the_work_of_both_engines_costs_nearly_the_same() -> None:
    dice = np.random.default_rng(3)
    held = [dice.integers(1, 3000, 4001).tolist() for _ in range(2)]
    ns = [
        [
            each.cpu_ns[-1]
            for each in scan(
                moment(held), profile("6.18"), "6.18", {}, DEFAULT, engine=engine, most=4
            ).done
        ]
        for engine in ("readable", "fast")
    ]
    for readable, fast in zip(*ns, strict=True):
        assert fast == pytest.approx(readable, rel=0.15)


def test_zero_pages_are_saved_wholly_where_the_knob_says_so() -> None:
    one = moment([[0, 0, 0, 5, 5]])
    last = scanned(one, use_zero_pages="1").done[-1].counters
    assert last["ksm_zero_pages"] == 3
    assert saved(last) == 4
    assert saved(scanned(one).done[-1].counters) == 3


def test_pages_that_change_never_merge() -> None:
    done = scanned(moment([[5, 5, 5, 6, 6, 6]], changing=2))
    assert saved(done.done[-1].counters) == 2
    assert done.done[-1].counters["pages_volatile"] == 2


def test_a_kernel_without_a_knob_takes_the_snapshot_all_the_same() -> None:
    done = scanned(moment([[5, 5, 5]]), kernel="3.8")
    assert saved(done.done[-1].counters) == 2
    with pytest.raises(KsmtraceError) as told:
        scanned(moment([[5, 5]]), kernel="3.8", smart_scan="1")
    assert told.value.exit_code == Exit.USAGE


def test_the_limit_of_scans_is_kept() -> None:
    done = scanned(moment([[5, 5, 5]]), most=2)
    assert len(done.done) == 2
    assert not done.converged


def test_smart_scan_does_not_end_it_too_early() -> None:
    done = scanned(moment([[5, 6, 7]]), most=60, smart_scan="1")
    assert done.converged
    assert len(done.done) > 10


def test_memory_that_would_not_fit_is_refused_before_anything_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "read_text", lambda _path: "MemAvailable: 300000 kB\n")
    with pytest.raises(KsmtraceError, match=r"3 pages take .* are free"):
        scanned(moment([[5, 5, 5]]))


def test_ctrl_c_keeps_what_is_done() -> None:
    def interrupt(number: int, _pages: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    done = scan(moment([[5, 5, 5]]), profile("6.18"), "ksm:6.18", {}, DEFAULT, progress=interrupt)
    assert done.partial
    assert not done.converged
    assert len(done.done) == 2


@pytest.mark.parametrize("name", ["convergence", "demo", "python"])
def test_a_recording_without_contents_is_refused(name: str) -> None:
    with pytest.raises(KsmtraceError) as told:
        read_moment(StoredRecording(RECORDINGS / f"{name}.ksm"))
    assert told.value.exit_code == Exit.BAD_RECORDING
    assert "estimate --save" in str(told.value.hint)


def test_a_recording_with_many_moments_gives_the_last_and_what_changes() -> None:
    one = read_moment(StoredRecording(RECORDINGS / "volatile-pages.ksm"))
    assert len(one) == 137
    assert one.changing.sum() == 62
    done = scanned(one)
    assert done.done[-1].counters["pages_sharing"] == 43
