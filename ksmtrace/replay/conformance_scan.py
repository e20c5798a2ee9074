"""The full-scan cycle as its events tell it: start, pages in order, the advisor, stop.

ksmd goes through its list of address spaces once a scan, and through each in ascending order of
address. A scan that starts without the one before having stopped was ended by run=2, or found
nobody on the list any more.
"""

from __future__ import annotations

from collections.abc import Callable

from ksmtrace.kernel.advisor import AdvisorKnobs, AdvisorState, decide
from ksmtrace.replay.conformance_processes import Processes
from ksmtrace.replay.conformance_state import (
    EXIT,
    Advice,
    Claim,
    Half,
    Impossible,
    Mm,
    Phase,
    Proven,
    Removal,
    Stage,
    World,
)

_UNSEEN_SCANS = 3
"""Added to the scan's ordinal where rmap_items may have been freed and made without an event."""
_SECOND = 1_000_000_000


class Scans:
    """Judges ksm_start_scan, ksm_stop_scan and ksm_advisor, and the order of visits."""

    def __init__(self, world: World, processes: Processes) -> None:
        self._world = world
        self._processes = processes
        self._advisor = Advisor(world)

    def knobs_changed(self) -> None:
        """What the advisor does from here on is not known from before."""
        self._advisor.forget()

    def start(self, _p: int, _i: int, _m: int, seq: int, _t: int, _e: int, rmap_items: int) -> None:
        """ksm_start_scan."""
        world = self._world
        self._nothing_expected()
        unmerged = self._check_start(seq, rmap_items)
        self._settle_claims(excused=unmerged)
        if world.phase is Phase.SCANNING:
            world.visits_exact = False
            if world.rmap_items and world.start_ts is not None:
                # The scan that did not stop has visited a page at least, before run=2 could end it.
                world.visits_due += max(1, world.seen)
        world.ordinal += _UNSEEN_SCANS if unmerged else 1
        if rmap_items == 0:
            self.nothing_left()
        world.phase = Phase.SCANNING
        world.seq = seq
        world.start_ts = world.ts
        world.rmap_items = rmap_items
        world.advised = False
        world.mm = world.item = None
        world.addr = -1
        world.stage = Stage.OVER
        world.visits += 1
        world.seen = world.fresh = 0
        world.missing.clear()

    def _check_start(self, seq: int, rmap_items: int) -> bool:
        """Whether run=2 must have been written since the last event of a scan."""
        world = self._world
        before = world.seq
        if world.phase is Phase.UNKNOWN:
            return False
        if world.phase is Phase.SCANNING:
            if before is not None and seq not in (before, 0):
                raise Impossible(
                    "scan number",
                    f"scan {seq} started, but scan {before} had not stopped",
                    f"after scan {before} without a stop comes scan {before}, or 0 after run=2",
                )
            if seq == 0 and before and rmap_items:
                raise self._items_after_unmerging(rmap_items)
            return True
        assert before is not None
        if seq == before + 1:
            return self._check_items(rmap_items)
        if seq != 0:
            raise Impossible(
                "scan number",
                f"scan {seq} started after scan {before}",
                f"after scan {before} comes scan {before + 1}, or 0 after run=2",
            )
        if rmap_items:
            raise self._items_after_unmerging(rmap_items)
        return True

    def _items_after_unmerging(self, rmap_items: int) -> Impossible:
        return Impossible(
            "rmap_entries",
            f"scan 0 started with {rmap_items} rmap_items, but run=2 frees them all",
        )

    def _check_items(self, rmap_items: int) -> bool:
        """Between scans rmap_items are only freed, and that by a run=2 that was interrupted."""
        world = self._world
        before = world.rmap_items
        assert before is not None
        if rmap_items > before:
            raise Impossible(
                "rmap_entries",
                f"a scan started with {rmap_items} rmap_items, more than the {before} there were"
                " when the one before stopped",
            )
        return rmap_items < before

    def _settle_claims(self, *, excused: bool) -> None:
        world = self._world
        if world.scan_claims:
            world.scan_claims.clear()
        claims = world.idle_claims
        if claims:
            world.idle_claims = []
            for claim in claims:
                if excused or claim.exits not in (None, world.exits):
                    continue
                if claim.exits is None:
                    raise Proven(claim.finding)
                self._processes.suspect(claim.finding, EXIT)

    def nothing_left(self) -> None:
        """There is no rmap_item: whatever is made from here on is seen."""
        world = self._world
        nobody_merged(world)
        world.items.clear()
        for mm in world.mms.values():
            mm.places.clear()

    def stop(self, _p: int, _i: int, _m: int, seq: int, _t: int, _e: int, rmap_items: int) -> None:
        """ksm_stop_scan."""
        world = self._world
        if type(world.expected) is Advice:
            world.expected = None
        self._nothing_expected()
        self.goes_on()
        if world.phase is Phase.IDLE:
            raise Impossible("scan order", f"scan {seq} stopped, but none was under way")
        if world.seq not in (None, seq):
            raise Impossible("scan number", f"scan {seq} stopped, but {world.scan} was under way")
        if rmap_items < world.seen:
            message = (
                f"scan {seq} stopped with {rmap_items} rmap_items, but {world.seen} were visited"
                " in it and could not be freed since"
            )
            world.idle_claims.append(Claim(world.finding("rmap_entries", message), world.exits))
        if world.knob("advisor_mode") == "scan-time" and not world.advised:
            self._advisor.silent(known_start=world.start_ts is not None)
        elif not world.advised:
            self._advisor.forget()
        if rmap_items == 0:
            self.nothing_left()
        if world.phase is Phase.SCANNING and world.seq is not None:
            world.visits_due += rmap_items
        else:
            world.visits_exact = False
        world.phase = Phase.IDLE
        world.seq = seq
        world.rmap_items = rmap_items
        world.stop_ts = world.ts
        world.stops += 1
        world.mm = world.item = None
        self._processes.scan_stopped()

    def _nothing_expected(self) -> None:
        if self._world.expected is not None:
            raise unfinished(self._world)

    def goes_on(self) -> None:
        """The scan under way was not ended by run=2: what only that would excuse is proven."""
        world = self._world
        if world.scan_claims:
            for claim in world.scan_claims:
                if claim.exits is None:
                    raise Proven(claim.finding)
            world.idle_claims += world.scan_claims
            world.scan_claims = []

    def must_be_under_way(self, what: str) -> None:
        """An event that only a scan can make."""
        world = self._world
        if world.phase is Phase.IDLE or (world.complete and world.phase is Phase.UNKNOWN):
            raise Impossible("scan order", f"{what}, but no scan was under way")
        world.phase = Phase.SCANNING

    def advise(
        self, _p: int, _i: int, _m: int, pages: int, _t: int, scan_time: int, cpu_percent: int
    ) -> None:
        """ksm_advisor."""
        world = self._world
        self._nothing_expected()
        self.goes_on()
        self.must_be_under_way("the advisor decided")
        world.advised = True
        world.stage = Stage.OVER
        world.expected = Advice(world.index)
        self._advisor.decided(scan_time, pages, cpu_percent)

    def move_to(self, mm: Mm) -> None:
        """Go on to an address space."""
        world = self._world
        left = world.mm
        if mm.done == world.ordinal:
            raise Impossible(
                "visit order", f"ksmd came to {self._world.process(mm)} twice in {world.scan}"
            )
        if left is not None:
            left.done = world.ordinal
            self.comes_after(mm, left)
        world.mm = mm
        stamp(mm, world)

    def comes_after(self, mm: Mm, before: Mm) -> None:
        """Remember that `mm` is behind another in ksmd's list, where it stays."""
        if (before, before.entries) in mm.after:
            world = self._world
            message = (
                f"ksmd came to {world.process(before)} before {world.process(mm)}, other than in"
                " an earlier scan"
            )
            finding = world.finding("visit order", message)
            self._processes.suspect(finding, ("enter", mm.pointer), ("enter", before.pointer))
        before.after.add((mm, mm.entries))


