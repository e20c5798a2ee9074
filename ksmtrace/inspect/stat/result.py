"""What `ksmtrace stat` found: runs, their figures together, and two settings held against another.

Also its form in JSON: names are stable, units are in them, null is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from ksmtrace.inspect.stat.figures import STAT_MEASURES_BY_NAME
from ksmtrace.timeline.host_figures import Missing, Value

Verdict = Literal["real", "not shown", "equal", "not judged"]


@dataclass(frozen=True)
class Run:
    """One run. setting: the value of --ab's knob, None without. ended: by what.

    status: the command's. own_cpu_s: CPU time of the watcher meanwhile; sampling_cpu_s: of that for
    reading counters. fresh: whether everything had been unmerged just before.
    """

    setting: str | None
    ended: str
    status: int | None
    values: Mapping[str, Value]
    samples: int
    own_cpu_s: float
    sampling_cpu_s: float
    fresh: bool = False
    notes: tuple[str, ...] = ()

    def known(self, name: str) -> float | None:
        """A figure, None if it is not known."""
        value = self.values[name]
        return None if isinstance(value, Missing) else value


@dataclass(frozen=True)
class Spread:
    """One figure of several runs; those in which it is not known are left out.

    sd: of the sample; None of fewer than two.
    """

    count: int
    mean: float
    median: float
    sd: float | None
    least: float
    most: float


def spread(runs: Sequence[Run], name: str) -> Spread | Missing:
    """A figure of several runs taken together."""
    known = [value for run in runs if (value := run.known(name)) is not None]
    if not known:
        reasons = (run.values[name] for run in runs)
        unknown = (reason for reason in reasons if isinstance(reason, Missing))
        return next(unknown, Missing("there was no run"))
    values = np.array(known)
    return Spread(
        count=len(values),
        mean=float(values.mean()),
        median=float(np.median(values)),
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        least=float(values.min()),
        most=float(values.max()),
    )


@dataclass(frozen=True)
class Contrast:
    """One figure under B against A.

    difference: of B from A, the median of all pairs' (Hodges-Lehmann); low, high: its confidence
    interval, None where so few runs give none. p: of the test alone; p_holm: as adjusted for all
    figures judged. All None where the figure is not known in both.
    """

    name: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """Two settings of a knob.

    order: as run, letters. metric: the one figure judged, None for all. judged: how many were.
    repeats_needed: the fewest of each for any figure ever to be shown real.
    """

    knob: str
    a: str
    b: str
    order: str
    metric: str | None
    judged: int
    level: float
    test: str
    repeats_needed: int
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True)
class StatResult:
    """Everything that `ksmtrace stat` prints. subject: what was watched, in words.

    asked: how many runs (of each setting) were to be. knobs: those that were set for all.
    """

    subject: str
    kernel: str
    backend: str | None
    asked: int
    runs: tuple[Run, ...]
    knobs: Mapping[str, str] = field(default_factory=dict)
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()

    def of(self, setting: str | None) -> list[Run]:
        """The runs under one setting; None: all."""
        return [run for run in self.runs if setting is None or run.setting == setting]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        compared = self.comparison
        return {
            "subject": self.subject,
            "kernel": self.kernel,
            "backend": self.backend,
            "knobs_set": dict(self.knobs),
            "repeats_asked": self.asked,
            "runs": [_run(run) for run in self.runs],
            "figures": self._figures(None),
            "ab": compared
            and {
                **asdict(compared),
                "contrasts": {c.name: _without_name(c) for c in compared.contrasts},
                "figures_a": self._figures(compared.a),
                "figures_b": self._figures(compared.b),
            },
            "notes": list(self.notes),
        }

    def _figures(self, setting: str | None) -> dict[str, Any]:
        runs = self.of(setting)
        found = {name: spread(runs, name) for name in STAT_MEASURES_BY_NAME}
        return {
            name: None if isinstance(value, Missing) else asdict(value)
            for name, value in found.items()
        }


def _run(run: Run) -> dict[str, Any]:
    return {
        **{n: v for n, v in asdict(run).items() if n not in ("values", "status", "notes")},
        "command_status": run.status,
        "figures": {name: run.known(name) for name in run.values},
        "why_unknown": {n: v.why for n, v in run.values.items() if isinstance(v, Missing)},
        "notes": list(run.notes),
    }


def _without_name(contrast: Contrast) -> dict[str, Any]:
    return {name: value for name, value in asdict(contrast).items() if name != "name"}
