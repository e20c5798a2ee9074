"""Legal executions of ksmd, to be judged as they are or spoilt: recorded ones and the model's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ksmtrace.events.batch import EventBatch, concatenate, empty
from ksmtrace.kernel.releases import Profile, profile, profile_of_host
from ksmtrace.model import Clock, KnobRefused, KsmScanner, Memory, MemoryFault, Mm
from ksmtrace.model.memory import Frame
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.conformance import Conformance, Finding, Reading
from ksmtrace.replay.conformance_recording import FOREVER, judge, readings, trusted_time

PAGE = 4096
_EVENT_NS = 1_000
_STEP_NS = 1_000_000
_FIRST_TGID = 71
_REGION = 1 << 30


@dataclass(frozen=True)
class Execution:
    """Events and samples in the order of time, with what is known of them.

    complete: nothing was there before. knobs: those that never changed. time: in which every event
    is there.
    """

    name: str
    profile: Profile
    events: EventBatch
    samples: Sequence[Reading]
    complete: bool
    knobs: Mapping[str, str | None] = field(default_factory=dict)
    fields_unknown: tuple[str, ...] = ()
    filtered: bool = False
    time: tuple[int, int] = (0, FOREVER)

    def judged(self, parts: Sequence[EventBatch] | None = None) -> Finding | None:
        """What the check finds. parts: the events in other batches than one."""
        conformance = Conformance(
            self.profile,
            self.knobs,
            complete=self.complete,
            fields_unknown=self.fields_unknown,
            filtered=self.filtered,
        )
        judge(conformance, [self.events] if parts is None else parts, self.samples, self.time)
        return conformance.finding

    def with_(self, events: EventBatch, samples: Sequence[Reading]) -> Execution:
        """The same with other events and samples."""
        return replace(self, events=events, samples=samples)


def recorded(path: Path) -> Execution:
    """A recording."""
    recording = StoredRecording(path)
    samples = readings(recording)
    return Execution(
        path.name,
        profile_of_host(recording.manifest["kernel"]),
        concatenate(list(recording.event_batches())),
        samples,
        complete=False,
        fields_unknown=tuple(recording.manifest["fields_unknown"]),
        time=trusted_time(recording, samples),
    )


Step = tuple[str, int, int]
"""An action's name and two numbers that say where and how."""

ACTIONS: Mapping[str, int] = {
    "write": 9, "scan": 9, "batch": 3, "map": 2, "discard": 2, "unmap": 1, "fork": 2, "exit": 1,
    "unmergeable": 1, "mergeable": 1, "unmerge": 1, "limit": 1, "zero": 3, "zero_pages": 2,
    "smart": 1, "pin": 1, "unpin": 1, "move": 1, "protect": 1, "exec": 1, "merge_any": 1,
    "migrate": 1, "read": 1,
}  # fmt: skip
"""What can happen, and how often in a random execution."""


def random_steps(seed: int, count: int) -> list[Step]:
    """So many random steps, the same for the same seed."""
    dice = random.Random(f"steps {seed}")
    names = dice.choices(list(ACTIONS), list(ACTIONS.values()), k=count)
    return [(name, dice.randrange(1 << 16), dice.randrange(1 << 16)) for name in names]


def simulated(
    steps: Iterable[Step],
    kernel: str,
    *,
    limit: int = 256,
    recycle: bool = False,
    since: int | None = None,
    visit_ns: int | None = None,
) -> Execution:
    """What the model does in some steps, sampled after each.

    limit: max_page_sharing to begin with. recycle: use the numbers of dead frames, rmap_items and
    address spaces again, as a kernel does. since: the step with which the stream begins; None: all
    of it, which is complete. visit_ns: take the model's own clock; otherwise events are a
    microsecond apart, as those of a real ksmd are.
    """
    actor = _Actor(kernel, limit, visit_ns or 0)
    recycler = _Recycler(actor) if recycle else None
    batches: list[EventBatch] = []
    samples: list[Reading] = []
    now = _STEP_NS
    for number, (name, where, how) in enumerate(steps):
        if name == "migrate":
            if recycler is not None:
                recycler.migrate(where)
        else:
            actor.act(name, where, how)
        batch = actor.scanner.take_events()
        if recycler is not None:
            batch = recycler.renamed(batch)
        if since is not None and number < since:
            continue
        if visit_ns is None:
            batch["ts"] = now + _EVENT_NS * np.arange(1, len(batch) + 1)
            now += _EVENT_NS * (len(batch) + 2)
        else:
            now = actor.clock.now_ns
        batches.append(batch)
        samples.append(Reading(now, None, None, actor.scanner.counters))
        samples += [Reading(now, None, m.tgid, actor.scanner.ksm_stat(m)) for m in actor.alive]
        now += _STEP_NS
    knobs = {n: v for n, v in actor.scanner.knobs.items() if n not in actor.knobs_changed}
    return Execution(
        f"simulated on {kernel}",
        profile(kernel),
        concatenate(batches) if batches else empty(),
        samples if visit_ns is None else [],
        complete=since is None,
        knobs=knobs,
    )


