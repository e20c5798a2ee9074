"""The table `advisor`: its decisions, and whether the formula computes the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.kernel.advisor import next_change, next_pages_to_scan
from ksmtrace.timeline.aggregator import Aggregator
from ksmtrace.timeline.context import Context, Samples
from ksmtrace.timeline.scans import Scans
from ksmtrace.timeline.tables import frame, whole

Numbers = npt.NDArray[np.int64]
_POSSIBLE_CHANGES = np.arange(1, 20_001)
"""What the advisor may remember, in percent, where it is not known."""
_KNOBS = {
    "target_scan_time_s": "advisor_target_scan_time",
    "max_cpu_percent": "advisor_max_cpu",
    "max_pages_to_scan": "advisor_max_pages_to_scan",
}


def advisor(stream: Aggregator, context: Context, index: Scans) -> pd.DataFrame:
    """The table `advisor` (`tables.TABLES`).

    The advisor remembers how long the scan before took and an average of how that changed. Where
    the recording begins later than the advisor the average is not known: then every value is kept
    that explains the decisions so far, and a decision agrees if one of them gives it.
    """
    decisions, host = stream.decisions, context.host
    segment = np.searchsorted(stream.borders["order"], decisions["order"], "right")
    knobs = {
        column: _before(host, host.knob(name), decisions["ts"]) for column, name in _KNOBS.items()
    }
    pages_before = _pages_before(stream, host)
    computed, agrees = _check(stream, host, knobs, pages_before)
    return frame(
        "advisor",
        {
            "ts_ns": decisions["ts"].astype(np.int64),
            "scan": index.of_segment[segment],
            "scan_time_s": decisions["scan_time"],
            "cpu_percent": decisions["cpu_percent"],
            "pages_before": whole(pages_before),
            "pages_to_scan": decisions["pages_to_scan"],
            **{column: whole(values) for column, values in knobs.items()},
            "computed": computed,
            "agrees": agrees,
        },
    )


def _before(
    host: Samples, values: npt.NDArray[np.float64], ts: npt.NDArray[np.uint64]
) -> npt.NDArray[np.float64]:
    """A sampled number at the last sample before each moment; NaN: there was none."""
    at = np.searchsorted(host.ts, ts, "left")
    return np.concatenate(([np.nan], values))[at]


def _pages_before(stream: Aggregator, host: Samples) -> npt.NDArray[np.float64]:
    """pages_to_scan until each decision: the decision before, unless the mode was switched."""
    decisions = stream.decisions
    sampled = _before(host, host.knob("pages_to_scan"), decisions["ts"])
    pages = sampled.copy()
    pages[1:] = np.where(
        _switched(host, decisions["ts"])[1:], sampled[1:], decisions["pages_to_scan"][:-1]
    )
    return pages


def _switched(host: Samples, ts: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether the advisor was seen off between a decision and the one before (or the start)."""
    modes = np.array(
        [
            (mode is not None and "[none]" in mode) or mode == "none"
            for mode in host.knobs["advisor_mode"]
        ],
        bool,
    )
    off = host.ts[modes]
    before = np.concatenate(([np.uint64(0)], ts[:-1]))
    switched: npt.NDArray[np.bool_] = np.searchsorted(off, ts) > np.searchsorted(off, before)
    return switched


def _check(
    stream: Aggregator,
    host: Samples,
    knobs: dict[str, npt.NDArray[np.float64]],
    pages_before: npt.NDArray[np.float64],
) -> tuple[list[int | None], list[bool | None]]:
    """What the formula gives for each decision (None: it can't be told), and whether that is it."""
    decisions = stream.decisions
    switched = _switched(host, decisions["ts"])
    computed: list[int | None] = []
    agrees: list[bool | None] = []
    # The averages that the advisor may remember, and the last scan's seconds; 0: it begins anew.
    averages: Numbers | None = None
    last = 0
    for i in range(len(decisions)):
        seconds, decided = int(decisions["scan_time"][i]), int(decisions["pages_to_scan"][i])
        known = all(np.isfinite(values[i]) for values in (*knobs.values(), pages_before))
        if switched[i]:
            averages, last = np.zeros(1, np.int64), 0
        if averages is None:
            averages = _POSSIBLE_CHANGES
        else:
            averages = np.unique(next_change(averages, seconds, last or seconds))
        last = seconds
        if not known:
            computed.append(None)
            agrees.append(None)
            continue
        given = next_pages_to_scan(
            averages,
            pages_to_scan=int(pages_before[i]),
            scan_time=seconds,
            cpu_percent=int(decisions["cpu_percent"][i]),
            target_scan_time=int(knobs["target_scan_time_s"][i]),
            max_cpu=int(knobs["max_cpu_percent"][i]),
            max_pages_to_scan=int(knobs["max_pages_to_scan"][i]),
        )
        possible = np.unique(given)
        computed.append(int(possible[0]) if len(possible) == 1 else None)
        fits = given == decided
        # One decision that any average could explain says nothing.
        agrees.append(bool(fits.any()) if len(possible) == 1 or not fits.any() else None)
        averages = averages[fits] if fits.any() else _POSSIBLE_CHANGES
    return computed, agrees
