"""Whatever programs do, UKSM's books are right, and nobody notices it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtrace.model import Memory, MemoryFault, Mm
from ksmtrace.model.content import overwritten
from ksmtrace.model.invariants import InvariantBroken
from ksmtrace.model.uksm import AS_INTENDED, AS_SHIPPED, GOVERNORS, Quirks, UksmScanner
from ksmtrace.model.uksm.invariants import assert_invariants
from tests.support.uksm import PAGE, Uksm, repeated

ACTIONS = {
    "write": 9, "similar": 3, "wake": 12, "map": 2, "discard": 2, "unmap": 1, "extend": 2,
    "fork": 2, "exit": 1, "exec": 1, "unmergeable": 1, "protect": 1, "move": 1, "read": 1,
    "pin": 1, "unpin": 1, "strength": 2, "split": 1,
}  # fmt: skip
REGION = 1 << 30


class Actor:
    """Some processes that do what a dice says."""

    def __init__(self, seed: int, quirks: Quirks, contents: str) -> None:
        self.dice = random.Random(seed)
        self.memory = Memory()
        self.scanner = UksmScanner(
            self.memory,
            self.dice.choice(list(GOVERNORS)),
            quirks=quirks,
            seed=seed,
            check_invariants=True,
            contents=contents,  # type: ignore[arg-type]
        )
        self.alive: list[Mm] = []
        self.pins: list[Any] = []
        self.regions = 0
        for pages in (40, 23):
            self.map(self.spawn(), pages)

    def spawn(self) -> Mm:
        mm = self.memory.spawn(70 + self.memory._next_mm)
        self.alive.append(mm)
        return mm

    def map(self, mm: Mm, pages: int) -> None:
        self.regions += 1
        start = REGION * self.regions
        self.memory.map(mm, start, pages)
        for page in range(pages):
            self.memory.write(mm, start + page * PAGE, self.content())

    def content(self) -> bytes:
        kind = self.dice.random()
        if kind < 0.1:
            return b""
        return b"c%d" % self.dice.randrange(5 if kind < 0.8 else 100_000)

    def place(self) -> tuple[Mm, int, int]:
        mm = self.dice.choice([mm for mm in self.alive if mm.vmas])
        vma = self.dice.choice(mm.vmas)
        pages = (vma.end - vma.start) // PAGE
        low = self.dice.randrange(pages)
        high = min(pages, low + self.dice.choice((1, 1, 2, 4, pages)))
        return mm, vma.start + low * PAGE, vma.start + high * PAGE

    def act(self) -> None:
        [name] = self.dice.choices(list(ACTIONS), list(ACTIONS.values()))
        if name != "map" and not any(mm.vmas for mm in self.alive):
            name = "map"
        try:
            getattr(self, f"do_{name}")()
        except MemoryFault:
            return

    def do_write(self) -> None:
        mm, start, end = self.place()
        for address in range(start, end, PAGE):
            self.memory.write(mm, address, self.content())

    def do_similar(self) -> None:
        mm, start, _ = self.place()
        content = overwritten(b"c1", 4 * self.dice.randrange(16, 1024), b"!")
        self.memory.write(mm, start, content)

    def do_wake(self) -> None:
        before = self.seen()
        for _ in range(self.dice.choice((1, 1, 2, 5))):
            self.scanner.wake()
        assert self.seen() == before

    def seen(self) -> dict[tuple[int, int], bytes]:
        """What programs would read."""
        return {
            (mm.tgid, address): frame.content
            for mm in self.alive
            for address, frame in mm.pages.items()
        }

    def do_map(self) -> None:
        new = not self.alive or (self.dice.random() < 0.3 and len(self.alive) < 5)
        mm = self.spawn() if new else self.dice.choice(self.alive)
        self.map(mm, self.dice.choice((1, 3, 11, 60)))

    def do_extend(self) -> None:
        mm, start, _ = self.place()
        self.memory.extend(mm, start, self.dice.randrange(1, 9))

    def do_discard(self) -> None:
        self.memory.discard(*self.place())

    def do_unmap(self) -> None:
        self.memory.unmap(*self.place())

    def do_read(self) -> None:
        mm, start, _ = self.place()
        self.memory.read(mm, start)

    def do_fork(self) -> None:
        if len(self.alive) < 6:
            parent = self.dice.choice(self.alive)
            self.alive.append(self.memory.fork(parent, 70 + self.memory._next_mm))

    def do_exit(self) -> None:
        if len(self.alive) > 1:
            self.memory.exit(self.alive.pop(self.dice.randrange(len(self.alive))))

    def do_exec(self) -> None:
        mm = self.alive.pop(self.dice.randrange(len(self.alive)))
        self.alive.append(self.memory.exec(mm))
        self.map(self.alive[-1], 5)

    def do_unmergeable(self) -> None:
        before = self.seen()
        self.memory.madvise_unmergeable(*self.place())
        assert self.seen() == before

    def do_protect(self) -> None:
        self.memory.protect(*self.place(), self.dice.choice(("none", "write", "write")))

    def do_split(self) -> None:
        self.memory.place(*self.place(), 0)

    def do_move(self) -> None:
        self.regions += 1
        self.memory.remap(*self.place(), REGION * self.regions)

    def do_pin(self) -> None:
        mm, start, _ = self.place()
        if start in mm.pages and mm.pages[start] is not self.memory.zero_frame:
            self.pins.append(self.memory.pin(mm, start))

    def do_unpin(self) -> None:
        if self.pins:
            self.memory.unpin(self.pins.pop())

    def do_strength(self) -> None:
        """As if collisions had been dear, or cheap: the next full round moves the strength."""
        state = self.scanner._state
        daemon = self.scanner._daemon
        self.scanner.wake()
        before = state.strength.value
        state.strength.value = self.dice.choice((1, 2, 64, 700, 1024, 1034))
        if before != state.strength.value:
            daemon.trees.rekey(before)
            daemon.trees.empty_unstable()
            assert_invariants(state, daemon)


def mixed(seed: int) -> Quirks:
    dice = random.Random(seed)
    return Quirks(*[dice.random() < 0.5 for _ in range(5)])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), contents=st.sampled_from(["names", "names", "pages"]))
def test_random_programs_keep_the_books_and_read_what_they_wrote(seed: int, contents: str) -> None:
    actor = Actor(seed, (AS_SHIPPED, AS_INTENDED, mixed(seed))[seed % 3], contents)
    for _ in range(60):
        actor.act()
    for frame in actor.pins:
        actor.memory.unpin(frame)
    actor.scanner.finish_scan()
    for mm in list(actor.alive):
        actor.memory.exit(mm)
    actor.scanner.wake()
    assert not actor.scanner._state.items
    counters = actor.scanner.counters
    names = ("pages_sharing", "pages_shared", "pages_unshared", "uksm_zero_pages")
    assert [counters[name] for name in names] == [0, 0, 0, 0]
    assert actor.scanner._state.total_pages == 0
    assert not actor.scanner._daemon.slots.by_serial


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_the_same_seed_and_programs_give_the_same_stream(seed: int) -> None:
    def run() -> bytes:
        actor = Actor(seed, AS_SHIPPED, "names")
        for _ in range(40):
            actor.act()
        batch: bytes = actor.scanner.take_events().tobytes()
        return batch

    assert run() == run()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_what_rests_is_merged_wholly_in_time(seed: int) -> None:
    dice = random.Random(seed)
    contents = [b"c%d" % dice.randrange(40) for _ in range(dice.randrange(4, 300))]
    machine = Uksm(contents[::2], contents[1::2], seed=seed)
    for _ in range(4):
        machine.scanner.finish_scan()
    assert machine.scanner.saved_pages() == len(contents) - len(set(contents))


@pytest.mark.parametrize(
    "spoil",
    ["pages_shared", "pages_sharing", "pages_unshared", "zero_pages", "total_pages", "items"],
)
def test_a_spoilt_counter_is_noticed(spoil: str) -> None:
    machine = Uksm(repeated(50, 3))
    machine.wake(3)
    state = machine.scanner._state
    assert_invariants(state, machine.scanner._daemon)
    setattr(state, spoil, getattr(state, spoil) + 1)
    with pytest.raises(InvariantBroken):
        assert_invariants(state, machine.scanner._daemon)