class _Actor:
    """Some processes on the model, told what to do by name and two numbers."""

    def __init__(self, kernel: str, limit: int, visit_ns: int) -> None:
        self.clock = Clock(visit_ns=visit_ns)
        self.memory = Memory()
        knobs: dict[str, object] = {"pages_to_scan": 10_000}
        if profile(kernel).has("4.13"):
            knobs["max_page_sharing"] = limit
            knobs["stable_node_chains_prune_millisecs"] = 0
        self.scanner = KsmScanner(self.memory, kernel=kernel, knobs=knobs, clock=self.clock)
        self.alive: list[Mm] = []
        self.all: list[Mm] = []
        self.pins: list[Frame] = []
        self.knobs_changed = {"run", "pages_to_scan"}
        self._tgid = _FIRST_TGID
        self._regions = 0
        self._unique = 0
        for pages in (5, 3):
            mm = self._spawn()
            self._map(mm, pages)

    def act(self, name: str, where: int, how: int) -> None:
        """Do it, if it is possible."""
        act: Callable[[int, int], None] = getattr(self, f"_do_{name}")
        try:
            act(where, how)
        except (MemoryFault, KnobRefused):
            return

    def _spawn(self) -> Mm:
        mm = self.memory.spawn(self._tgid)
        self._tgid += 1
        self._know(mm)
        return mm

    def _know(self, mm: Mm) -> None:
        self.alive.append(mm)
        self.all.append(mm)

    def _map(self, mm: Mm, pages: int) -> None:
        # Each region lies below the one before, so that old addresses are passed later.
        self._regions += 1
        start = _REGION * (1000 - self._regions)
        self.memory.map(mm, start, pages)
        self.memory.madvise_mergeable(mm, start, start + pages * PAGE)
        for page in range(pages):
            self.memory.write(mm, start + page * PAGE, f"c{page % 2}".encode())

    def _range(self, where: int) -> tuple[Mm, int, int]:
        """A stretch of some process's region."""
        dice = random.Random(where)
        mms = [mm for mm in self.alive if mm.vmas]
        if not mms:
            raise MemoryFault("nothing is mapped")
        mm = dice.choice(mms)
        vma = dice.choice(mm.vmas)
        pages = (vma.end - vma.start) // PAGE
        low = dice.randrange(pages)
        high = min(pages, low + dice.choice((1, 1, 2, 4, pages)))
        return mm, vma.start + low * PAGE, vma.start + high * PAGE

    def _write(self, where: int, content: Callable[[], bytes]) -> None:
        mm, start, end = self._range(where)
        for address in range(start, end, PAGE):
            self.memory.write(mm, address, content())

    def _do_write(self, where: int, how: int) -> None:
        def unique() -> bytes:
            self._unique += 1
            return f"unique {self._unique}".encode()

        same = f"c{how % 3}".encode()
        self._write(where, unique if how % 11 == 0 else lambda: same)

    def _do_zero(self, where: int, _how: int) -> None:
        self._write(where, lambda: b"")

    def _do_scan(self, _where: int, how: int) -> None:
        for _ in range(how % 3 + 1):
            self.scanner.finish_scan()

    def _do_batch(self, _where: int, how: int) -> None:
        self.scanner.do_batch(how % 13 + 1)

    def _do_map(self, where: int, how: int) -> None:
        new = not self.alive or (how % 3 == 0 and len(self.alive) < 5)
        mm = self._spawn() if new else self.alive[where % len(self.alive)]
        self._map(mm, how % 9 + 1)

    def _do_discard(self, where: int, _how: int) -> None:
        self.memory.discard(*self._range(where))

    def _do_unmap(self, where: int, _how: int) -> None:
        self.memory.unmap(*self._range(where))

    def _do_read(self, where: int, _how: int) -> None:
        mm, start, _ = self._range(where)
        self.memory.read(mm, start)

    def _do_fork(self, where: int, _how: int) -> None:
        if self.alive and len(self.alive) < 6:
            self._know(self.memory.fork(self.alive[where % len(self.alive)], self._tgid))
            self._tgid += 1

    def _do_exit(self, where: int, _how: int) -> None:
        if len(self.alive) > 1:
            self.memory.exit(self.alive.pop(where % len(self.alive)))

    def _do_exec(self, where: int, how: int) -> None:
        if self.alive:
            self._know(self.memory.exec(self.alive.pop(where % len(self.alive))))
            self._map(self.alive[-1], how % 4 + 1)

    def _do_merge_any(self, where: int, how: int) -> None:
        if self.alive and self.scanner.behaviour.merge_any != "absent":
            mm = self.alive[where % len(self.alive)]
            self.memory.prctl_merge(mm, on=how % 3 > 0)

    def _do_unmergeable(self, where: int, _how: int) -> None:
        self.memory.madvise_unmergeable(*self._range(where))

    def _do_mergeable(self, where: int, _how: int) -> None:
        self.memory.madvise_mergeable(*self._range(where))

    def _do_protect(self, where: int, how: int) -> None:
        self.memory.protect(*self._range(where), ("none", "write", "write")[how % 3])

    def _do_move(self, where: int, _how: int) -> None:
        mm, start, end = self._range(where)
        self._regions += 1
        self.memory.remap(mm, start, end, _REGION * (1000 - self._regions))

    def _do_pin(self, where: int, _how: int) -> None:
        mm, start, _ = self._range(where)
        if start in mm.pages and mm.pages[start] is not self.memory.zero_frame:
            self.pins.append(self.memory.pin(mm, start))

    def _do_unpin(self, where: int, _how: int) -> None:
        if self.pins:
            self.memory.unpin(self.pins.pop(where % len(self.pins)))

    def _do_unmerge(self, _where: int, _how: int) -> None:
        self.scanner.set_knob("run", 2)

    def _set(self, name: str, value: int, since: str) -> None:
        if self.scanner.profile.has(since):
            self.knobs_changed.add(name)
            self.scanner.set_knob(name, value)

    def _do_limit(self, _where: int, how: int) -> None:
        self._set("max_page_sharing", (2, 3, 5, 256)[how % 4], "4.13")

    def _do_zero_pages(self, _where: int, how: int) -> None:
        self._set("use_zero_pages", int(how % 3 > 0), "4.11")

    def _do_smart(self, _where: int, how: int) -> None:
        self._set("smart_scan", how % 2, "6.7")


