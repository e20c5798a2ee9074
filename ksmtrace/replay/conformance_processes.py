"""Address spaces on ksmd's list: who they are, how they come and go.

A task's own events, ksm_enter and ksm_exit, stand beside ksmd's, not in step with it. ksm_exit may
come while ksmd is still at a page of that mm, whose event then follows. Both are told after the
list was changed, so that ksmd can be faster: what only such an event would allow is a suspicion
for two more scans before it is impossible.
"""

from __future__ import annotations

from ksmtrace.events.registry import VIA_EXEC, VIA_FORK, VIA_SELF
from ksmtrace.replay.conformance_state import (
    EXIT,
    FORK,
    UNLIMITED,
    Excuse,
    Finding,
    Half,
    Impossible,
    Mm,
    Phase,
    Proven,
    Suspicion,
    World,
)

_PATIENCE = 2
"""Scans that may end before a task has told what it did."""


class Processes:
    """Judges ksm_enter and ksm_exit, and which process owns what."""

    def __init__(self, world: World) -> None:
        self._world = world

    def enter(
        self, _p: int, _i: int, pointer: int, addr: int, tgid: int, _e: int, arg: int
    ) -> None:
        """ksm_enter. addr: the parent's tgid, where arg says fork."""
        world = self._world
        if "via" not in world.unknown:
            self._check_via(addr, tgid, arg)
        world.enters += 1
        if arg in (0, VIA_FORK):
            world.forks += 1
            # The child's pages on the zero page may be counted, too.
            world.zero_most = UNLIMITED
        if world.suspicions:
            self._excuse(("enter", pointer), *([FORK] if arg in (0, VIA_FORK) else []))
        mm = world.mms.get(pointer)
        if mm is not None and self._was_late(mm):
            mm.entered = 0
            mm.entries += 1
            mm.after.clear()
        else:
            if mm is not None:
                # ksmd has dropped it, with all its rmap_items, before it entered again.
                self.bury(mm)
            mm = world.mms[pointer] = Mm(pointer, world.stops)
            mm.most = 0
            mm.entered = world.ordinal
        if tgid and tgid != mm.tgid:
            self.owned_by(mm, tgid)

    def _check_via(self, parent: int, tgid: int, arg: int) -> None:
        if arg not in (0, VIA_SELF, VIA_FORK, VIA_EXEC):
            raise Impossible("value", f"an address space can't be entered in way {arg}")
        if arg in (VIA_SELF, VIA_EXEC) and (not tgid or parent):
            raise Impossible("value", "who enters itself is known, and has no parent named")
        if arg in (0, VIA_FORK) and tgid:
            raise Impossible("value", "an address space entered by fork has no process id yet")

    def _was_late(self, mm: Mm) -> bool:
        """Whether this ksm_enter may be of an mm that ksmd has been seen in already."""
        return not mm.exited and self._world.stops - mm.seen_stops <= _PATIENCE

    def exit(
        self, _p: int, _i: int, pointer: int, _addr: int, tgid: int, _e: int, _arg: int
    ) -> None:
        """ksm_exit."""
        world = self._world
        mm = world.mms.get(pointer)
        if mm is None:
            if world.complete:
                raise Impossible(
                    "registration", f"{world.tgid(tgid)} exited without ever having entered"
                )
            mm = world.mms[pointer] = Mm(pointer, world.stops)
        elif mm.exited:
            raise Impossible("registration", f"{world.process(mm)} exited twice")
        if tgid and tgid != mm.tgid:
            self.owned_by(mm, tgid, alive=False)
        world.exits += 1
        if world.suspicions:
            self._excuse(("exit", pointer), EXIT)
        mm.exited = True
        mm.exit_visits = world.visits
        mm.exit_stops = world.stops + (2 if world.phase is Phase.SCANNING else 1)
        if mm.in_scan == world.ordinal:
            world.fresh -= mm.fresh
            world.seen -= mm.seen
            mm.fresh = mm.seen = 0
        world.dying.append(mm)

    def bury(self, mm: Mm) -> None:
        """All its rmap_items are freed."""
        world = self._world
        mm.dead = True
        world.attached -= mm.attached
        mm.attached = 0
        if mm.in_scan == world.ordinal and not mm.exited:
            world.fresh -= mm.fresh
            world.seen -= mm.seen
            mm.fresh = mm.seen = 0

    def scan_stopped(self) -> None:
        """By now ksmd has cleaned up after those who exited long enough ago; excuses end."""
        world = self._world
        if world.dying:
            for mm in world.dying:
                if world.stops >= mm.exit_stops and not mm.dead:
                    self.bury(mm)
            world.dying = [mm for mm in world.dying if not mm.dead]
        self.prove_suspicions(_PATIENCE)

    def prove_suspicions(self, patience: int) -> None:
        """Raise the first suspicion that no event has excused for so many scans."""
        world = self._world
        for suspicion in world.suspicions:
            if world.stops - suspicion.stops >= patience:
                raise Proven(suspicion.finding)

    def _excuse(self, *excuses: Excuse) -> None:
        world = self._world
        world.suspicions = [s for s in world.suspicions if set(excuses).isdisjoint(s.excuses)]

    def suspect(self, finding: Finding, *excuses: Excuse) -> None:
        """Impossible unless some event is late."""
        self._world.suspicions.append(Suspicion(finding, self._world.stops, excuses))

    def meet(self, pointer: int) -> Mm:
        """An address space that a merge names and that was not known."""
        world = self._world
        mm = world.mms[pointer] = Mm(pointer, world.stops)
        if world.complete:
            mm.most = 0
            message = f"the address space {pointer:#x} is merged and never entered"
            self.suspect(world.finding("registration", message), ("enter", pointer))
        return mm

    def risen(self, mm: Mm, addr: int) -> Mm:
        """An address space that a merge names after its ksm_exit."""
        world = self._world
        since = world.visits - mm.exit_visits
        same_visit = type(world.expected) is Half or (mm is world.mm and addr == world.addr)
        if since <= 0 or (since == 1 and same_visit):
            # ksmd was at one of its pages when it exited.
            return mm
        self.bury(mm)
        fresh = world.mms[mm.pointer] = Mm(mm.pointer, world.stops)
        fresh.most = 0
        message = f"{world.process(mm)} is merged after it has exited"
        self.suspect(world.finding("registration", message), ("enter", mm.pointer))
        return fresh

    def owned_by(self, mm: Mm, tgid: int, *, alive: bool = True) -> None:
        """An event names another owner: the one before has exited, and others shared its memory.

        alive: the process has this address space now, and not only had it.
        """
        world = self._world
        if tgid in mm.former:
            raise Impossible(
                "owner",
                f"an address space went from {world.process(mm)} back to {world.tgid(tgid)}",
                f"{world.tgid(tgid)} owned the address space {mm.pointer:#x} before",
            )
        if mm.tgid:
            mm.former |= {mm.tgid}
        mm.tgid = tgid
        if alive:
            world.owners[tgid] = mm