def stamp(mm: Mm, world: World) -> None:
    """Begin to count for this scan."""
    mm.seen_stops = world.stops
    if mm.in_scan != world.ordinal:
        mm.in_scan = world.ordinal
        mm.seen = mm.fresh = 0


def unfinished(world: World) -> Impossible:
    """Why no other event can come now."""
    expected = world.expected
    if isinstance(expected, Half):
        return Impossible(
            "two halves",
            f"{world.page_of(expected.item)} became a KSM page (event {expected.index}), but its"
            " twin was not mapped onto it next",
        )
    if isinstance(expected, Removal):
        return Impossible(
            "removal",
            f"rmap_items left the dead KSM page {expected.pfn:#x} (from event {expected.index} on),"
            " but the page was not removed next",
        )
    return Impossible("advisor", "the advisor decided, but the scan did not stop next")


def nobody_merged(world: World) -> None:
    """Nobody is on any KSM page; those that live on are known to be empty."""
    for item in world.items.values():
        item.node = None
    for mm in world.mms.values():
        mm.attached = mm.most = mm.fresh = 0
    for nodes in (world.nodes.values(), *world.older.values()):
        for node in nodes:
            node.items.clear()
            node.made = True
    world.attached = world.fresh = world.occupied = world.most = world.most_shared = 0
    world.closed = True


