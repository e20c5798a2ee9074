"""Conformance: a stream of events and samples, judged one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from ksmtrace.events.batch import EventBatch, concatenate, empty, of_kind
from ksmtrace.events.registry import (
    BY_ID,
    COW_BREAK,
    KSM_ADVISOR,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
    LOST,
    RANGE_LEFT,
)
from ksmtrace.kernel.releases import Profile
from ksmtrace.replay.conformance_counters import Counters
from ksmtrace.replay.conformance_pages import Pages
from ksmtrace.replay.conformance_processes import Processes
from ksmtrace.replay.conformance_removals import Removals
from ksmtrace.replay.conformance_scan import Scans
from ksmtrace.replay.conformance_state import (
    Claim,
    Finding,
    Impossible,
    Phase,
    Proven,
    World,
)
from ksmtrace.replay.conformance_times import KSMD_S, Times
from ksmtrace.replay.conformance_words import told

_LINES_BEFORE = 3
_AT_ONCE = 1 << 14

Handler = Callable[[int, int, int, int, int, int, int], None]
"""pfn, item, mm, addr, tgid, err, arg."""


class Conformance:
    """Says whether a stream can be what ksmd did, and names the first event that can't be.

    profile: the kernel. knobs: their values, None for those not known to stay the same; see
    `knobs`. complete: the stream has every event since KSM was empty; otherwise anything may have
    been there before. filtered: other processes' events are left out. fields_unknown: as a source
    tells it. names: what processes are called. page_bytes, item_bytes: sizes of a page and a
    rmap_item, None if not known. one_zero_page: as on most machines.

    Feed `events` and `counters` in the order of time, then call `finish`. Any batching gives the
    same finding.
    """

    def __init__(
        self,
        profile: Profile,
        knobs: Mapping[str, str | None] | None,
        *,
        complete: bool,
        fields_unknown: Collection[str] = (),
        filtered: bool = False,
        names: Mapping[int, str] | None = None,
        page_bytes: int = 4096,
        item_bytes: int | None = 64,
        one_zero_page: bool = True,
    ) -> None:
        self._profile = profile
        self._knobs = dict(knobs or {})
        self._unknown = frozenset(fields_unknown)
        self._filtered = filtered
        self._names = dict(names or {})
        self._one_zero_page = one_zero_page
        self._bytes = page_bytes, item_bytes
        self._finding: Finding | None = None
        self._index = 0
        self._at_hand = self._tail = empty()
        self._last_on_cpu: dict[int, int] = {}
        self._times = Times(profile)
        self._counters = Counters(page_bytes, item_bytes)
        self._begin(complete=complete and not filtered)

    def _begin(self, *, complete: bool) -> None:
        """Know nothing, or that there is nothing."""
        world = self._world = World(
            self._profile, self._knobs, self._unknown, self._names, self._lines,
            complete=complete, filtered=self._filtered, one_zero_page=self._one_zero_page,
        )  # fmt: skip
        self._processes = Processes(world)
        self._scans = Scans(world, self._processes)
        self._counters.begin_with(world, self._processes)
        self._handlers = self._handlers_of_filtered() if self._filtered else self._handlers_of_all()

    def _handlers_of_all(self) -> dict[int, Handler]:
        pages = Pages(self._world, self._processes, self._scans)
        removals = Removals(self._world, self._processes)
        return {
            # No events of KSM's: what processes do beside it.
            COW_BREAK.id: _nothing,
            RANGE_LEFT.id: _nothing,
            KSM_START_SCAN.id: self._start,
            KSM_STOP_SCAN.id: self._scans.stop,
            KSM_ADVISOR.id: self._scans.advise,
            KSM_MERGE_ONE_PAGE.id: pages.merge_one_page,
            KSM_MERGE_WITH_KSM_PAGE.id: pages.merge_with_ksm_page,
            KSM_ENTER.id: self._processes.enter,
            KSM_EXIT.id: self._processes.exit,
            KSM_REMOVE_RMAP_ITEM.id: removals.remove_rmap_item,
            KSM_REMOVE_KSM_PAGE.id: removals.remove_ksm_page,
        }

    def _handlers_of_filtered(self) -> dict[int, Handler]:
        """Of what is left out, only its place in the order can't be wrong."""
        pages = Pages(self._world, self._processes, self._scans)
        return {
            **dict.fromkeys(BY_ID, _nothing),
            KSM_START_SCAN.id: self._start,
            KSM_STOP_SCAN.id: self._scans.stop,
            KSM_ADVISOR.id: self._scans.advise,
            KSM_MERGE_ONE_PAGE.id: pages.merge_one_page_among_others,
            KSM_MERGE_WITH_KSM_PAGE.id: pages.merge_with_ksm_page_among_others,
        }

    def _start(self, p: int, i: int, m: int, addr: int, t: int, e: int, arg: int) -> None:
        if self._world.phase is Phase.UNKNOWN:
            self._counters.first_scan_starts()
        self._scans.start(p, i, m, addr, t, e, arg)

    @property
    def finding(self) -> Finding | None:
        """The first thing that can't be; taken back where a loss turns out to cover it."""
        return self._finding

    def knobs(self, values: Mapping[str, str | None]) -> None:
        """Knobs have other values from here on, or (None) ones that are not known."""
        self._knobs.update(values)
        self._scans.knobs_changed()

    def skip(self, events: int) -> None:
        """So many events are left out; they are only counted."""
        self._index += events

    # Samples.

    def counters(
        self,
        ts: int,
        values: Mapping[str, int],
        *,
        tgid: int | None = None,
        until: int | None = None,
    ) -> None:
        """A sample was taken at this place in the stream, beginning at `ts`.

        values: by name in sysfs, or for a tgid in its ksm_stat. until: when its reading was over;
        None: in no time, and ksmd stood still.
        """
        if self._finding is not None:
            return
        try:
            self._close_samples(ts)
            self._world.index = self._index
            self._counters.begin(ts, until, values, tgid)
            if until is None:
                self._counters.end(self._counters.open[-1])
        except Proven as proven:
            self._found(proven.finding)

    def _close_samples(self, ts: int) -> None:
        """Samples that were over before `ts`, oldest first."""
        for sample in list(self._counters.open):
            if sample.until is None or sample.until < ts:
                self._counters.end(sample)

    # Events.

    def events(self, batch: EventBatch) -> None:
        """Judge a batch."""
        while len(batch):
            size = min(len(batch), _AT_ONCE)
            if self._finding is None and self._counters.open:
                size = self._until_a_sample_ends(batch[:size])
            self._judge(batch[:size])
            batch = batch[size:]

    def _until_a_sample_ends(self, batch: EventBatch) -> int:
        """Close the samples that ended before a batch; how many events come before the next end."""
        try:
            self._world.index = self._index
            self._close_samples(int(batch["ts"][0]))
        except Proven as proven:
            self._found(proven.finding)
            return len(batch)
        if not self._counters.open:
            return len(batch)
        earliest = min(s.until for s in self._counters.open if s.until is not None)
        later = np.flatnonzero(batch["ts"] > earliest)
        size = int(later[0]) if len(later) else len(batch)
        if of_kind(batch[:size], *KSMD_S).any():
            for sample in self._counters.open:
                sample.blurred = True
        return max(size, 1)

    def _judge(self, batch: EventBatch) -> None:
        lost = np.flatnonzero(of_kind(batch, LOST))
        done = 0
        for row in lost.tolist():
            self._judge_whole(batch[done:row])
            self._lose(batch[row : row + 1])
            done = row + 1
        self._judge_whole(batch[done:])

    def _judge_whole(self, batch: EventBatch) -> None:
        """Events without a loss among them."""
        if not len(batch):
            return
        if self._finding is None:
            self._at_hand = batch
            finding = self._run(batch)
            if finding is not None:
                self._found(finding)
        for cpu in np.unique(batch["cpu"]).tolist():
            last = np.flatnonzero(batch["cpu"] == cpu)[-1]
            self._last_on_cpu[cpu] = self._index + int(last)
        self._pass(batch)

    def _pass(self, batch: EventBatch) -> None:
        """They are behind us."""
        self._tail = concatenate([self._tail, batch[-_LINES_BEFORE:]])[-_LINES_BEFORE:].copy()
        self._at_hand = empty()
        self._index += len(batch)

    def _lines(self) -> Iterator[str]:
        """The event at hand, and some before it."""
        at = self._world.index
        begin = self._index - len(self._tail)
        rows = concatenate([self._tail, self._at_hand[: at - self._index + 1]])
        for index in range(max(at - _LINES_BEFORE, begin), at + 1):
            if index - begin < len(rows):
                yield told(index, rows[index - begin].item())

    def _run(self, batch: EventBatch) -> Finding | None:
        """Judge each event; the first finding ends it."""
        misplaced = self._times.first_impossible(batch)
        end = len(batch) if misplaced is None else misplaced[0]
        world, handlers = self._world, self._handlers
        index = self._index
        columns = (batch[name][:end].tolist() for name in _SLOTS)
        kind = 0
        try:
            for kind, ts, pfn, item, mm, addr, tgid, err, arg in zip(*columns, strict=True):
                world.index = index
                world.ts = ts
                handlers[kind](pfn, item, mm, addr, tgid, err, arg)
                index += 1
        except Impossible as impossible:
            return world.finding(impossible.rule, impossible.message, *impossible.state)
        except Proven as proven:
            return proven.finding
        except KeyError:
            if kind in handlers:
                raise
            return world.finding("kind", f"there is no event of kind {kind}")
        if misplaced is None:
            return None
        world.index, world.ts = index, int(batch["ts"][end])
        return world.finding(*misplaced[1:])

    # Losses, findings, the end.

    def _lose(self, lost: EventBatch) -> None:
        """Events of a CPU are missing, somewhere between its last event and here."""
        cpu = int(lost["cpu"][0])
        finding = self._finding
        if finding is not None and self._last_on_cpu.get(cpu, -1) < finding.index:
            self._finding = None
        self._counters.lost()
        self._begin(complete=False)
        self._last_on_cpu[cpu] = self._index
        self._times.lost()
        self._pass(lost)

    def _found(self, finding: Finding) -> None:
        """Keep a finding, in words that say where it is."""
        before = "counters before event" if finding.rule == "counters" else "event"
        phase = f"ksmd: {self._world.phase.value}, {self._world.scan}"
        self._finding = replace(
            finding,
            message=f"{before} {finding.index}: {finding.message}",
            state=(*(line for line in finding.state if line), phase),
        )

    def finish(self) -> Finding | None:
        """The stream ends here. Returns the finding."""
        if self._finding is None:
            try:
                self._end()
            except Proven as proven:
                self._found(proven.finding)
        return self._finding

    def _end(self) -> None:
        world = self._world
        world.index = self._index
        for sample in list(self._counters.open):
            self._counters.end(sample)
        if self._knobs.get("run") == "1":
            self._prove_claims(world.idle_claims)
        self._processes.prove_suspicions(1)
        self._prove_strangers()

    def _prove_claims(self, claims: list[Claim]) -> None:
        for claim in claims:
            if claim.exits is None:
                raise Proven(claim.finding)

    def _prove_strangers(self) -> None:
        """KSM pages that no event made must have been others before, not seen elsewhere since."""
        world = self._world
        known = [node for nodes in (world.nodes.values(), *world.older.values()) for node in nodes]
        for stranger, finding in world.strangers.items():
            others = (node for node in known if node.pfn != stranger.pfn)
            if all(node.last >= stranger.first for node in others):
                raise Proven(finding)


_SLOTS = ("kind", "ts", "pfn", "item", "mm", "addr", "tgid", "err", "arg")


def _nothing(*_slots: int) -> None:
    """What can't be judged."""
