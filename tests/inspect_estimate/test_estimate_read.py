from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ksmtrace.errors import KsmtraceError
from ksmtrace.inspect.estimate import read
from ksmtrace.inspect.estimate.read import HowToRead, read_memory
from ksmtrace.kernel.sysfs import read_ksm_stat
from ksmtrace.processes.identity import Identity, identify
from ksmtrace.processes.regions import all_regions

_CHILD = """
import mmap, sys
m = mmap.mmap(-1, 1009 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m.madvise(15)
for n in range(1009):
    m[n * 4096] = 0 if n < 503 else 1
print("ready", flush=True); sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def at_the_usual_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "nice", lambda _more: 0)


@pytest.fixture
def child() -> Iterator[Identity]:
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        # It goes on to wait, which may touch a page of its stack.
        time.sleep(0.2)
        found = identify(process.pid)
        assert found is not None
        yield found
        process.stdin.close()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("pages", [7, 100, 1 << 16])
def test_how_work_is_split_makes_no_difference(
    child: Identity, monkeypatch: pytest.MonkeyPatch, jobs: int, pages: int
) -> None:
    whole = read_memory([child], HowToRead(interval=None, keep_numbers=True))
    monkeypatch.setattr(read, "PART_PAGES", pages)
    parts = read_memory([child], HowToRead(interval=None, jobs=jobs, keep_numbers=True))
    assert parts.digests.tolist() == whole.digests.tolist()
    assert parts.bounds.tolist() == whole.bounds.tolist()
    assert parts.tally() == whole.tally()
    assert parts.numbers is not None
    assert whole.numbers is not None
    assert parts.numbers.tolist() == whole.numbers.tolist()


def test_each_regions_pages_are_in_one_count_each(child: Identity) -> None:
    sample = read_memory([child], HowToRead(interval=0.001))
    for region in sample.regions:
        assert region.tally.pages == (region.end - region.start) // 4096
    assert sum(region.tally.candidates for region in sample.regions) >= 1009


def test_zero_filled_pages_that_a_sample_keeps_stay_within_the_memory_allowed(
    child: Identity,
) -> None:
    how = HowToRead(fraction=0.01, interval=None, max_bytes=200 * read.BYTES_A_PAGE)
    with pytest.raises(KsmtraceError, match="--max-memory") as caught:
        read_memory([child], how)
    assert caught.value.hint is not None
    assert "zero-filled" in caught.value.hint


def test_what_is_not_reached_in_time_is_late_and_told(
    child: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "PART_PAGES", 11)
    sample = read_memory([child], HowToRead(interval=None, process_seconds=1e-9))
    assert sample.processes[0].trouble is not None
    assert "--process-seconds" in sample.processes[0].trouble
    assert sample.tally().late > 900
    for region in sample.regions:
        assert region.tally.pages == (region.end - region.start) // 4096


def test_a_process_that_went_before_it_was_looked_at_is_told(child: Identity) -> None:
    gone = Identity(1 << 30, 1, 7, "gone", None, None, None)
    sample = read_memory([child, gone], HowToRead(interval=None))
    assert [process.trouble for process in sample.processes] == [None, "went away"]


def test_of_a_process_that_opted_in_as_a_whole_only_what_is_registered_counts(
    child: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(region.mergeable for region in all_regions(child.tgid))
    counters = {**(read_ksm_stat(child.tgid) or {}), "ksm_merge_any": 1}
    monkeypatch.setattr(read, "read_ksm_stat", lambda _tgid: counters)
    sample = read_memory([child], HowToRead(interval=None))
    assert sample.tally().candidates == 0
    assert {region.bar for region in sample.regions} >= {"unregistered"}
