"""Samples of counters, held against what the events allow.

ksmd changes its counters while they are read, one file after the other. So a sample is taken at its
word where ksmd slept all the while: after ksm_stop_scan, before the next ksm_start_scan, with no
event of ksmd in between. There the counters add up, to the page. Whether ksmd slept, and was not
unmerging everything (run=2), the next ksm_start_scan tells: until then a contradiction is a claim.

The bounds, between two such samples:
  pages_shared + pages_sharing   at most the sample before, plus attachments, less removals; and at
                                 most who is attached by events; at least who was in this scan
  pages_shared                   at most the sample before, plus new KSM pages and first
                                 attachments of the scan, less dead ones
  pages_unshared, pages_volatile with the above: rmap_entries of ksm_stop_scan, exactly
  pages_scanned + pages_skipped  each scan visits all rmap_items there are at its end (6.10)
  ksm_zero_pages                 at most the sample before, plus merges with the zero page, if
                                 nobody forked; below it anything: users write to such pages
  stable_node_chains, _dups      grow by new KSM pages only, shrink by chains that collapse
  full_scans                     the number of the last scan plus one
  general_profit                 follows from the others and rmap_entries
  cow_ksm, ksm_swpin_copy, pages_scanned, pages_skipped, ksmd_cpu_ns    never fall
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from ksmtrace.replay.conformance_processes import Processes
from ksmtrace.replay.conformance_scan import nobody_merged
from ksmtrace.replay.conformance_state import (
    FORK,
    UNLIMITED,
    Claim,
    Finding,
    Mm,
    Phase,
    Proven,
    World,
)

_NEVER_FALL = ("pages_scanned", "pages_skipped", "cow_ksm", "ksm_swpin_copy", "ksmd_cpu_ns")
_NEVER_NEGATIVE = (
    *_NEVER_FALL, "full_scans", "pages_shared", "pages_sharing", "pages_unshared",
    "pages_volatile", "stable_node_chains", "stable_node_dups", "ksm_rmap_items",
    "ksm_merging_pages",
)  # fmt: skip
_SECOND = 1_000_000_000
_TICK_NS = _SECOND
"""How late the kernel may be with the CPU time of a running task."""


@dataclass
class Sample:
    """One reading.

    tgid: of a process, None for the host. until: when it was over, None if it was done in no time
    while ksmd stood still.
    phase, seq, most, attachments, forks: as they were when it began. blurred: ksmd went on.
    """

    ts: int
    until: int | None
    values: Mapping[str, int]
    tgid: int | None
    index: int
    phase: Phase
    seq: int | None
    most: int
    zero_most: int
    attachments: int
    zero_merges: int
    forks: int
    blurred: bool = False


@dataclass
class _Chains:
    """stable_node_chains and stable_node_dups as sampled last, and what had happened by then."""

    chains: int
    dups: int
    created: int
    gone: int


@dataclass
class _Before:
    """What earlier samples said. visits: pages_scanned + pages_skipped when ksmd slept."""

    values: dict[str, int] = field(default_factory=dict)
    ts: int = 0
    visits: int | None = None
    exits: int = 0
    forks: int = 0
    chains: _Chains | None = None


class Counters:
    """Judges samples. page_bytes, item_bytes: sizes of a page and of a rmap_item, None unknown."""

    def __init__(self, page_bytes: int, item_bytes: int | None) -> None:
        self._page_bytes = page_bytes
        self._item_bytes = item_bytes
        self._before = _Before()
        self._waiting: list[Sample] = []
        self.open: list[Sample] = []

    def begin_with(self, world: World, processes: Processes) -> None:
        """Hold samples against what is known there from here on."""
        self._world = world
        self._processes = processes
        behaviour = world.profile.behaviour
        self._shared_zero = behaviour.fork_counters == "fresh"
        self._visits_counted = behaviour.pages_scanned == "exact"

    def begin(
        self, ts: int, until: int | None, values: Mapping[str, int], tgid: int | None
    ) -> None:
        """A sample begins here in the stream."""
        world = self._world
        most = world.most
        self.open.append(
            Sample(
                ts, until, values, tgid, world.index, world.phase, world.seq, most,
                world.zero_most, world.attachments, world.zero_merges, world.forks,
            )
        )  # fmt: skip

    def end(self, sample: Sample) -> None:
        """It is over, and no later event came before that."""
        self.open.remove(sample)
        if sample.tgid is None:
            self._check_plain(sample)
            self._check_ever_growing(sample)
            if sample.blurred or sample.phase is Phase.SCANNING:
                self._check_under_way(sample)
            elif sample.phase is Phase.UNKNOWN:
                self._waiting.append(sample)
            else:
                assert self._world.rmap_items is not None
                self._check_idle(sample, self._world.rmap_items)
        elif not sample.blurred and sample.phase is Phase.IDLE:
            assert self._world.rmap_items is not None
            self._check_process(sample, self._world.rmap_items)

    def lost(self) -> None:
        """Events were lost: nothing that was known of ksmd's state holds."""
        self._waiting.clear()
        before = self._before
        before.visits = before.chains = None
        for sample in self.open:
            sample.blurred = True
            sample.most = sample.zero_most = UNLIMITED

    def first_scan_starts(self) -> None:
        """Samples of before the first event of a scan, which starts now.

        Whether ksmd slept, or was in a scan that run=2 then ended, is not known: what they say is
        only where the next begin.
        """
        waiting, self._waiting = self._waiting, []
        for sample in waiting if not self._world.filtered else ():
            self._check_merged(sample)
            self._check_visits(sample)
            self._world.visits_exact = False
            zero = sample.values.get("ksm_zero_pages")
            if zero is not None:
                self._check_zero(sample, zero)
            if sample.values.get("pages_shared") == 0:
                nobody_merged(self._world)

    # Findings.

    def _finding(self, sample: Sample, message: str, *state: str) -> Finding:
        who = "" if sample.tgid is None else f" of {self._world.tgid(sample.tgid)}"
        numbers = ", ".join(f"{name} {value}" for name, value in sample.values.items())
        return Finding(
            sample.index, sample.ts, "counters", message, (*state, f"the sample{who}: {numbers}")
        )

    def _refuse(self, sample: Sample, message: str, *state: str) -> None:
        """It can't be, whatever follows."""
        raise Proven(self._finding(sample, message, *state))

    def _claim(self, sample: Sample, message: str, *, exits: bool = False) -> None:
        """It can't be, unless everything was being unmerged, or (exits) an mm has exited."""
        world = self._world
        claim = Claim(self._finding(sample, message), world.exits if exits else None)
        (world.scan_claims if sample.phase is Phase.SCANNING else world.idle_claims).append(claim)

    # What holds at any time.

    def _check_plain(self, sample: Sample) -> None:
        values = sample.values
        for name in _NEVER_NEGATIVE:
            if values.get(name, 0) < 0:
                self._refuse(sample, f"{name} is negative: {values[name]}")

    def _check_ever_growing(self, sample: Sample) -> None:
        before = self._before
        for name in _NEVER_FALL:
            now = sample.values.get(name)
            if now is None:
                continue
            if now < before.values.get(name, 0):
                self._refuse(sample, f"{name} fell from {before.values[name]} to {now}")
            if name == "ksmd_cpu_ns" and name in before.values:
                self._check_cpu(sample, now - before.values[name])
            before.values[name] = now
        before.ts = sample.ts

    def _check_cpu(self, sample: Sample, spent: int) -> None:
        passed = (sample.ts if sample.until is None else sample.until) - self._before.ts
        if spent > passed + _TICK_NS:
            self._refuse(
                sample, f"ksmd used {spent} ns of CPU time in {passed} ns: it is one thread"
            )

    def _check_under_way(self, sample: Sample) -> None:
        """A sample that ksmd changed the counters under."""
        world = self._world
        values = sample.values
        if not world.filtered:
            self._check_total(sample)
        zero = values.get("ksm_zero_pages")
        bound = sample.zero_most + world.zero_merges - sample.zero_merges
        # A merge is counted just before its event.
        if zero is not None and zero > bound + 1 and sample.forks == world.forks:
            self._suspect_fork(sample, zero, bound)
        scans = values.get("full_scans")
        if sample.blurred or scans is None or sample.seq is None:
            return
        if scans != sample.seq:
            self._claim(sample, f"full_scans is {scans} while scan {sample.seq} is under way")

    def _check_total(self, sample: Sample) -> None:
        """Who is on KSM pages at most."""
        world = self._world
        shared, sharing = sample.values.get("pages_shared"), sample.values.get("pages_sharing")
        if shared is None or sharing is None:
            return
        bound = sample.most + world.attachments - sample.attachments
        if shared + sharing > bound:
            self._refuse(
                sample,
                f"{shared + sharing} pages are merged, but no more than {bound} can be",
                "the sample before, plus merges, less removals seen since",
            )

    def _suspect_fork(self, sample: Sample, zero: int, bound: int) -> None:
        if self._shared_zero:
            # A child's ksm_enter may come after its pages were counted.
            finding = self._finding(
                sample, f"ksm_zero_pages is {zero}, but no more than {bound} pages can be"
            )
            self._processes.suspect(finding, FORK)
        else:
            self._refuse(sample, f"ksm_zero_pages is {zero}, but no more than {bound} can be")

    # What holds while ksmd sleeps.

    def _check_idle(self, sample: Sample, rmap_items: int) -> None:
        rmap_items = self._check_full_scans(sample, rmap_items)
        self._check_sum(sample, rmap_items)
        self._check_profit(sample, rmap_items)
        self._check_visits(sample)
        if self._world.filtered:
            return
        self._check_merged(sample)
        self._check_chains(sample)
        if sample.values.get("pages_shared") == 0:
            nobody_merged(self._world)

    def _check_full_scans(self, sample: Sample, rmap_items: int) -> int:
        """The number of scans, 0 after run=2. Returns how many rmap_items there are then."""
        world = self._world
        scans = sample.values.get("full_scans")
        if scans is None or sample.seq is None:
            return rmap_items
        stopped = sample.seq
        if scans == stopped + 1:
            return rmap_items
        # The scan is counted just after its last event.
        if scans == stopped and sample.until is not None and sample.ts - world.stop_ts < _SECOND:
            return rmap_items
        self._claim(sample, f"full_scans is {scans} after scan {stopped}")
        return 0 if scans == 0 else rmap_items

    def _check_sum(self, sample: Sample, rmap_items: int) -> None:
        parts = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")
        values = [sample.values[name] for name in parts if name in sample.values]
        if len(values) == len(parts) and sum(values) != rmap_items:
            self._claim(
                sample,
                f"{' + '.join(map(str, values))} ({', '.join(parts)}) is not the {rmap_items}"
                " rmap_items that there are",
            )

    def _check_merged(self, sample: Sample) -> None:
        world = self._world
        shared, sharing = sample.values.get("pages_shared"), sample.values.get("pages_sharing")
        if shared is None or sharing is None:
            return
        self._check_total(sample)
        total = shared + sharing
        if world.closed and total > world.attached:
            self._refuse(
                sample,
                f"{total} pages are merged, but events have put only {world.attached} on KSM pages",
            )
        most = min(world.most_shared, self._occupied() if world.closed else UNLIMITED)
        if shared > most:
            self._refuse(sample, f"there are {shared} KSM pages, but no more than {most} can be")
        if sharing and not shared:
            self._refuse(sample, f"{sharing} pages share KSM pages, but there is none")
        if total < world.fresh:
            self._claim(
                sample,
                f"{total} pages are merged, but {world.fresh} were merged in {world.scan} alone",
                exits=True,
            )
        world.most, world.most_shared = total, shared
        if world.closed and total == world.attached:
            world.sure = world.ordinal

    def _occupied(self) -> int:
        """KSM pages that somebody may be on. One that no event made is one of the others."""
        world = self._world
        if not world.strangers:
            return world.occupied
        known = [*world.nodes.values(), *chain.from_iterable(world.older.values())]
        return min(world.occupied, sum(node not in world.strangers for node in known))

    def _check_profit(self, sample: Sample, rmap_items: int) -> None:
        """general_profit tells ksm_zero_pages once more, a moment later."""
        world = self._world
        values = sample.values
        zero = values.get("ksm_zero_pages")
        if zero is not None and not world.filtered:
            self._check_zero(sample, zero)
        profit, sharing = values.get("general_profit"), values.get("pages_sharing")
        if profit is None or sharing is None or self._item_bytes is None:
            return
        saved, rest = divmod(profit + rmap_items * self._item_bytes, self._page_bytes)
        if rest:
            self._claim(
                sample, f"general_profit is {profit}: with {rmap_items} rmap_items no whole page"
            )
        elif zero is None and saved != sharing:
            self._claim(
                sample,
                f"general_profit is {profit}: that of {saved} pages, but {sharing} are saved",
            )
        elif zero is not None and saved - sharing > zero and sample.forks == world.forks:
            self._claim(
                sample,
                f"general_profit is {profit}: that of {saved} pages, but {sharing} + {zero} are"
                " saved",
            )
        elif zero is not None and not world.filtered and sample.forks == world.forks:
            world.zero_most = min(world.zero_most, saved - sharing)

    def _check_zero(self, sample: Sample, zero: int) -> None:
        world = self._world
        before, self._before.forks = self._before.forks, sample.forks
        bound = world.zero_most if before == sample.forks else UNLIMITED
        if zero > bound:
            self._suspect_fork(sample, zero, bound)
        world.zero_most = zero if sample.forks == world.forks else UNLIMITED

    def _check_chains(self, sample: Sample) -> None:
        """A new KSM page may make a chain of two, or join one; a dead one leaves its chain."""
        world = self._world
        chains = sample.values.get("stable_node_chains")
        dups = sample.values.get("stable_node_dups")
        nodes = world.knob("merge_across_nodes")
        before, self._before.chains = self._before.chains, None
        if chains is None or dups is None or nodes != "1":
            return
        self._before.chains = _Chains(chains, dups, world.created, world.gone)
        if before is None:
            return
        created, gone = world.created - before.created, world.gone - before.gone
        made = chains - before.chains
        if made > created:
            self._refuse(
                sample,
                f"stable_node_chains went from {before.chains} to {chains}, but only {created} KSM"
                " pages were made",
            )
        if dups - before.dups > 2 * created:
            self._refuse(
                sample,
                f"stable_node_dups went from {before.dups} to {dups}, but only {created} KSM pages"
                " were made",
            )
        if dups - 2 * chains < before.dups - 2 * before.chains - gone:
            self._refuse(
                sample,
                f"{chains} chains of {dups} KSM pages were {before.chains} of {before.dups}, but"
                f" only {gone} KSM pages died",
            )

    def _check_visits(self, sample: Sample) -> None:
        """Each scan visits or skips every rmap_item that is there when it stops."""
        world = self._world
        before = self._before
        due, exact = world.visits_due, world.visits_exact
        world.visits_due, world.visits_exact = 0, True
        scanned, skipped = sample.values.get("pages_scanned"), sample.values.get("pages_skipped")
        if scanned is None or not self._visits_counted:
            return
        now = scanned + (skipped or 0)
        last, before.visits = before.visits, now
        exits, before.exits = before.exits, world.exits
        if last is None:
            return
        visits = now - last
        if visits < due:
            self._refuse(
                sample,
                f"{visits} visits since the sample before, but the scans stopped with {due}"
                " rmap_items",
            )
        elif visits > due and exact and exits == world.exits and not world.filtered:
            self._claim(
                sample,
                f"{visits} visits since the sample before, but the scans stopped with only {due}"
                " rmap_items",
                exits=True,
            )

    # Processes.

    def _check_process(self, sample: Sample, rmap_items: int) -> None:
        """A process's own counters while ksmd sleeps."""
        values = sample.values
        self._check_plain(sample)
        for name in ("ksm_merge_any", "ksm_mergeable"):
            if values.get(name, 0) not in (0, 1):
                self._refuse(sample, f"{name} is {values[name]}: it is yes or no")
        mm = None if self._world.filtered else self._mm_of(sample)
        if mm is not None:
            self._check_opted_in(sample, mm)
        self._check_process_profit(sample, mm)
        if not self._shared_zero:
            # A child's numbers begin with its parent's.
            return
        items, merging = values.get("ksm_rmap_items"), values.get("ksm_merging_pages")
        if items is None or merging is None:
            return
        if not merging <= items <= rmap_items:
            self._claim(
                sample,
                f"{merging} merged pages, {items} rmap_items and {rmap_items} in all do not fit",
            )
        if mm is not None:
            self._check_merging(sample, mm, items, merging)

    def _check_opted_in(self, sample: Sample, mm: Mm) -> None:
        """Who has opted out has no merged page left, once ksmd has passed.

        The last mergeable region unshares its pages as it goes, and prctl() all of them.
        """
        world = self._world
        merging = sample.values.get("ksm_merging_pages")
        fresh = mm.fresh if mm.in_scan == world.ordinal else 0
        passed = self._shared_zero and mm.opted_out == world.ordinal - 1
        if passed and merging is not None and merging > fresh:
            self._claim(
                sample,
                f"{world.process(mm)} has {merging} merged pages, but had opted out before"
                f" {world.scan}, in which {fresh} were merged",
            )
        merge_any = sample.values.get("ksm_merge_any", 0)
        if sample.values.get("ksm_mergeable") == 0 or mm.merge_any > merge_any:
            mm.opted_out = world.ordinal
        mm.merge_any = merge_any

    def _mm_of(self, sample: Sample) -> Mm | None:
        """The address space that ksmd knew the process by in the last scan."""
        world = self._world
        mm = world.owners.get(sample.tgid or 0)
        if mm is None or mm.exited or mm.dead or mm.tgid != sample.tgid:
            return None
        if mm.entered is not None and mm.entered >= world.ordinal:
            # It may be about to exec: what is read is another one still.
            return None
        return mm

    def _check_merging(self, sample: Sample, mm: Mm, items: int, merging: int) -> None:
        world = self._world
        most = min(mm.most, mm.attached) if world.closed else mm.most
        if merging > most:
            self._refuse(
                sample,
                f"{world.process(mm)} has {merging} merged pages, but no more than {most} can be",
            )
        here = mm.in_scan == world.ordinal
        if here and (merging < mm.fresh or items < mm.seen):
            self._claim(
                sample,
                f"{world.process(mm)} has {items} rmap_items and {merging} merged pages, but in"
                f" {world.scan} {mm.seen} were visited and {mm.fresh} merged",
                exits=True,
            )
        mm.most = merging
        if world.closed and merging == mm.attached:
            mm.sure = world.ordinal

    def _check_process_profit(self, sample: Sample, mm: Mm | None) -> None:
        values = sample.values
        items, merging = values.get("ksm_rmap_items"), values.get("ksm_merging_pages")
        profit, zero = values.get("ksm_process_profit"), values.get("ksm_zero_pages")
        if items is None or merging is None or profit is None or self._item_bytes is None:
            return
        saved, rest = divmod(profit + items * self._item_bytes, self._page_bytes)
        if rest or (zero is None and saved != merging):
            self._claim(sample, f"ksm_process_profit is {profit}: it does not follow")
            return
        if zero is None:
            return
        if saved - merging > zero:
            self._claim(
                sample,
                f"ksm_process_profit is {profit}: that of {saved} pages, but only {merging} +"
                f" {zero} are saved",
            )
        if mm is not None:
            bound = mm.zero_most
            if self._shared_zero and sample.forks == self._world.forks:
                bound = min(bound, self._world.zero_most)
            if zero > bound:
                self._refuse(
                    sample,
                    f"{self._world.process(mm)} has {zero} zero pages, but no more than {bound}"
                    " can be",
                )
            mm.zero_most = saved - merging
