"""Watching a scanner at work: a sample of what is saved whenever that may have changed."""

from __future__ import annotations

from collections.abc import Callable

from ksmtrace.lab import operations as op
from ksmtrace.lab.contest.curve import Curve, curve_of
from ksmtrace.lab.contest.ground import run_seconds
from ksmtrace.lab.pace import Pace, let_work
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.stage import Stage
from ksmtrace.model.work import Work

SAMPLES = 500
"""Of a whole run at most, evenly spaced: counting what is saved looks at every page."""
_TOLD_EVERY = 64
_NS = 1e9


class Track:
    """What a scanner has done so far. breaks: copies made of what was merged, by writes.

    seconds: simulated time at its own pace, so far. cpu_s: CPU time. Both and the curve leave out
    what lies between the steps in which it works. counted: says what is saved.
    """

    def __init__(
        self,
        stage: Stage,
        pace: Pace,
        work: Callable[[], Work],
        progress: Callable[[float], None] = lambda _share: None,
    ) -> None:
        self._stage = stage
        self._pace = pace
        self._work = work
        self._progress = progress
        self._rows: list[tuple[float, float, float]] = []
        self.breaks = 0
        self.seconds = 0.0
        self._spacing = 0.0
        self._seen = (-1, -1)
        self._written = False
        self._calls = 0

    def perform(self, plan: Plan) -> None:
        """Do everything that a plan says, up to its last step in which scanners work."""
        total = run_seconds(plan)
        self._spacing = total / SAMPLES
        done = 0.0
        self._stage.prepare()
        for step in plan.steps:
            for operation in step.operations:
                if not isinstance(operation, op.Run):
                    self._writing(lambda s=step, o=operation: self._stage.do(s, o))  # type: ignore[misc]
                    continue
                self._run(operation, done, total)
                done += operation.milliseconds / 1000
                if done >= total:
                    return

    def _run(self, operation: op.Run, before_s: float, total_s: float) -> None:
        clock = self._stage.clock
        began = clock.now_ns
        write = self._stage.writer(operation)
        most = before_s + operation.milliseconds / 1000

        def watch() -> None:
            self.seconds = min(most, before_s + (clock.now_ns - began) / _NS)
            self._look()
            self._calls += 1
            if self._calls % _TOLD_EVERY == 0:
                self._stage.take_events()
                self._progress(self.seconds / total_s)

        self._sample()
        let_work(
            self._pace,
            clock,
            operation.milliseconds,
            operation.every_ms,
            lambda: self._writing(write),
            watch,
        )
        self.seconds = most
        self._sample()

    def _writing(self, write: Callable[[], object]) -> None:
        """Let programs do something; merged pages of theirs that were copied are counted."""
        memory = self._stage.memory
        copies, placed = memory.cow_ksm, self._placed()
        write()
        self.breaks += memory.cow_ksm - copies + max(0, placed - self._placed())
        self._written = True

    def _placed(self) -> int:
        """Zero pages that the scanner has placed."""
        return sum(len(mm.ksm_zero) for mm in self._stage.memory.mms)

    def _look(self) -> None:
        done = self._work().merges, self._stage.memory.cow_ksm
        changed = self._written or done != self._seen
        if changed and self.seconds - self._rows[-1][0] >= self._spacing:
            self._sample()

    def _sample(self) -> None:
        self._seen = self._work().merges, self._stage.memory.cow_ksm
        self._written = False
        self._rows.append((self.seconds, self.cpu_s, self._stage.memory.saved_pages()))

    @property
    def cpu_s(self) -> float:
        """CPU time of the scanner."""
        return self._stage.clock.ksmd_cpu_ns / _NS

    def curve(self) -> Curve:
        """What was saved when. Raises ValueError where no scanner has begun to work."""
        if not self._rows:
            raise ValueError("nothing was seen yet")
        now = (self.seconds, self.cpu_s, self._rows[-1][2])
        return curve_of([*self._rows, now])
