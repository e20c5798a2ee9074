"""Playing a lesson: its frames, one after the other, as its scanners work side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ksmtrace.lab.compare import compare
from ksmtrace.lab.disappointments import Disappointment, disappointments
from ksmtrace.lab.performance import Observation, Performance
from ksmtrace.lab.plan import PlannedStep
from ksmtrace.lessons.frames import Frame, Frames, Kind, View
from ksmtrace.lessons.lesson import VISITS, Lesson
from ksmtrace.lessons.watched import Act, Watched


def play(lesson: Lesson, real: Performance | None = None) -> Frames:
    """The lesson's frames. real: what a real ksmd did with it, to be shown beside the model.

    Raises KsmtraceError, as frames are asked for, where a scanner can't do a step.
    """
    return Frames(_Player(lesson, real).frames())


class _Player:
    def __init__(self, lesson: Lesson, real: Performance | None) -> None:
        self._lesson = lesson
        self._real = real
        self._models = [Watched(lesson.plan, place) for place in lesson.places]
        self._scan = 0
        self._shown: dict[str, View] = {}
        self._unshown: dict[str, tuple[str, ...]] = {}

    def frames(self) -> Iterator[Frame]:
        lesson = self._lesson
        yield Frame(Kind.OPENING, 0, self._now(), text=lesson.about)
        seen: Sequence[Observation] = self._real.observations if self._real is not None else ()
        times = [iter(seen) for _ in self._models]
        reals = iter(seen)
        for step in lesson.plan.steps:
            question = lesson.questions.get(step.number)
            intro = str(step.step.values.get("intro", ""))
            if intro or question is not None:
                yield self._frame(Kind.BEFORE, step, self._now(), text=intro, question=question)
            if not step.operations:
                yield self._frame(Kind.DONE, step, self._now(), text=step.say)
                continue
            stops = lesson.stops_at(step) == VISITS
            acts = zip(
                *(
                    model.do(step, own, stops=stops)
                    for model, own in zip(self._models, times, strict=True)
                ),
                strict=True,
            )
            for part, together in enumerate(acts, start=1):
                last = part == len(step.operations)
                yield from self._of_acts(step, together, next(reals, None), last=last)
        yield self._closing()

    def _of_acts(
        self, step: PlannedStep, acts: tuple[Act, ...], real: Observation | None, *, last: bool
    ) -> Iterator[Frame]:
        scanned = acts[0].seen.scan is not None
        self._scan += scanned
        most = max(len(act.visits) for act in acts)
        for number in range(most):
            # A scanner that is done earlier stands still until the others are.
            views = [
                act.visits[min(number, len(act.visits) - 1)] if act.visits else act.view
                for act in acts
            ]
            yield self._frame(Kind.VISIT, step, views, visit=number + 1, visits=most)
        views = [act.view for act in acts]
        if real is not None and self._real is not None:
            views.append(View(self._real.on, real.counters, events=real.told))
        if not scanned and not last:
            # A step of many small operations is one stop; each scan is one of its own.
            for view in views:
                self._unshown[view.on] = self._unshown.get(view.on, ()) + view.events
            return
        looks = max(act.looks for act in acts)
        note = "" if most or looks < 2 else f"{looks:,} visits, not shown one by one"
        unmet = self._unmet(step) if last else ()
        text = step.say if last else ""
        yield self._frame(Kind.DONE, step, views, text=text, note=note, unmet=unmet)

    def _unmet(self, step: PlannedStep) -> tuple[str, ...]:
        """What a step did otherwise than the lesson expects."""
        plan = replace(self._lesson.plan, steps=(step,))
        return tuple(
            _in_words(one)
            for model in self._models
            for one in disappointments(plan, model.performance, model.place.scanner)
        )

    def _frame(self, kind: Kind, step: PlannedStep, views: Sequence[View], **more: Any) -> Frame:
        complete = tuple(map(self._since_shown, views))
        seconds = self._models[0].seconds
        return Frame(kind, step.number, complete, self._scan, step.does, seconds=seconds, **more)

    def _since_shown(self, view: View) -> View:
        """With what has changed since this scanner was last shown."""
        before = self._shown.get(view.on)
        events = self._unshown.pop(view.on, ()) + view.events
        if before is not None and before.scene is view.scene and before.steps:
            events = ()
        self._shown[view.on] = view
        return replace(view, before=before.counters if before is not None else {}, events=events)

    def _now(self) -> tuple[View, ...]:
        return tuple(self._since_shown(model.now()) for model in self._models)

    def _closing(self) -> Frame:
        words = [self._lesson.closing] if self._lesson.closing else []
        unmet: tuple[str, ...] = ()
        for model in self._models:
            words += [f"On {model.place.name}: {note}." for note in model.performance.notes]
        if self._real is not None:
            model = self._models[0]
            compared = compare(self._lesson.plan, self._real, model.performance)
            names = f"{self._real.on} and {model.place.name}"
            if compared.agree:
                words.append(f"{names} agree in every counter and every event.")
            else:
                unmet = (f"{names} differ: see `ksmtrace lab run`",)
        text = "\n\n".join(words)
        return Frame(Kind.CLOSING, 0, self._now(), self._scan, text=text, unmet=unmet)


def _in_words(one: Disappointment) -> str:
    seen, expected = (
        (", ".join(value) or "none") if isinstance(value, list) else str(value)
        for value in (one.seen, one.expected)
    )
    verb = "are" if one.what == "the events" else "is"
    return f"on {one.on}, {one.what} {verb} {seen}; the lesson expects {expected}"
