"""Whatever happens, on every kernel: the scanner's books are right, and nobody notices ksmd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from ksmtrace.kernel.releases import RELEASES, profile
from ksmtrace.lab.on_model import ModelStage, perform_on_model
from ksmtrace.lab.operations import Batch, Scan, SetKnob
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.random_scenarios import FAMILIES_BY_NAME, LARGE, random_scenario
from ksmtrace.model.content import ZERO
from ksmtrace.model.invariants import InvariantBroken, assert_invariants
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.memory import Memory
from ksmtrace.model.structures import RmapItem, StableChain, StableNode

PAGE = 4096
SEEDS = range(3)
KERNELS = (*(release.version for release in RELEASES), "6.1.192", "6.12.117", "6.18.44")
CASES = [
    (family, kernel)
    for family in FAMILIES_BY_NAME
    for kernel in KERNELS
    if profile(kernel).has(FAMILIES_BY_NAME[family].since)
]


@cache
def plan_of(family: str, seed: int) -> Plan:
    return plan_scenario(random_scenario(FAMILIES_BY_NAME[family], seed))


def stage_after(plan: Plan, kernel: str) -> ModelStage:
    stage = ModelStage(plan, profile(kernel), on=kernel, check_invariants=True)
    stage.perform()
    return stage


def what_processes_read(stage: ModelStage) -> dict[tuple[int, int], bytes]:
    """The content of every page that isn't full of zeroes, by process and address."""
    return {
        (mm.tgid, address): content
        for mm in stage.memory.mms
        for address, content in (
            *((address, frame.content) for address, frame in mm.pages.items()),
            *((address, slot.content) for address, (slot, _) in mm.swapped.items()),
        )
        if content != ZERO
    }


def without_ksmd(plan: Plan) -> Plan:
    steps = tuple(
        replace(
            step,
            operations=tuple(
                o for o in step.operations if not isinstance(o, Scan | Batch | SetKnob)
            ),
        )
        for step in plan.steps
    )
    return replace(plan, steps=steps)


def assert_the_books(stage: ModelStage) -> None:
    """What assert_invariants leaves out, counted anew from what is there."""
    scanner, memory = stage.scanner, stage.memory
    cycle = scanner._cycle
    counters, behaviour = scanner.counters, scanner.behaviour
    trees = cycle.visit.stable.trees.values()
    chains = [
        place for tree in trees for place in tree.in_order() if isinstance(place, StableChain)
    ]
    if "stable_node_chains" in counters:
        assert counters["stable_node_chains"] == len(chains)
    assert all(dup.chain is chain for chain in chains for dup in chain.dups)

    mapped = Counter(frame for mm in memory.mms for frame in mm.pages.values())
    del mapped[memory.zero_frame]
    assert all(frame.mapcount == times for frame, times in mapped.items())
    assert all(not frame.exclusive for frame, times in mapped.items() if times > 1)

    waiting = Counter(slot for mm in memory.mms for slot, _exclusive in mm.swapped.values())
    assert all(slot.entries == times for slot, times in waiting.items())
    assert all(slot.frame is None or slot.frame.swap is slot for slot in waiting)
    assert all(frame.swap is None or frame.swap.frame is frame for frame in mapped)
    assert all(not mm.pages.keys() & mm.swapped.keys() for mm in memory.mms)

    placed = [(mm, address) for mm in memory.mms for address in mm.ksm_zero]
    assert all(mm.pages[address] is memory.zero_frame for mm, address in placed)
    for mm in memory.mms:
        assert mm.ksm_zero_pages == len(mm.ksm_zero)
    if behaviour.zero_pages == "counted" and behaviour.fork_counters == "fresh":
        assert counters["ksm_zero_pages"] == len(placed)

    items = [item for slot in cycle.slots for item in slot.items()]
    assert counters["pages_volatile"] == sum(not i.tree and not i.head for i in items)
    for item in items:
        # Whoever is on a living KSM page's books maps it, or has not been visited since.
        node = item.head
        assert node is None or item in node.items
    for mm in memory.mms:
        assert (mm.slot is not None) == mm.mergeable
        assert mm.ksm_rmap_items >= 0
        assert mm.ksm_merging_pages >= 0


@pytest.mark.parametrize(("family", "kernel"), CASES)
def test_random_scenarios_keep_the_books_and_change_no_content(family: str, kernel: str) -> None:
    for seed in SEEDS:
        plan = plan_of(family, seed)
        stage = stage_after(plan, kernel)
        assert_the_books(stage)
        assert what_processes_read(stage) == what_processes_read(
            stage_after(without_ksmd(plan), kernel)
        )


@pytest.mark.parametrize("kernel", ["2011", "6.1.192", "6.12", "6.18.44"])
def test_large_scenarios_keep_the_books(kernel: str) -> None:
    assert_the_books(stage_after(plan_scenario(random_scenario(LARGE, 0)), kernel))


@pytest.mark.parametrize("family", FAMILIES_BY_NAME)
def test_the_same_seed_gives_the_same_events(family: str) -> None:
    told = []
    for _ in range(2):
        plan = plan_scenario(random_scenario(FAMILIES_BY_NAME[family], 17))
        performance = perform_on_model(plan, profile("6.18.44"))
        told.append([(o.told, o.events.tobytes(), o.counters) for o in performance.observations])
    assert told[0] == told[1]
    assert any(events for events, _, _ in told[0])


