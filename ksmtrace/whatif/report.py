"""What `ksmtrace simulate` says of a moment, as plain data with stable names and units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ksmtrace.model.engines import Engine
from ksmtrace.whatif.moment import Moment
from ksmtrace.whatif.pacing import Pace, Prediction
from ksmtrace.whatif.passes import Passes, saved

SHARES = (50, 90, 99)
"""Of what is saved in the end, in percent: when that is reached."""


@dataclass(frozen=True)
class Outcome:
    """One scanner over a moment. on: as asked for."""

    on: str
    engine: Engine
    passes: Passes
    pace: Pace
    prediction: Prediction | None


def report_of(
    moment: Moment, outcomes: Sequence[Outcome], *, costs_origin: str, tick_ns: int
) -> dict[str, Any]:
    """What `--json` prints. prediction is null where ksmd would never finish a scan."""
    return {
        "page_bytes": moment.page_bytes,
        "pages": len(moment),
        "processes": len(set(moment.tgids.tolist())),
        "pages_changing": int(moment.changing.sum()),
        "costs": costs_origin,
        "tick_ms": tick_ns / 1e6,
        "on": [_outcome(outcome) for outcome in outcomes],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    done = outcome.passes.done
    return {
        "on": outcome.on,
        "engine": outcome.engine,
        "converged": outcome.passes.converged,
        "partial": outcome.passes.partial,
        "pages_saved": saved(done[-1].counters) if done else 0,
        "saved": [saved(each.counters) for each in done],
        "scans": [dict(each.counters) for each in done],
        "pace": asdict(outcome.pace),
        "prediction": None if outcome.prediction is None else prediction_of(outcome.prediction),
    }


def prediction_of(prediction: Prediction) -> dict[str, Any]:
    """A prediction as plain data; what is reached at no time is null."""
    reached = {share: prediction.at(share / 100) for share in SHARES}
    return {
        **{f"seconds_to_{share}_percent": _part(at, 0) for share, at in reached.items()},
        **{f"cpu_seconds_to_{share}_percent": _part(at, 1) for share, at in reached.items()},
        "cpu_percent_until_saved": prediction.cpu_percent_until_saved,
        "scan_seconds": prediction.scan_seconds,
        "cpu_percent": prediction.cpu_percent,
        "pages_to_scan": prediction.pages_to_scan,
    }


def _part(reached: tuple[float, float] | None, which: int) -> float | None:
    return None if reached is None else reached[which]
