"""One what-if from beginning to end: scans of a moment, and how long they take at a pace."""

from __future__ import annotations

from collections.abc import Mapping

from ksmtrace.kernel.costs import Costs
from ksmtrace.kernel.releases import Profile
from ksmtrace.model.engines import Engine
from ksmtrace.whatif.moment import Moment
from ksmtrace.whatif.pacing import Pace, pace_of, predict
from ksmtrace.whatif.passes import Progress, scan
from ksmtrace.whatif.report import Outcome


def ask(
    moment: Moment,
    profile: Profile,
    on: str,
    knobs: Mapping[str, str],
    *,
    costs: Costs,
    tick_ns: int,
    engine: Engine = "fast",
    most: int = 100,
    progress: Progress = lambda _scan, _pages: None,
) -> Outcome:
    """What ksmd of a kernel would make of a moment. knobs: instead of the moment's own.

    Raises KsmtraceError (usage) for a knob that this kernel lacks or refuses.
    """
    passes = scan(moment, profile, on, knobs, costs, engine=engine, most=most, progress=progress)
    pace = pace_asked(moment.knobs, knobs)
    prediction = None
    if passes.done and (pace.pages_to_scan or pace.advisor_mode != "none"):
        prediction = predict(
            passes.done, pace, wakeup_ns=costs.wakeup_ns, tick_ns=tick_ns,
            cold_level_ns=costs.cold_level_ns, ksmd_cpu_ns=moment.ksmd_cpu_ns,
        )  # fmt: skip
    return Outcome(on, engine, passes, pace, prediction)


def pace_asked(own: Mapping[str, str], knobs: Mapping[str, str]) -> Pace:
    """The pace of a host's own knobs, with some set otherwise."""
    # A lab's or a stepper's pages_to_scan and sleep never end a batch; nobody asks how long.
    stepped = int(own.get("sleep_millisecs", "20")) > _LONGEST_SLEEP_MS
    usual = {name: value for name, value in own.items() if not (stepped and name in _STEPPED)}
    return pace_of({**usual, **knobs})


_LONGEST_SLEEP_MS = 3_600_000
_STEPPED = ("pages_to_scan", "sleep_millisecs")
