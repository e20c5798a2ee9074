"""Recordings stepped through the scanner: every page, every scan, as without watching."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksmtrace.kernel.releases import profile
from ksmtrace.lessons.frames import Kind
from ksmtrace.lessons.recorded import MOST_SCANS, frames_of
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.whatif.loading import load_readable
from tests.support.moments import moment

KERNEL = profile("6.18")


@settings(max_examples=37, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=29), min_size=1, max_size=4),
    st.integers(0, 5),
)
def test_stepping_a_moment_is_scanning_it(contents: list[list[int]], changing: int) -> None:
    one = moment(contents, changing)
    frames = list(frames_of(one, KERNEL, {11: "db"}, "about"))
    loaded = load_readable(one, KERNEL, log_visits=True)
    scanner = loaded.scanner
    assert isinstance(scanner, KsmScanner)
    for frame in frames:
        if frame.kind is Kind.DONE:
            scanner.finish_scan()
            assert frame.views[0].counters == scanner.counters
            visits = scanner.take_visits()
            shown = [f for f in frames if f.kind is Kind.VISIT and f.scan == frame.scan]
            assert [f.views[0].steps for f in shown] == [visit.steps for visit in visits]
            loaded.change()
    assert frames[-1].scan <= MOST_SCANS
    assert any(f.views[0].page and f.views[0].page.startswith("db 11:") for f in frames)


def test_a_large_moment_shows_a_part_of_it_at_each_stop() -> None:
    one = moment([list(range(1, 600))], 0)
    frames = list(frames_of(one, KERNEL, {}, "about"))
    visit = next(f for f in frames if f.kind is Kind.VISIT and f.scan == 2 and f.visit == 577)
    scene = visit.views[0].scene
    assert scene is not None
    assert len(scene.pages) + scene.left_out == 599
    assert visit.views[0].visit in {(page.mm, page.address) for page in scene.pages}
    [tree] = [tree for tree in scene.trees if tree.kind == "unstable"]
    assert tree.nodes == 577
    assert tree.height is not None
    assert tree.height <= tree.bound
    assert tree.root is not None
    assert _count(tree.root) == 31


def _count(node: object) -> int:
    left, right = getattr(node, "left", None), getattr(node, "right", None)
    return 1 + sum(_count(child) for child in (left, right) if child is not None)


@pytest.mark.parametrize("pages", [1, 2])
def test_the_least_memory_is_stepped_too(pages: int) -> None:
    frames = list(frames_of(moment([[5] * pages], 0), KERNEL, {}, "about"))
    assert [frame.kind for frame in frames].count(Kind.CLOSING) == 1
