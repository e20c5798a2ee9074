"""A snapshot scanned by the reference scanner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.inspect.estimate.savings import pages_saved
from ksmtrace.kernel.releases import profile
from ksmtrace.model.content import ZERO
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.moment import Moment, read_moment, saved, scan_moment

RECORDINGS = Path(__file__).parents[2] / "recordings"
KNOBS = {"smart_scan": "0", "max_page_sharing": "256", "use_zero_pages": "0"}


def moment(contents: list[list[int]], **knobs: str) -> Moment:
    """A moment of processes with these contents, 0 is the zero page, each in a frame of its own."""
    pages, frame = {}, 1
    for tgid, held in enumerate(contents, 11):
        for number, content in enumerate(held):
            pages[tgid, (256 + number) * 4096] = (content, frame)
            frame += 1
    regions = {
        tgid: [(256 * 4096, (256 + len(held)) * 4096)]
        for tgid, held in enumerate(contents, 11)
        if held
    }
    stands_for = {n: n.to_bytes(8, "big").rstrip(b"\0") if n else ZERO for n in range(100)}
    return Moment(pages, regions, stands_for, KNOBS | knobs)


@settings(max_examples=67, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 7), max_size=23), min_size=1, max_size=5),
    st.sampled_from([2, 3, 5, 256]),
)
def test_what_a_snapshot_saves_is_what_the_estimate_reckons(
    contents: list[list[int]], limit: int
) -> None:
    run = scan_moment(
        moment(contents), profile("6.18"), "ksm:6.18", {"max_page_sharing": str(limit)}, 30
    )
    everything = [content for held in contents for content in held]
    sizes = np.unique(np.array(everything, np.int64), return_counts=True)[1]
    reckoned = int(pages_saved(sizes, limit).sum())
    assert (run.pages, run.processes) == (len(everything), sum(1 for held in contents if held))
    if not everything:
        assert run.scans == []
        return
    assert run.converged
    assert saved(run.scans[-1]) == reckoned


def test_zero_pages_are_saved_wholly_where_the_knob_says_so() -> None:
    one = moment([[0, 0, 0, 5, 5]])
    run = scan_moment(one, profile("6.18"), "ksm:6.18", {"use_zero_pages": "1"}, 30)
    assert run.scans[-1]["ksm_zero_pages"] == 3
    assert saved(run.scans[-1]) == 4
    assert saved(scan_moment(one, profile("6.18"), "ksm:6.18", {}, 30).scans[-1]) == 3


def test_a_kernel_without_a_knob_takes_the_snapshot_all_the_same() -> None:
    run = scan_moment(moment([[5, 5, 5]]), profile("3.8"), "ksm:3.8", {}, 30)
    assert saved(run.scans[-1]) == 2
    with pytest.raises(KsmtraceError) as told:
        scan_moment(moment([[5, 5]]), profile("3.8"), "ksm:3.8", {"smart_scan": "1"}, 30)
    assert told.value.exit_code == Exit.USAGE


def test_the_limit_of_scans_is_kept() -> None:
    run = scan_moment(moment([[5, 5, 5]]), profile("6.18"), "ksm:6.18", {}, 2)
    assert len(run.scans) == 2
    assert not run.converged


def test_smart_scan_does_not_end_it_too_early() -> None:
    run = scan_moment(moment([[5, 6, 7]]), profile("6.18"), "ksm:6.18", {"smart_scan": "1"}, 60)
    assert run.converged
    assert len(run.scans) > 10


@pytest.mark.parametrize("name", ["first-merges", "demo", "linux-6.1"])
def test_a_recording_that_is_no_snapshot_is_refused(name: str) -> None:
    with pytest.raises(KsmtraceError) as told:
        read_moment(StoredRecording(RECORDINGS / f"{name}.ksm"))
    assert told.value.exit_code == Exit.BAD_RECORDING
    assert "estimate --save" in str(told.value.hint)