def test_seeds_and_families_are_all_different() -> None:
    told = {
        tuple(
            o.told for o in perform_on_model(plan_of(family, seed), profile("6.18.44")).observations
        )
        for family in FAMILIES_BY_NAME
        for seed in range(5)
    }
    assert len(told) == 5 * len(FAMILIES_BY_NAME)


def test_most_branches_are_reached_by_the_few_seeds_of_this_test() -> None:
    reached: Counter[object] = Counter()
    for family in FAMILIES_BY_NAME:
        for seed in SEEDS:
            reached.update(stage_after(plan_of(family, seed), "6.18.44").scanner.reached)
    assert len(+reached) > 30


# An invariant that nothing could break would be no check.


class Broken:
    """A scanner with every kind of thing in it, to break one of them."""

    def __init__(self) -> None:
        memory = Memory()
        self.scanner = KsmScanner(memory, kernel="6.18.44", knobs={"max_page_sharing": 3})
        contents = [b"a"] * 8 + [b"b", b"b", b"c", b"c", b"d", b"d", b"x", b"y", b"z"]
        self.mm = memory.spawn(7)
        memory.map(self.mm, 0, len(contents))
        memory.madvise_mergeable(self.mm, 0, len(contents) * PAGE)
        for number, content in enumerate(contents):
            memory.write(self.mm, number * PAGE, content)
        self.scanner.scan(2)
        self.state = self.scanner._state
        self.cycle = self.scanner._cycle
        self.items = self.cycle.slots[0].items()
        self.check()
        assert self.state.stable_node_chains
        assert self.state.pages_unshared

    def check(self) -> None:
        assert_invariants(self.state, self.cycle)

    def merged(self) -> RmapItem:
        return next(item for item in self.items if item.head is not None)

    def waiting(self) -> RmapItem:
        return next(item for item in self.items if item.tree is not None)

    def node(self) -> StableNode:
        node = self.merged().head
        assert node is not None
        return node

    def root(self) -> StableChain | StableNode:
        root = self.cycle.visit.stable.tree(0).root
        assert isinstance(root, StableChain | StableNode)
        return root


COUNTS = ["rmap_items", "pages_unshared", "pages_shared", "pages_sharing", "stable_node_dups"]


@pytest.mark.parametrize("more", [1, -1])
@pytest.mark.parametrize("name", COUNTS)
def test_a_wrong_counter_is_caught(name: str, more: int) -> None:
    broken = Broken()
    setattr(broken.state, name, getattr(broken.state, name) + more)
    with pytest.raises(InvariantBroken, match=name):
        broken.check()


@pytest.mark.parametrize("name", ["ksm_rmap_items", "ksm_merging_pages"])
def test_a_wrong_counter_of_a_process_is_caught(name: str) -> None:
    broken = Broken()
    setattr(broken.mm, name, getattr(broken.mm, name) + 1)
    with pytest.raises(InvariantBroken, match=name):
        broken.check()


def forget_the_node(broken: Broken) -> None:
    broken.merged().head = None


def be_in_both_trees(broken: Broken) -> None:
    broken.merged().tree = broken.waiting().tree


def lose_an_item_of_the_list(broken: Broken) -> None:
    broken.items[3].next = broken.items[5]


def put_the_list_out_of_order(broken: Broken) -> None:
    broken.items[3].address, broken.items[4].address = (
        broken.items[4].address, broken.items[3].address
    )  # fmt: skip


def visit_an_address_twice(broken: Broken) -> None:
    broken.items[3].address = broken.items[4].address


def lose_an_item_of_the_node(broken: Broken) -> None:
    broken.node().items.popitem()


def leave_the_chain(broken: Broken) -> None:
    broken.node().chain = None


def paint_a_child_red_below_a_red_one(broken: Broken) -> None:
    root = broken.root()
    root.red = True
    assert root.left is not None
    root.left.red = True


def paint_one_black_too_many(broken: Broken) -> None:
    tree = broken.cycle.visit.stable.tree(0)
    red = next(node for node in tree.in_order() if node.red)
    red.red = False


def forget_a_parent(broken: Broken) -> None:
    child = broken.root().left
    assert child is not None
    child.parent = None


BREAKS = (
    forget_the_node, be_in_both_trees, lose_an_item_of_the_list, put_the_list_out_of_order,
    visit_an_address_twice, lose_an_item_of_the_node, leave_the_chain,
    paint_a_child_red_below_a_red_one, paint_one_black_too_many, forget_a_parent,
)  # fmt: skip


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda function: function.__name__)
def test_a_structure_that_contradicts_itself_is_caught(
    break_it: Callable[[Broken], None],
) -> None:
    broken = Broken()
    break_it(broken)
    with pytest.raises(InvariantBroken):
        broken.check()


def test_a_scanner_that_checks_notices_at_the_next_batch() -> None:
    memory = Memory()
    scanner = KsmScanner(memory, kernel="6.18.44", check_invariants=True)
    mm = memory.spawn(7)
    memory.map(mm, 0, 1)
    memory.madvise_mergeable(mm, 0, PAGE)
    memory.write(mm, 0, b"a")
    scanner.scan(2)
    scanner._state.pages_shared += 1
    with pytest.raises(InvariantBroken, match="pages_shared is 1, but there are 0"):
        scanner.scan(1)
