"""The model against the real ksmd: every counter and every event, in random scenarios."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ksmtrace.lab.fidelity import Tally, hold_against, hold_all_against, random_scenarios
from ksmtrace.lab.on_kernel import Host, host_stage
from ksmtrace.lab.scenario import to_toml
from ksmtrace.model.memory import Frame, Memory, Mm
from ksmtrace.model.merging import Merging
from ksmtrace.model.stable_tree import StableTrees
from ksmtrace.model.structures import RmapItem, StableNode
from ksmtrace.model.visit import Visit


@pytest.fixture
def host() -> Iterator[Host]:
    with host_stage() as stage:
        yield stage


def test_300_random_scenarios_agree_in_every_counter_and_event(host: Host) -> None:
    tally = Tally()
    hold_all_against(host, random_scenarios(297, 3, 1_000_000, host.profile), tally)
    for failure in tally.failures:
        print(to_toml(failure.scenario))
    assert not tally.failures
    assert tally.scenarios == 300
    assert tally.events > 20_000


def _caught(host: Host) -> bool:
    scenarios = random_scenarios(200, 0, 2_000_000, host.profile)
    return any(not hold_against(host, scenario).agree for scenario in scenarios)


def test_a_tree_walked_the_wrong_way_round_is_caught(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The pairs that merge are the same; what a walk passes, and so notices, is not.
    walk = StableTrees._walk

    def mirrored(self: StableTrees, frame: Frame, nid: int, *, prune: bool) -> object:
        node, dup, parent, left = found = walk(self, frame, nid, prune=prune)  # type: ignore[misc]
        if node is None and parent is not None and parent.left is None and parent.right is None:
            return node, dup, parent, not left
        return found

    monkeypatch.setattr(StableTrees, "_walk", mirrored)
    assert _caught(host)


def test_a_pin_that_is_always_honoured_is_caught(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Memory._copy

    def dirty(self: Memory, mm: Mm, address: int, frame: Frame) -> Frame:
        fresh = copy(self, mm, address, frame)
        fresh.exclusive = True
        return fresh

    fork = Memory.fork

    def fork_that_leaves_pages_dirty(self: Memory, mm: Mm, tgid: int) -> Mm:
        mm.clean.clear()
        return fork(self, mm, tgid)

    monkeypatch.setattr(Memory, "_copy", dirty)
    monkeypatch.setattr(Memory, "fork", fork_that_leaves_pages_dirty)
    assert _caught(host)


def test_an_orphan_that_is_taken_for_an_ordinary_page_is_caught(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_cow = Merging.break_cow

    def and_cure(self: Merging, item: RmapItem) -> None:
        page = item.mm.pages[item.address]
        break_cow(self, item)
        page.ksm = False

    monkeypatch.setattr(Merging, "break_cow", and_cure)
    assert _caught(host)


def test_an_age_that_goes_on_while_merged_is_caught(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = StableTrees.append

    def and_age(self: StableTrees, item: RmapItem, node: StableNode) -> None:
        append(self, item, node)
        item.age += 1

    monkeypatch.setattr(StableTrees, "append", and_age)
    assert _caught(host)


def test_a_checksum_that_is_forgotten_at_merging_is_caught(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    join = Visit._join

    def and_forget(self: Visit, page: Frame, item: RmapItem, ksm_page: Frame) -> None:
        join(self, page, item, ksm_page)
        item.oldchecksum = 1

    monkeypatch.setattr(Visit, "_join", and_forget)
    assert _caught(host)


def test_an_unpatched_model_passes_the_same_scenarios(host: Host) -> None:
    assert not _caught(host)
