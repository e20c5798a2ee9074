"""Calibrating: all experiments, several rounds of them, and what comes of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.costs import (
    CONSTANTS,
    DEFAULT,
    DEFAULT_SOURCE,
    KSMD,
    USER_SPACE,
    Calibration,
    Constant,
)
from ksmtrace.kernel.host import cpu_model, kernel_release
from ksmtrace.kernel.releases import running_profile
from ksmtrace.lab.calibrate import user_space
from ksmtrace.lab.calibrate.counted import knobs_of, work_of
from ksmtrace.lab.calibrate.experiments import EXPERIMENTS, Experiment
from ksmtrace.lab.calibrate.fit import Fit, fit
from ksmtrace.model.work import Work

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Measurement:
    """One experiment. work: of one scan. ns: what that took, by round."""

    experiment: Experiment
    work: Work
    ns: tuple[float, ...]


@dataclass(frozen=True)
class Calibrated:
    """What `calibrate` found. obstacle: why ksmd was not measured, or None."""

    calibration: Calibration
    measurements: tuple[Measurement, ...]
    errors: tuple[float, ...]
    obstacle: KsmtraceError | None

    def as_dict(self) -> dict[str, Any]:
        """As --json prints it."""
        return {
            **asdict(self.calibration),
            "experiments": [
                {
                    "name": one.experiment.name,
                    "tells": one.experiment.tells,
                    "scan_ns": list(one.ns),
                    "work": asdict(one.work),
                    "error": error,
                }
                for one, error in zip(self.measurements, self.errors, strict=True)
            ],
            "not_measured_because": self.obstacle and self.obstacle.message,
        }


def calibrate(
    rounds: int = 3,
    *,
    experiments: Sequence[Experiment] = EXPERIMENTS,
    progress: Progress = lambda _words: None,
    now: datetime | None = None,
) -> Calibrated:
    """Measure this host. Where ksmd can't be had, what needs it keeps its default."""
    progress("programs")
    programs = user_space.UserSpace()
    seen = [programs.measure() for _ in range(rounds)]
    constants = spread(seen, medians(seen), USER_SPACE)
    measurements: tuple[Measurement, ...] = ()
    errors: tuple[float, ...] = ()
    obstacle = None
    try:
        measurements, wakeups = _with_ksmd(rounds, experiments, progress)
    except KsmtraceError as error:
        obstacle = error
    else:
        fits, all_of_them = fit_rounds(measurements, wakeups)
        errors = all_of_them.errors
        constants |= spread([one.prices for one in fits], all_of_them.prices, KSMD)
        if wakeups:
            constants |= spread(
                [{"wakeup_ns": ns} for ns in wakeups],
                {"wakeup_ns": statistics.median(wakeups)},
                KSMD,
            )
    for name in CONSTANTS:
        constants.setdefault(name, Constant(getattr(DEFAULT, name), DEFAULT_SOURCE))
    date = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    calibration = Calibration(
        kernel_release(), cpu_model(), date, {name: constants[name] for name in CONSTANTS}
    )
    return Calibrated(calibration, measurements, errors, obstacle)


def medians(seen: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each constant over rounds."""
    return {name: statistics.median(one[name] for one in seen) for name in seen[0]}


def spread(
    seen: Sequence[Mapping[str, float]], values: Mapping[str, float], source: str
) -> dict[str, Constant]:
    """Constants with the rounds' least and largest; a value may lie outside of those."""
    return {
        name: Constant(
            value,
            source,
            min(value, *(one[name] for one in seen)),
            max(value, *(one[name] for one in seen)),
        )
        for name, value in values.items()
    }


def fit_rounds(
    measurements: Sequence[Measurement], wakeups: Sequence[float]
) -> tuple[list[Fit], Fit]:
    """Each round's fit, and that of the medians of all rounds."""
    works = [one.work for one in measurements]
    wakeup_ns = statistics.median(wakeups) if wakeups else DEFAULT.wakeup_ns
    rounds = len(measurements[0].ns)
    fits = [fit(works, [one.ns[n] for one in measurements], wakeup_ns) for n in range(rounds)]
    return fits, fit(works, [statistics.median(one.ns) for one in measurements], wakeup_ns)


def _with_ksmd(
    rounds: int, experiments: Sequence[Experiment], progress: Progress
) -> tuple[tuple[Measurement, ...], list[float]]:
    from ksmtrace.lab.calibrate.on_ksmd import the_ksmd

    profile = running_profile()
    knobs = {one.name: knobs_of(one, profile) for one in experiments}
    times: dict[str, list[float]] = {}
    wakeups: list[float] = []
    works = {}
    with the_ksmd() as ksmd:
        for number in range(rounds):
            for experiment in experiments:
                if (wanted := knobs[experiment.name]) is not None:
                    progress(f"ksmd, round {number + 1} of {rounds}: {experiment.name}")
                    times.setdefault(experiment.name, []).append(ksmd.scan_ns(experiment, wanted))
            progress(f"ksmd, round {number + 1} of {rounds}: wakeups")
            if (woken := ksmd.wakeup_ns(DEFAULT.visit_ns)) is not None:
                wakeups.append(woken)
    for experiment in experiments:
        if (wanted := knobs[experiment.name]) is not None:
            progress(f"counting: {experiment.name}")
            works[experiment.name] = work_of(experiment, profile, wanted)
    return (
        tuple(
            Measurement(one, works[one.name], tuple(times[one.name]))
            for one in experiments
            if one.name in times
        ),
        wakeups,
    )
