"""One scanner of a lesson, watched: what it shows after each operation, and at each visit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.kernel.costs import DEFAULT
from ksmtrace.lab import operations as op
from ksmtrace.lab.needs import OWN_PACE, needs_of
from ksmtrace.lab.notation import without_scans
from ksmtrace.lab.on_model import ModelStage
from ksmtrace.lab.on_uksm import UksmStage
from ksmtrace.lab.performance import Observation, Performance
from ksmtrace.lab.plan import Plan, PlannedStep
from ksmtrace.lab.where import Where
from ksmtrace.lessons.frames import View
from ksmtrace.model.decisions import Rule
from ksmtrace.model.scene import Member, Scene
from ksmtrace.model.visit_log import VisitRecord

MOST_VISITS = 400
"""In one operation; with more of them one does not stop at each."""
_SHOWN_PAGES, _SHOWN_PLACES = 256, 63
"""Pages and places of a tree that are shown of a memory with more."""


@dataclass(frozen=True)
class Act:
    """One operation, done. visits: a view of each visit; empty where there were too many to show.

    looks: how many visits there were. view: after it. seen: as of any performance.
    """

    visits: list[View]
    looks: int
    view: View
    seen: Observation


class Watched:
    """A model's performance of a lesson, step by step.

    Work is priced as built in, whatever this host's costs are: a lesson's figures are its own.
    """

    def __init__(self, plan: Plan, place: Where) -> None:
        self.place = place
        self._stage: ModelStage | UksmStage
        # KSM at its own pace counts its work instead of telling its visits.
        visits = place.uksm is not None or OWN_PACE not in needs_of(plan)
        if place.uksm is not None:
            self._stage = UksmStage(plan, place, costs=DEFAULT, visits=True)
        else:
            self._stage = ModelStage(
                plan, place.profile, on=place.name, visits=visits, costs=DEFAULT
            )
        self._told_visits = visits
        if visits:
            self._stage.scanner.watch_visits(self._visited)
        self._stage.prepare()
        self._stage.take_events()
        self._begun_ns = self._stage.clock.now_ns
        self._views: list[View] = []
        self._held: list[EventBatch] = []
        self._told: list[str] = []
        self._looks = 0
        self._stops = True
        self._known: set[object] = set()

    @property
    def seconds(self) -> float:
        """Simulated time since the beginning."""
        return (self._stage.clock.now_ns - self._begun_ns) / 1e9

    @property
    def performance(self) -> Performance:
        """What was observed so far."""
        performance = self._stage.performance
        if isinstance(self._stage, ModelStage):
            performance.item_lives = self._stage.scanner.item_lives
        return performance

    def now(self) -> View:
        """What it shows at this moment."""
        return self._view(())

    def do(self, step: PlannedStep, times: Iterator[Observation], *, stops: bool) -> Iterator[Act]:
        """Do a step, one operation after the other. stops: whether visits are shown."""
        self._look_closely(step, stops=stops)
        for seen in self._stage.observe(step, times):
            told = (*self._told, *seen.told)
            whole = replace(seen, events=concatenate([*self._held, seen.events]), told=told)
            self.performance.observations.append(whole)
            # What happened after the last visit that is shown, or else all of it.
            rest = seen.told if self._views else told
            yield Act(self._views, self._looks, self._view(rest, refused=seen.refused or ""), whole)
            self._views, self._held, self._told, self._looks = [], [], [], 0
            self._look_closely(step, stops=stops)

    def _look_closely(self, step: PlannedStep, *, stops: bool) -> None:
        """Make ready for the visits of an operation; those of a large scan aren't looked at."""
        scans = any(isinstance(operation, op.Scan) for operation in step.operations)
        pages = sum(len(mm.pages) for mm in self._stage.memory.mms if mm.mergeable)
        self._stops = stops and not (scans and pages > MOST_VISITS)
        self._watch_closely(self._stops)

    def _watch_closely(self, closely: bool) -> None:
        if isinstance(self._stage, ModelStage) and self._told_visits:
            self._stage.scanner.watch_closely(closely)

    def _visited(self, record: VisitRecord) -> None:
        self._looks += 1
        if not self._stops or self._is_repetition(record):
            return
        if len(self._views) >= MOST_VISITS:
            self._stops = False
            self._views.clear()
            self._watch_closely(False)
            return
        batch = self._stage.take_events()
        told = self._stage.tell(batch)
        self._held.append(batch)
        self._told += told
        at = (record.mm, record.address)
        view = self._view(told, at)
        self._views.append(replace(view, page=self._name(at), visit=at, steps=record.steps))

    def _is_repetition(self, record: VisitRecord) -> bool:
        """UKSM comes by a small memory's pages hundreds of times in one wake-up."""
        if not isinstance(self._stage, UksmStage):
            return False
        told = (record.mm, record.address, record.steps, tuple(self._stage.counters().items()))
        known = told in self._known
        self._known.add(told)
        return known or record.steps[0].rule in (Rule.UKSM_ALREADY, Rule.UKSM_ABSENT)

    def _view(self, told: Sequence[str], at: Member | None = None, *, refused: str = "") -> View:
        return View(
            self.place.name,
            self._stage.counters(),
            scene=self._scene(at),
            events=tuple(without_scans(tuple(told))),
            refused=refused,
            name=self._name,
        )

    def _scene(self, at: Member | None) -> Scene:
        if isinstance(self._stage, UksmStage):
            return self._stage.scanner.scene()
        small = sum(len(mm.pages) for mm in self._stage.memory.mms) <= _SHOWN_PAGES
        most, places = (None, None) if small else (_SHOWN_PAGES, _SHOWN_PLACES)
        return self._stage.scanner.scene(at=at, most=most, places=places)

    def _name(self, page: Member) -> str:
        return self._stage.name_of(*page)
