"""Scanners compared: each performs the same scenario at its own pace, under each protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from ksmtrace.kernel.costs import HostCosts
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME
from ksmtrace.lab.contest.curve import Curve
from ksmtrace.lab.contest.ground import (
    KsmContestant,
    Nobody,
    check_contest,
    default_settings,
    fair_knobs,
    is_advised,
    optimum,
    run_seconds,
)
from ksmtrace.lab.contest.outcome import Outcome
from ksmtrace.lab.contest.protocols import PROTOCOLS, Protocol
from ksmtrace.lab.contest.track import Track
from ksmtrace.lab.contest.tuning import Settings, tune
from ksmtrace.lab.on_uksm import UksmStage, check_uksm
from ksmtrace.lab.pace import Pace
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.stage import Stage
from ksmtrace.lab.where import Where
from ksmtrace.model.work import Work

Progress = Callable[[str], None]

_AMOUNTS: dict[str, tuple[Callable[[Outcome], float], str]] = {
    # Batches and naps take turns: what grows with the batch is work for each second of sleep.
    "cpu": (lambda o: o.cpu_s / max(o.seconds - o.cpu_s, 1e-9), "CPU time"),
    "visits": (lambda o: o.visits, "visits"),
}


@dataclass
class Contest:
    """One scenario and who performs it. Raises ScenarioError where that can't be compared.

    outcomes: what was found so far, to be read also after an interruption. seed: of UKSM's random
    numbers. costs: what work takes, for all.
    """

    plan: Plan
    places: Sequence[Where]
    protocols: Sequence[Protocol]
    costs: HostCosts
    seed: int = 0
    progress: Progress = lambda _words: None
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    optimum: int = 0
    baseline: Curve | None = None
    interrupted: bool = False

    def __post_init__(self) -> None:
        check_contest(self.plan)
        if any(place.uksm for place in self.places):
            check_uksm(self.plan)

    def run(self) -> None:
        """Let all of them work. What KeyboardInterrupt leaves is in `outcomes`."""
        try:
            self._look_at_the_ground()
            reference = None
            for place in self.places:
                if place.uksm is not None:
                    outcome = self._uksm(place)
                    reference = reference or outcome
            for place in self.places:
                if place.uksm is None:
                    self._ksm(place, reference)
        except KeyboardInterrupt:
            self.interrupted = True
            raise

    def _look_at_the_ground(self) -> None:
        """What fork shares at each time, and what could be saved beyond it at the end."""
        place = next((p for p in self.places if p.uksm is None), self.places[0])
        stage = KsmContestant(self.plan, replace(place, uksm=None), None, self.costs.costs)
        self.progress("what could be saved")
        track = Track(stage, Nobody(), Work)
        track.perform(self.plan)
        self.baseline = track.curve()
        self.optimum = optimum(stage.memory) - round(self.baseline.last)

    def _uksm(self, place: Where) -> Outcome:
        stage = UksmStage(self.plan, place, costs=self.costs.costs, seed=self.seed)
        settings = {"seed": self.seed}
        return self._perform(
            stage, stage.pace(), lambda: stage.scanner.work, place, settings, None, keep=True
        )

    def _ksm(self, place: Where, reference: Outcome | None) -> None:
        wanted = [protocol.name for protocol in self.protocols]
        settings = default_settings(self.plan)
        defaults = PROTOCOLS["defaults"]
        first = self._one_ksm(place, settings, defaults, keep="defaults" in wanted)
        for protocol in self.protocols:
            if protocol is not defaults and reference is not None:
                self._tuned(place, protocol, reference, (settings, first))

    def _tuned(
        self,
        place: Where,
        protocol: Protocol,
        reference: Outcome,
        start: tuple[Settings, Outcome],
    ) -> None:
        amount, what = _AMOUNTS[protocol.name]
        target = amount(reference)
        if target <= 0 or amount(start[1]) <= 0:
            self.notes.append(f"{place.name}: no {what} to make equal")
            return
        tuned = tune(
            lambda settings: self._one_ksm(place, settings, protocol, keep=False),
            amount,
            target,
            start,
        )
        self.outcomes.append(tuned.found.as_of(protocol, tuned.off))

    def _one_ksm(
        self, place: Where, settings: Settings, protocol: Protocol, *, keep: bool
    ) -> Outcome:
        told: Mapping[str, int | str] = asdict(settings)
        if is_advised(self.plan):
            told = {"advisor_mode": self.plan.knobs["advisor_mode"]}
        stage = KsmContestant(
            self.plan, place, None if is_advised(self.plan) else settings, self.costs.costs
        )
        return self._perform(
            stage, stage.pace(), lambda: stage.scanner.work, place, told, protocol, keep=keep
        )

    def _perform(
        self,
        stage: Stage,
        pace: Pace,
        work: Callable[[], Work],
        place: Where,
        settings: Mapping[str, int | str],
        protocol: Protocol | None,
        *,
        keep: bool,
    ) -> Outcome:
        """keep: among the outcomes, also where it is interrupted."""
        title = f"{place.name}, {protocol.title}" if protocol else place.name
        told = " ".join(f"{name}={value}" for name, value in settings.items())
        track = Track(
            stage, pace, work, lambda share: self.progress(f"{title} ({told}): {share:.0%}")
        )

        def outcome(*, partial: bool) -> Outcome:
            assert self.baseline is not None
            return Outcome(
                place.name,
                protocol,
                settings,
                track.seconds,
                track.curve().less(self.baseline),
                self.optimum,
                replace(work()),
                track.breaks,
                track.cpu_s,
                partial=partial,
            )

        try:
            track.perform(self.plan)
        except KeyboardInterrupt:
            if keep and track.seconds:
                self.outcomes.append(outcome(partial=True))
            raise
        done = outcome(partial=False)
        self.notes += [
            note
            for note in (f"{place.name}: {told}" for told in stage.performance.notes)
            if note not in self.notes
        ]
        if keep:
            self.outcomes.append(done)
        return done

    def of_protocol(self, protocol: Protocol) -> list[Outcome]:
        """The outcomes under a protocol, in the order in which the scanners were named."""
        there = [o for o in self.outcomes if o.protocol in (protocol, None)]
        order = [place.name for place in self.places]
        return sorted(there, key=lambda o: order.index(o.on))

    @property
    def seconds(self) -> float:
        """Of simulated time."""
        return run_seconds(self.plan)

    def ground(self) -> list[str]:
        """On what ground each stands, in words."""
        return [f"{place.name}: {', '.join(_ground_of(self.plan, place))}" for place in self.places]


def _ground_of(plan: Plan, place: Where) -> list[str]:
    if place.uksm is not None:
        off = [name for name, shipped in vars(place.uksm.quirks).items() if not shipped]
        quirks = f"without the quirks {', '.join(off)}" if off else "with all quirks, as released"
        return [f"governor {place.uksm.governor}", quirks]
    behaviour, knobs = place.profile.behaviour, fair_knobs(plan, place.profile)
    told = [
        f"{name}={value}"
        for name, value in knobs.items()
        if name not in vars(default_settings(plan)) and place.profile.has(KNOBS_BY_NAME[name].since)
    ]
    if behaviour.smart_scan and "smart_scan" not in knobs:
        told.append("smart_scan=1")
    if behaviour.zero_pages == "absent":
        told.append("zero pages are merged as any others")
    first = behaviour.visit_order == "checksum_first"
    return [*told, f"the checksum is asked for {'before' if first else 'after'} the stable tree"]