class _Recycler:
    """Gives things the numbers of dead ones, as the kernel's allocators do, often at once.

    A number may be used again for whatever was born after its owner's death. Frames of KSM pages
    also change theirs, as when memory is compacted.
    """

    def __init__(self, actor: _Actor) -> None:
        self._actor = actor
        self._dice = random.Random("recycler")
        self._names: dict[str, dict[int, int]] = {"item": {}, "pfn": {}, "mm": {}}
        self._free: dict[str, list[tuple[int, int]]] = {"item": [], "pfn": [], "mm": []}
        self._frames: dict[int, Frame] = {}
        self._gone: set[int] = set()
        self._moved = 0
        cycle = actor.scanner._cycle
        free = cycle._free

        def freed(item: object) -> None:
            free(item)  # type: ignore[arg-type]
            self._died("item", item.id, cycle._next_item)  # type: ignore[attr-defined]

        cycle._free = freed  # type: ignore[method-assign]

    def _died(self, what: str, number: int, born_later: int) -> None:
        """A number is free for things numbered `born_later` and up by the model."""
        self._free[what].append((number, born_later))

    def renamed(self, batch: EventBatch) -> EventBatch:
        """A batch with the recycled numbers."""
        self._look()
        batch = batch.copy()
        for what in self._names:
            column = batch[what]
            for row in np.flatnonzero(column).tolist():
                column[row] = self._name(what, int(column[row]))
        return batch

    def _name(self, what: str, number: int) -> int:
        names = self._names[what]
        if what == "pfn" and number == self._actor.memory.zero_frame.pfn:
            return number
        if number not in names:
            fits = [one for one in self._free[what] if one[1] <= number]
            # Last freed, first used: so the kernel's allocators mostly do.
            if fits and self._dice.random() < 0.9:
                chosen = fits[-1] if self._dice.random() < 0.7 else self._dice.choice(fits)
                self._free[what].remove(chosen)
                names[number] = self._names[what].setdefault(chosen[0], chosen[0])
            else:
                names[number] = number
        return names[number]

    def _look(self) -> None:
        """Notice which frames and address spaces have died since."""
        memory = self._actor.memory
        for mm in self._actor.all:
            for frame in mm.pages.values():
                self._frames[frame.pfn] = frame
            if not mm.users and mm.slot is None and mm.id not in self._gone:
                self._gone.add(mm.id)
                self._died("mm", mm.id, memory._next_mm)
        for pfn, frame in list(self._frames.items()):
            if not frame.alive:
                del self._frames[pfn]
                self._died("pfn", pfn, memory._next_pfn + 1)

    def migrate(self, where: int) -> None:
        """The kernel moves a KSM page to another frame."""
        self._look()
        merged = [pfn for pfn, frame in self._frames.items() if frame.ksm and frame.alive]
        if merged:
            pfn = merged[where % len(merged)]
            self._moved += 1
            left = -self._moved
            self._names["pfn"][left] = self._name("pfn", pfn)
            self._died("pfn", left, self._actor.memory._next_pfn + 1)
            self._names["pfn"][pfn] = (1 << 40) + self._moved