class Advisor:
    """Judges the scan-time advisor's decisions by its formula."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._scan_time = 0
        self._pages: int | None = None
        self._change: tuple[int, int] | None = None

    def forget(self) -> None:
        """A scan stopped without advice: the mode was off, and starts anew."""
        self._scan_time = 0
        self._pages = None
        self._change = None

    def silent(self, *, known_start: bool) -> None:
        """A scan stopped without advice although advisor_mode says scan-time."""
        if known_start:
            raise Impossible(
                "advisor", f"{self._world.scan} stopped without the advisor's decision"
            )
        self.forget()

    def decided(self, scan_time: int, pages: int, cpu_percent: int) -> None:
        """A decision. scan_time: seconds. pages: the new pages_to_scan."""
        if scan_time < 1 or cpu_percent < 1:
            raise Impossible("advisor", "the advisor's times are never below 1")
        self._check_time(scan_time)
        knobs = self._knobs()
        if knobs is None:
            self.forget()
            return
        if pages > knobs.max_pages_to_scan:
            raise Impossible(
                "advisor",
                f"the advisor chose {pages} pages, above advisor_max_pages_to_scan"
                f" ({knobs.max_pages_to_scan})",
            )
        self._check_formula(knobs, scan_time, pages, cpu_percent)
        self._scan_time = scan_time
        self._pages = pages

    def _check_time(self, scan_time: int) -> None:
        """The scan's duration by its own events; the first after a switch counts from boot."""
        world = self._world
        if world.start_ts is None or not self._scan_time:
            return
        seconds = max(1, (world.ts - world.start_ts) // _SECOND)
        if abs(seconds - scan_time) > 1:
            raise Impossible(
                "advisor", f"the advisor took {world.scan} to last {scan_time} s, not {seconds} s"
            )

    def _knobs(self) -> AdvisorKnobs | None:
        names = ("advisor_max_cpu", "advisor_max_pages_to_scan", "advisor_target_scan_time")
        if self._world.knob("advisor_mode") != "scan-time":
            return None
        values = [self._world.knob(name) for name in names]
        if any(value is None for value in values):
            return None
        return AdvisorKnobs(*(int(value) for value in values if value is not None))

    def _check_formula(
        self, knobs: AdvisorKnobs, scan_time: int, pages: int, cpu_percent: int
    ) -> None:
        """Keep what the change can be; impossible if nothing is left.

        The change is not told. The number of pages grows with it, so that those that give the
        pages told are an interval.
        """
        if self._pages is None:
            self._change = None
            return
        before = self._change or (0, 1 << 32)

        def outcome(change: int) -> tuple[int, int]:
            decision = decide(
                AdvisorState(self._scan_time, change),
                knobs,
                pages_to_scan=self._pages or 0,
                scan_ns=scan_time * _SECOND,
                ksmd_cpu_ns=cpu_percent * scan_time * 10_000_000,
            )
            return decision.pages_to_scan, decision.state.change

        low = _first(before[0], before[1], lambda change: outcome(change)[0] >= pages)
        high = _first(before[0], before[1], lambda change: outcome(change)[0] > pages) - 1
        if low > high:
            raise Impossible(
                "advisor",
                f"the advisor went from {self._pages} to {pages} pages, which its formula does not"
                " give",
                f"scan time {scan_time} s after {self._scan_time} s, CPU {cpu_percent} %,"
                f" change between {before[0]} and {before[1]} before",
                f"it would give {outcome(before[0])[0]} to {outcome(before[1])[0]} pages",
            )
        self._change = outcome(low)[1], outcome(high)[1]


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number from low to high for which a condition holds that stays true; or high+1."""
    while low <= high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle - 1
        else:
            low = middle + 1
    return low
