"""The fast engine gives the readable scanner's answers: every counter, every event, in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksmtrace.errors import KsmtraceError
from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.kernel.releases import parse_release, profile
from ksmtrace.lab.families import FAMILIES, LARGE, Family
from ksmtrace.lab.fast_domain import refusal
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.random_scenarios import random_scenario
from ksmtrace.lab.scenario import ScenarioError, scenario_of
from ksmtrace.model import Clock, KsmScanner, Memory
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.fast.contents import NumberedContents
from ksmtrace.model.fast.memory import FastMemory
from ksmtrace.model.fast.scanner import FastScanner
from ksmtrace.model.fast.space import FastMm

OUTSIDE = {"pin", "unpin", "batch", "cycle"}
KERNELS = [
    "2011", "3.9", "4.10", "4.11", "4.13", "4.19", "5.4", "5.19", "6.1", "6.1+range_walk", "6.3",
    "6.4", "6.6", "6.7", "6.8", "6.10", "6.11", "6.12", "6.18",
]  # fmt: skip
START = 0x7000_0000_0000


def within(family: Family) -> Family:
    """A family without what the fast engine does not do."""
    weights = {name: weight for name, weight in family.weights.items() if name not in OUTSIDE}
    return replace(family, weights=weights)


def assert_same_answers(family: Family, seed: int, kernel: str) -> None:
    plan = plan_scenario(random_scenario(within(family), seed))
    assert refusal(plan) is None
    readable = perform_on_model(plan, profile(kernel))
    fast = perform_on_model(plan, profile(kernel), engine="fast")
    for one, other in zip(readable.observations, fast.observations, strict=True):
        assert one.counters == other.counters, one.step
        assert one.processes == other.processes, one.step
        assert one.refused == other.refused, one.step
        assert one.told == other.told, one.step
        assert one.events.tobytes() == other.events.tobytes(), one.step


@settings(max_examples=149, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(FAMILIES), st.integers(0, 1 << 30), st.sampled_from(KERNELS))
def test_random_scenarios_on_every_kernel(family: Family, seed: int, kernel: str) -> None:
    if parse_release(f"{kernel}.0") < parse_release(f"{family.since}.0") or kernel == "2011":
        kernel = "6.18" if family.since != "2.6.38" else kernel
    assert_same_answers(family, seed, kernel)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 30), st.sampled_from(["2011", "6.8", "6.18"]))
def test_large_random_scenarios(seed: int, kernel: str) -> None:
    assert_same_answers(LARGE, seed, kernel)


# Hosts in numbers.


def twins(
    contents: np.ndarray, *, knobs: dict[str, object], visit_ns: int
) -> tuple[KsmScanner, Memory, FastScanner, FastMemory]:
    """The same pages, of one process, for either engine."""
    memory, fast_memory = Memory(), FastMemory(contents=NumberedContents(4 * len(contents)))
    scanner = KsmScanner(memory, knobs=knobs, clock=Clock(visit_ns=visit_ns))
    fast = FastScanner(fast_memory, knobs=knobs, clock=Clock(visit_ns=visit_ns))
    for each in (memory, fast_memory):
        mm = each.spawn(101)
        each.map(mm, START, len(contents))
        each.madvise_mergeable(mm, START, START + len(contents) * PAGE_SIZE)
    for page, content in enumerate(contents.tolist()):
        memory.write(memory.mms[0], START + page * PAGE_SIZE, as_bytes(content))
    first = fast_memory.rows[0]
    fast_memory.fill(first, START, contents.astype(np.uint32))
    return scanner, memory, fast, fast_memory


def as_bytes(content: int) -> bytes:
    return content.to_bytes(8, "big").rstrip(b"\0")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("limit", "prune_ms", "visit_ns"), [(2, 0, 1000), (3, 2, 700), (256, 2000, 0), (5, 10, 2000)]
)
def test_a_host_in_numbers_with_chains_and_writes(
    seed: int, limit: int, prune_ms: int, visit_ns: int
) -> None:
    dice = np.random.default_rng(seed)
    popular = (dice.random(4001) ** 3 * 700).astype(np.int64)
    contents = np.where(dice.random(4001) < 0.7, popular, 1000 + np.arange(4001))
    knobs: dict[str, object] = {
        "max_page_sharing": limit,
        "stable_node_chains_prune_millisecs": prune_ms,
        "use_zero_pages": seed % 2,
        "pages_to_scan": 100_000,
    }
    scanner, memory, fast, fast_memory = twins(contents, knobs=knobs, visit_ns=visit_ns)
    mm, fast_mm = memory.mms[0], fast_memory.rows[0]
    assert isinstance(fast_mm, FastMm)
    for turn in range(9):
        batches = [scanner.scan(), fast.scan()]
        assert scanner.counters == fast.counters, turn
        assert batches[0].tobytes() == batches[1].tobytes(), turn
        pages = np.sort(dice.choice(len(contents), 307, replace=False))
        fresh = np.where(dice.random(307) < 0.5, dice.integers(0, 700, 307), 6000 + 400 * turn)
        for page, content in zip(pages.tolist(), fresh.tolist(), strict=True):
            memory.write(mm, START + page * PAGE_SIZE, as_bytes(content))
        places = fast_mm.places_of(START + pages * PAGE_SIZE)
        fast_memory.rewrite(places, fresh.astype(np.uint32))
        assert memory.cow_ksm == fast_memory.cow_ksm
        shown = [fast_memory.where(int(place))[0] for place in places[:3]]
        assert shown == [fast_mm] * 3


def test_a_dead_page_is_met_in_the_scan_as_by_the_readable_scanner() -> None:
    """Many pages die at once near the tree's top; walks and marks must agree on who meets them."""
    contents = np.repeat(np.arange(1, 1501), 2)
    scanner, memory, fast, fast_memory = twins(
        contents, knobs={"pages_to_scan": 100_000, "smart_scan": 0}, visit_ns=100
    )
    fast_mm = fast_memory.rows[0]
    for each in (scanner, fast):
        each.scan(2)
    for page in range(0, 3000, 3):
        memory.write(memory.mms[0], START + page * PAGE_SIZE, as_bytes(9000 + page // 9))
    pages = np.arange(0, 3000, 3)
    assert isinstance(fast_mm, FastMm)
    fast_memory.rewrite(
        fast_mm.places_of(START + pages * PAGE_SIZE), (9000 + pages // 9).astype(np.uint32)
    )
    for page in (*range(40, 900, 7),):
        for each in (memory, fast_memory):
            each.discard(each.mms[0], START + page * PAGE_SIZE, START + (page + 3) * PAGE_SIZE)
    for _ in range(4):
        assert scanner.scan().tobytes() == fast.scan().tobytes()
        assert scanner.counters == fast.counters


# What it does not do, and how its events can be had.


@pytest.mark.parametrize(
    ("step", "word"),
    [
        ({"pin": "a.heap[0]"}, "held"),
        ({"batch": 3}, "stop within a full scan"),
        ({"map": "a.huge", "pages": 512, "huge": True}, "huge pages"),
    ],
)
def test_what_it_does_not_do_is_refused_by_name_before_anything_runs(
    step: dict[str, object], word: str
) -> None:
    steps = [{"map": "a.heap", "pages": 3}, {"write": "a.heap", "content": "x"}, step]
    plan = plan_scenario(scenario_of({"title": "t", "step": steps}, "t"))
    with pytest.raises(ScenarioError, match=word):
        perform_on_model(plan, profile("6.18"), engine="fast")


def test_python_is_refused_too() -> None:
    memory = FastMemory()
    scanner = FastScanner(memory)
    mm = memory.spawn(7)
    memory.map(mm, START, 3)
    memory.write(mm, START, b"x")
    for act in (
        lambda: memory.pin(mm, START),
        lambda: memory.map_huge(mm, START, b""),
        lambda: scanner.batch(3),
        scanner.take_visits,
    ):
        with pytest.raises(KsmtraceError, match="the fast engine has no"):
            act()


def test_events_can_be_streamed_or_counted_instead_of_kept() -> None:
    contents = np.arange(3001) // 3
    streamed: list[EventBatch] = []
    counts = []
    for events in ("keep", "count", lambda batch: streamed.append(batch.copy())):
        memory = FastMemory(contents=NumberedContents(2000))
        scanner = FastScanner(memory, events=events, knobs={"pages_to_scan": 100_000})
        mm = memory.spawn(5)
        memory.map(mm, START, len(contents))
        memory.madvise_mergeable(mm, START, START + len(contents) * PAGE_SIZE)
        memory.fill(mm, START, contents.astype(np.uint32))
        kept = scanner.scan(2)
        counts.append(scanner.event_counts)
        if events == "keep":
            expected = kept
        else:
            assert not len(kept)
    assert concatenate(streamed).tobytes() == expected.tobytes()
    assert counts[0]["ksm_merge_with_ksm_page"] == 3000
    merges = {kind: number for kind, number in counts[0].items() if "merge" in kind}
    assert all({k: c[k] for k in merges} == merges for c in counts)
    assert counts[0] == counts[1] == counts[2]


def test_a_host_says_how_far_it_is() -> None:
    memory = FastMemory(contents=NumberedContents(20_000))
    seen: list[int] = []
    scanner = FastScanner(memory, events="count", on_progress=lambda p: seen.append(p.pages))
    mm = memory.spawn(5)
    memory.map(mm, START, 10_007)
    memory.madvise_mergeable(mm, START, START + 10_007 * PAGE_SIZE)
    memory.fill(mm, START, np.arange(1, 10_008, dtype=np.uint32))
    scanner.finish_scan()
    assert seen == sorted(seen)
    assert len(seen) >= 5
    assert scanner.work.visits == 10_007
