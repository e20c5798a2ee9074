"""What `ksmtrace tune` says, as plain data: settings, what they would do, why, what to write."""

from __future__ import annotations

from typing import Any

from ksmtrace.whatif.moment import Moment
from ksmtrace.whatif.report import prediction_of
from ksmtrace.whatif.tuning import Candidate, Tuning

_SYSFS = "/sys/kernel/mm/ksm"


def tuning_as_dict(
    tuning: Tuning, moment: Moment, *, on: str, costs_origin: str, tick_ns: int
) -> dict[str, Any]:
    """What `--json` prints."""
    best = tuning.best[0] if tuning.best else None
    return {
        "on": on,
        "pages": len(moment),
        "page_bytes": moment.page_bytes,
        "max_cpu_percent": tuning.limits.max_cpu_percent,
        "within_seconds": tuning.limits.within_s,
        "reachable": best is not None,
        "tried": tuning.tried,
        "costs": costs_origin,
        "tick_ms": tick_ns / 1e6,
        "now": _candidate(tuning.now),
        "best": [_candidate(each) for each in tuning.best],
        "nearest": [_candidate(each) for each in tuning.nearest],
        "why": reasons(tuning, moment.page_bytes) if best else [],
        "sysfs": sysfs_lines(best) if best else [],
        "tmpfiles": tmpfiles_lines(best) if best else [],
    }


def _candidate(each: Candidate) -> dict[str, Any]:
    return {
        "knobs": each.knobs,
        "pages_saved": each.prediction.pages_saved,
        "seconds": each.seconds,
        "cpu_percent_at_most": each.cpu_percent,
        "prediction": prediction_of(each.prediction),
    }


def sysfs_lines(each: Candidate) -> list[str]:
    """Shell lines that set it now."""
    return [f"echo {value} > {_SYSFS}/{name}" for name, value in _written(each).items()]


def tmpfiles_lines(each: Candidate) -> list[str]:
    """Lines for a file in /etc/tmpfiles.d, which set it at each boot."""
    return [f"w {_SYSFS}/{name} - - - - {value}" for name, value in _written(each).items()]


def _written(each: Candidate) -> dict[str, str]:
    return {**each.knobs, "run": "1"}


def reasons(tuning: Tuning, page_bytes: int) -> list[str]:
    """Why the best is as it is: against the settings now, and against its own alternatives."""
    best, now = tuning.best[0], tuning.now
    told = []
    more = best.prediction.pages_saved - now.prediction.pages_saved
    if more:
        verb = "more" if more > 0 else "less"
        told.append(f"it saves {abs(more):,} pages ({abs(more) * page_bytes >> 10:,} KiB) {verb}")
    for name, value in best.switches.items():
        told += _switch(tuning, name, value)
    if best.pace.advisor_mode == "none":
        told.append(
            f"pages_to_scan={best.pace.pages_to_scan} with sleep_millisecs="
            f"{best.pace.sleep_millisecs} is the most that keeps ksmd below "
            f"{tuning.limits.max_cpu_percent:g} % of a core"
            if best.cpu_percent > tuning.limits.max_cpu_percent / 2
            else f"more than pages_to_scan={best.pace.pages_to_scan} would not be sooner"
        )
    else:
        told.append("the advisor slows down by itself once all is merged")
    return told


def _switch(tuning: Tuning, name: str, value: str) -> list[str]:
    """What one switch is worth: the best otherwise alike."""
    best = tuning.best[0]
    others = [
        each
        for each in tuning.best
        if each.switches[name] != value
        and all(each.switches[n] == v for n, v in best.switches.items() if n != name)
    ]
    if not others:
        return []
    other = others[0]
    if best.prediction.pages_saved != other.prediction.pages_saved:
        more = best.prediction.pages_saved - other.prediction.pages_saved
        return [f"{name}={value} saves {more:,} pages more than {name}={other.switches[name]}"]
    after, instead = (f"{each.prediction.cpu_percent:.2g} %" for each in (best, other))
    if after == instead:
        return []
    return [f"{name}={value} takes {after} of a core in the end, not {instead}"]
