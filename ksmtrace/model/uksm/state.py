"""What every part of UKSM shares: settings, counters, work, the way out for events."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2
from random import Random

from ksmtrace.kernel.costs import Costs
from ksmtrace.model.clock import Clock
from ksmtrace.model.memory import Memory
from ksmtrace.model.stream import ModelStream
from ksmtrace.model.uksm.governors import DEFAULT_PAGE_NS, MEMCMP_COST, MOST_STRENGTH
from ksmtrace.model.uksm.hashing import Hashes, lines_read, words_saved
from ksmtrace.model.uksm.quirks import Quirks
from ksmtrace.model.uksm.settings import Settings
from ksmtrace.model.uksm.strength import Strength
from ksmtrace.model.work import Work


@dataclass
class Tallies:
    """What sysfs doesn't tell. compares: of whole pages, before a merge or for a zero page.

    full_hashes: of whole pages. strength_changes: each empties the unstable tree. lost: merged
    pages that a change of strength made impossible to find.
    """

    full_hashes: int = 0
    compares: int = 0
    strength_changes: int = 0
    lost: int = 0


@dataclass
class State:
    """One scanner's state. pages_* and full_round are those of sysfs (full_scans is full_round).

    present: pages hashed since they were last accounted. svp: pages visited in this full round, as
    UKSM counts them. total_pages: of slots that were ever visited.
    """

    memory: Memory
    clock: Clock
    stream: ModelStream
    quirks: Quirks
    costs: Costs
    settings: Settings
    dice: Random
    hashes: Hashes
    memcmp_cost: int = MEMCMP_COST
    work: Work = field(default_factory=Work)
    strength: Strength = field(default_factory=Strength)
    tallies: Tallies = field(default_factory=Tallies)
    page_ns: int = DEFAULT_PAGE_NS
    eval_round: int = 1
    full_round: int = 1
    hash_round: int = 1
    svp: int = 0
    total_pages: int = 0
    present: int = 0
    items: int = 0
    next_item: int = 1
    pages_shared: int = 0
    pages_sharing: int = 0
    pages_unshared: int = 0
    pages_scanned: int = 0
    zero_pages: int = 0
    sleep_times: int = 0
    _began: tuple[int, int] = (0, 0)
    _began_ns: float = 0.0
    _levels: float = 0.0

    def begin(self) -> None:
        """A wake-up begins: time passes with its work from here."""
        self._began = self.clock.now_ns, self.clock.ksmd_cpu_ns
        self._began_ns = self._cpu_ns()

    def tick(self) -> int:
        """Bring the clock up to the work done. Returns the wake-up's CPU time so far."""
        self.work.levels = int(self._levels)
        self.account_hashes()
        spent = int(self._cpu_ns() - self._began_ns)
        self.clock.now_ns = self._began[0] + spent
        self.clock.ksmd_cpu_ns = self._began[1] + spent
        return spent

    def _cpu_ns(self) -> float:
        """As `Work.ns`, for the kinds of work that UKSM does: it is asked at each event."""
        work, costs = self.work, self.costs
        return (
            work.visits * costs.visit_ns
            + work.absent * costs.absent_ns
            + work.uksm_bytes * costs.uksm_byte_ns
            + work.lines * costs.line_ns
            + work.compared_bytes * costs.compare_byte_ns
            + work.levels * costs.level_ns
            + work.ksm_pages * costs.ksm_page_ns
            + work.merges * costs.merge_ns
            + work.wakeups * costs.wakeup_ns
        )

    def account_hashes(self) -> None:
        """Account for the pages hashed since this was last done, all at the same strength."""
        pages, self.present = self.present, 0
        if not pages:
            return
        strength = self.strength.value
        self.work.visits += pages
        self.work.uksm_bytes += 4 * strength * pages
        self.work.lines += round(lines_read(strength) * pages)
        account = self.strength.account
        account.hashed += pages
        account.spared += words_saved(strength) * pages
        self.pages_scanned += pages

    def words_of_full_hash(self) -> int:
        """What a full hash reads beyond the partial one."""
        return MOST_STRENGTH - self.strength.value

    def full_hash(self, content: bytes) -> int:
        """A page's full hash, made from the partial one. Never 0."""
        strength = self.strength.value
        words = self.words_of_full_hash()
        self.strength.account.spent += words
        self.work.uksm_bytes += 4 * words
        self.work.lines += round(lines_read(MOST_STRENGTH) - lines_read(strength))
        self.tallies.full_hashes += 1
        return self.hashes.full(content)

    def search(self, nodes: int) -> None:
        """A tree of so many nodes was searched."""
        self._levels += log2(nodes + 2)
