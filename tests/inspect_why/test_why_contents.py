"""Telling pages with equals apart, against a slow and plain reading of the rules."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.inspect.estimate.sample import MemorySample, SampledProcess, SampledRegion
from ksmtrace.inspect.why import contents
from ksmtrace.inspect.why.contents import sort_out, why_pending
from ksmtrace.inspect.why.host import HostFacts
from ksmtrace.processes.identity import Identity

ME = Identity(11, 1, 5, "me", None, None, None)
SPANS = [(0, 50, 0), (50, 100, 1)]


@dataclass(frozen=True)
class Page:
    content: int
    frame: int


@dataclass(frozen=True)
class Frame:
    """What is true of a frame. Its content decides which pages may be on it."""

    merged: bool
    mappings: int


FRAMES = st.dictionaries(
    st.integers(1, 99), st.builds(Frame, st.booleans(), st.integers(1, 5)), min_size=1, max_size=40
)


@st.composite
def _hosts(draw: st.DrawFn) -> tuple[dict[int, Frame], list[Page]]:
    frames = draw(FRAMES)
    content = {frame: draw(st.integers(0, 6)) for frame in frames}
    pages = draw(st.lists(st.sampled_from(sorted(frames)), min_size=1, max_size=60))
    return frames, [Page(content[frame], frame) for frame in pages]


def _expected(
    page: Page, pages: list[Page], frames: dict[int, Frame], limit: int, *, across: bool
) -> str:
    if frames[page.frame].merged:
        return "merged"
    equals = [other for other in pages if other.content == page.content]
    if len(equals) == 1:
        return "unique"
    if {other.frame for other in equals} == {page.frame}:
        return "forked"
    near = [o for o in equals if across or (o.frame < 50) == (page.frame < 50)]
    others = {other.frame for other in near} - {page.frame}
    if not others:
        return "numa"
    if any(not frames[other].merged or frames[other].mappings < limit for other in others):
        return "pending"
    return "sharing_limit"


def _facts(**knobs: str) -> HostFacts:
    return HostFacts({"run": "1", "smart_scan": "0", **knobs}, {"full_scans": 7})


def _sample(pages: list[Page], borders: set[int]) -> MemorySample:
    edges = [0, *sorted(b for b in borders if b < len(pages)), len(pages)]
    regions = [SampledRegion(0, n << 30, (n << 30) + (1 << 20), "", mergeable=True)
               for n in range(len(edges) - 1)]  # fmt: skip
    numbers = [
        (n << 30) // 4096 + at for n, (a, b) in enumerate(pairwise(edges)) for at in range(b - a)
    ]
    return MemorySample(
        processes=[SampledProcess(ME)],
        regions=regions,
        digests=np.array([page.content for page in pages], np.uint64),
        frames=np.array([page.frame for page in pages], np.uint32),
        kinds=np.zeros(len(pages), np.uint8),
        numbers=np.array(numbers, np.int64),
        bounds=np.array(edges, np.int64),
    )


@given(_hosts(), st.integers(2, 5), st.booleans(), st.sets(st.integers(1, 59), max_size=3))
def test_every_page_gets_the_cause_that_the_rules_give_it(
    host: tuple[dict[int, Frame], list[Page]], limit: int, across: bool, borders: set[int]
) -> None:
    frames, pages = host

    def words(path: Path, numbers: np.ndarray) -> np.ndarray:
        if path.name == "kpagecount":
            return np.array([frames[int(n)].mappings for n in numbers], np.uint64)
        return np.array([frames[int(n)].merged << 21 for n in numbers], np.uint64)

    facts = _facts(max_page_sharing=str(limit), merge_across_nodes=str(int(across)))
    sample = _sample(pages, borders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "_of_frames", lambda numbers, path: words(path, numbers))
        patch.setattr(contents, "_frames_now", lambda s, _proc: s.frames.astype(np.uint64))
        found = sort_out(sample, facts, SPANS)
    wanted = [_expected(page, pages, frames, limit, across=across) for page in pages]
    pending = [found.pending if cause == "pending" else cause for cause in wanted]
    assert [found.cause_at(n) for n in range(len(pages))] == pending
    by_region: dict[int, list[str]] = defaultdict(list)
    for n, cause in enumerate(pending):
        by_region[found.region_of(n)].append(cause)
    for region, causes in by_region.items():
        assert found.causes_in(region) == {cause: causes.count(cause) for cause in causes}


@given(_hosts())
def test_equals_are_all_other_pages_with_the_content(
    host: tuple[dict[int, Frame], list[Page]],
) -> None:
    _frames, pages = host
    sample = _sample(pages, set())
    nothing = np.zeros(len(pages))
    registered = contents.Registered(
        sample, nothing.astype(bool), nothing.astype(np.uint64), nothing.astype(np.int8), "held"
    )
    for at, page in enumerate(pages):
        equals = [n for n, o in enumerate(pages) if o.content == page.content and n != at]
        assert registered.equals_of(at).tolist() == equals
        assert registered.position_of(0, at) == at
    assert registered.position_of(0, len(pages)) is None


@pytest.mark.parametrize(
    ("knobs", "scans", "pending"),
    [
        ({"run": "0"}, 0, "stopped"),
        ({"run": "2"}, 20, "stopped"),
        ({}, 0, "not_reached"),
        ({}, 1, "not_reached"),
        ({}, 2, "held"),
        ({"smart_scan": "1"}, 1, "not_reached"),
        ({"smart_scan": "1"}, 2, "smart_scan"),
        ({"smart_scan": "1"}, 9, "smart_scan"),
        ({"smart_scan": "1"}, 10, "held"),
    ],
)
def test_why_a_page_with_equals_waits(knobs: dict[str, str], scans: int, pending: str) -> None:
    facts = _facts(**knobs)
    facts.counters = {"full_scans": 7 + scans}
    assert why_pending(facts) == pending
