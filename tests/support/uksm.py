"""Simulated machines with UKSM, as the scenarios of its tests want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ksmtrace.kernel.costs import Costs
from ksmtrace.model.memory import Memory, Mm
from ksmtrace.model.uksm import UksmScanner
from ksmtrace.model.uksm.structures import Slot

PAGE = 4096
START = 1 << 30
MEMCMP_COST = 256
"""What the expected figures take a comparison to cost, in hashed words."""
TOY_COSTS = Costs(
    visit_ns=200,
    absent_ns=60,
    xxhash_byte_ns=0,
    jhash2_byte_ns=0,
    uksm_byte_ns=1.3 / 4,
    line_ns=0,
    compare_byte_ns=330 / PAGE,
    level_ns=20,
    merge_ns=3000,
)
"""The costs of the expected figures."""


def unique(count: int, of: str = "page") -> list[bytes]:
    """So many contents that nothing else has."""
    return [f"{of} {number}".encode() for number in range(count)]


def repeated(pages: int, contents: int, of: str = "content") -> list[bytes]:
    """So many pages of so many contents in turn."""
    return [f"{of} {number % contents}".encode() for number in range(pages)]


class Uksm:
    """A process for each list of contents, with one region that holds them."""

    def __init__(self, *regions: Sequence[bytes], **options: Any) -> None:
        self.memory = Memory()
        self.scanner = UksmScanner(
            self.memory, **{"costs": TOY_COSTS, "memcmp_cost": MEMCMP_COST, **options}
        )
        self.mms: list[Mm] = []
        for number, contents in enumerate(regions):
            mm = self.memory.spawn(101 + number)
            self.mms.append(mm)
            self.memory.map(mm, START, len(contents))
            for page, content in enumerate(contents):
                self.memory.write(mm, START + page * PAGE, content)

    @property
    def seconds(self) -> float:
        """The time."""
        return self.scanner.clock.now_ns / 1e9

    @property
    def cpu(self) -> float:
        """The share of a CPU that the daemon has taken."""
        return self.scanner.clock.ksmd_cpu_ns / self.scanner.clock.now_ns

    @property
    def merged(self) -> tuple[int, int, int]:
        """pages_shared, pages_sharing, pages_unshared."""
        counters = self.scanner.counters
        return counters["pages_shared"], counters["pages_sharing"], counters["pages_unshared"]

    @property
    def sharing(self) -> int:
        """pages_sharing."""
        return self.scanner.counters["pages_sharing"]

    def slot(self, number: int = 0, region: int = 0) -> Slot:
        """The slot of a process's region."""
        vma = self.mms[number].vmas[region]
        return self.scanner._daemon.slots.by_serial[vma.serial]

    def rung(self, number: int = 0) -> int:
        """The rung that a process's region is on."""
        rung = self.slot(number).rung
        assert rung is not None
        return rung.number

    def address(self, page: int) -> int:
        """A page's address, in any process."""
        return START + page * PAGE

    def wake(self, times: int = 1) -> None:
        """So many wake-ups."""
        for _ in range(times):
            self.scanner.wake()

    def until_sharing(self, pages: float, *, limit_s: float = 60) -> float:
        """Wake-ups until pages_sharing is so high; returns the time."""
        while self.sharing < pages:
            self.wake()
            assert self.seconds < limit_s, f"{self.sharing:,} of {pages:,} after {limit_s} s"
        return self.seconds

    def look(self, *pages: int, number: int = 0) -> None:
        """Visits to pages of a process in this order, without a draw."""
        daemon = self.scanner._daemon
        for page in pages:
            daemon.visit.look(self.slot(number), page)
        self.scanner._state.account_hashes()

    def visited(self) -> int:
        """Pages of all processes that were visited once at least, and are there."""
        return sum(len(slot.items) for slot in self.scanner._daemon.slots.by_serial.values())

    def judgements(self) -> list[tuple[int, int, int, int]]:
        """A list that will hold each judgement's rung, step, visits and merges."""
        daemon = self.scanner._daemon
        judge = daemon.judge
        seen: list[tuple[int, int, int, int]] = []

        def judged(slot: Slot) -> None:
            assert slot.rung is not None
            seen.append((slot.rung.number, slot.rung.step, slot.sampled, slot.merged))
            judge(slot)

        daemon.judge = judged
        return seen
