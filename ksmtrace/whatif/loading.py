"""A moment put into a simulated memory, for either engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ksmtrace.amounts import size
from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.host import meminfo, read_text
from ksmtrace.kernel.releases import Profile
from ksmtrace.model.clock import Clock
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.engines import Engine
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.memory import Frame, Memory, Mm, Vma
from ksmtrace.whatif.moment import ZERO, Moment, Numbers

_BYTES_OF_PAGE = {"fast": 80, "readable": 900}
_BYTES_AT_LEAST = 400 << 20


@dataclass
class Loaded:
    """A scanner over a moment. change: what happens to memory between two scans.

    watch: have a function called now and then while a scan goes on.
    """

    scanner: KsmScanner
    processes: int
    change: Callable[[], None]
    watch: Callable[[Callable[[], None]], None]


def load(moment: Moment, profile: Profile, engine: Engine) -> Loaded:
    """Build it. Raises KsmtraceError where it would not fit into this host's memory."""
    check_room(len(moment), engine)
    return _fast(moment, profile) if engine == "fast" else load_readable(moment, profile)


def check_room(pages: int, engine: Engine) -> None:
    """Raise KsmtraceError if so many pages can't be simulated here."""
    needed = pages * _BYTES_OF_PAGE[engine] + _BYTES_AT_LEAST
    free = meminfo(read_text("/proc/meminfo") or "").get("MemAvailable")
    if free is not None and needed > free:
        raise KsmtraceError(
            f"{pages:,} pages take {size(needed)} to simulate, and {size(free)} are free",
            "--engine fast takes a tenth of it"
            if engine == "readable"
            else "take a smaller sample: ksmtrace estimate --max-memory",
        )


def _places(moment: Moment) -> list[tuple[int, slice]]:
    """(process, its pages), in order."""
    tgids, first = np.unique(moment.tgids, return_index=True)
    ends = [*first, len(moment)][1:]
    return [(int(t), slice(int(a), int(b))) for t, a, b in zip(tgids, first, ends, strict=True)]


def _vmas(moment: Moment, tgid: int, pages: slice) -> list[Vma]:
    """Its regions, as far as they don't overlap; pages outside of them get some, too."""
    vmas: list[Vma] = []
    for start, end in sorted(moment.regions.get(tgid, [])):
        low = max(start // PAGE_SIZE * PAGE_SIZE, vmas[-1].end if vmas else 0)
        if low < end:
            vmas.append(Vma(low, -(-end // PAGE_SIZE) * PAGE_SIZE, mergeable=True))
    starts = np.array([vma.start for vma in vmas], np.int64)
    ends = np.array([vma.end for vma in vmas], np.int64)
    addresses = moment.addresses[pages]
    at = np.searchsorted(starts, addresses, side="right") - 1
    inside = (at >= 0) & (addresses < np.append(ends, 0)[at])
    vmas += [Vma(int(a), int(a) + PAGE_SIZE, mergeable=True) for a in addresses[~inside]]
    return vmas


def _fresh(moment: Moment, turn: int) -> Numbers:
    """Contents that nobody else has, for all changing pages; others in the next turn."""
    number = int(moment.changing.sum())
    return moment.different + (np.arange(number) + turn) % (number + 2)


def _fast(moment: Moment, profile: Profile) -> Loaded:
    from ksmtrace.model.fast.contents import NumberedContents
    from ksmtrace.model.fast.memory import FastMemory
    from ksmtrace.model.fast.scanner import FastScanner
    from ksmtrace.model.fast.space import FastMm

    changing = int(moment.changing.sum())
    contents = NumberedContents(moment.different + changing + 2)
    memory = FastMemory(checksum=profile.behaviour.checksum, contents=contents)
    scanner = FastScanner(memory, kernel=profile, clock=Clock(), events="count")
    places = np.zeros(len(moment), np.int64)
    for tgid, pages in _places(moment):
        mm = memory.spawn(tgid)
        assert isinstance(mm, FastMm)
        mm.set_vmas(_vmas(moment, tgid, pages))
        scanner.enter(mm)
        places[pages] = mm.places_of(moment.addresses[pages])
    memory.fill_places(places, moment.contents.astype(np.uint32), moment.frames)
    turn = 0
    moving = places[moment.changing]

    def change() -> None:
        nonlocal turn
        turn += 1
        if len(moving):
            memory.rewrite(moving, _fresh(moment, turn).astype(np.uint32))

    return Loaded(scanner, len(memory.rows), change, scanner.watch)


def load_readable(moment: Moment, profile: Profile, *, log_visits: bool = False) -> Loaded:
    """Build it for the readable engine. log_visits: tell visits instead of counting work."""
    memory = Memory()
    scanner = KsmScanner(
        memory, kernel=profile, clock=Clock(), log_visits=log_visits, count_work=not log_visits
    )
    frames: dict[int, Frame] = {}
    moving: list[tuple[Mm, int]] = []
    for tgid, pages in _places(moment):
        mm = memory.spawn(tgid)
        scanner.enter(mm)
        mm.set_vmas(_vmas(moment, tgid, pages))
        rows = zip(
            moment.addresses[pages].tolist(), moment.contents[pages].tolist(),
            moment.frames[pages].tolist(), moment.changing[pages].tolist(), strict=True,
        )  # fmt: skip
        for address, content, number, changes in rows:
            frame = frames.get(number)
            if frame is None:
                frame = frames[number] = memory.new_frame(_bytes_of(content))
            else:
                frame.exclusive = False
            memory.map_frame(mm, address, frame)
            if changes:
                moving.append((mm, address))
        mm.addresses_changed()
    turn = 0

    def change() -> None:
        nonlocal turn
        turn += 1
        for (mm, address), content in zip(moving, _fresh(moment, turn).tolist(), strict=True):
            memory.write(mm, address, _bytes_of(content))

    return Loaded(scanner, len(memory.mms), change, lambda _function: None)


def _bytes_of(content: int) -> bytes:
    """A page's bytes that are ordered as its number is."""
    return b"" if content == ZERO else content.to_bytes(8, "big").rstrip(b"\0")
