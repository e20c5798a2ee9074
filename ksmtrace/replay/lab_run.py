"""A recorded lab run as a performance, and what the reference scanner predicts for it.

The recording's manifest holds the scenario, so the model performs it anew, in the recorded times,
and every counter and event must be what was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.events.registry import KSM_START_SCAN
from ksmtrace.kernel.releases import Profile
from ksmtrace.kernel.sysfs import COUNTERS
from ksmtrace.lab import operations as op
from ksmtrace.lab.compare import Comparison, compare
from ksmtrace.lab.notation import Teller
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.performance import RELATIVE, Moment, Observation, Performance
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.recorder import STEP
from ksmtrace.lab.scenario import parse_scenario
from ksmtrace.recording.reader import StoredRecording

_HOST = tuple(c.name for c in COUNTERS if c.where in ("ksm", "vmstat"))
_PROCESS = (*(c.name for c in COUNTERS if c.where == "process"), "ksm_zero_pages")
RECORDED = "recording"


def is_lab_run(recording: StoredRecording) -> bool:
    """Whether a recording holds the scenario that it was made with."""
    return isinstance(recording.manifest.get("lab"), dict)


def predict_lab_run(recording: StoredRecording, profile: Profile) -> tuple[Plan, Comparison]:
    """Compare a recorded lab run with the model's. Raises KsmtraceError (bad recording)."""
    plan, recorded = recorded_performance(recording, profile)
    model = perform_on_model(plan, profile, on=f"ksm:{profile.name}", like=recorded.observations)
    if len(recorded.observations) != len(model.observations):
        raise _damaged(recording)
    return plan, compare(plan, recorded, model)


def recorded_performance(recording: StoredRecording, profile: Profile) -> tuple[Plan, Performance]:
    """A recorded lab run as it was observed. Raises KsmtraceError (bad recording)."""
    try:
        lab = recording.manifest["lab"]
        plan = plan_scenario(parse_scenario(lab["scenario"], str(recording.path)))
        tgids = {int(tgid): str(name) for tgid, name in lab["processes"].items()}
        unknown = tuple(recording.manifest["fields_unknown"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged(recording) from None
    performance = Performance(RECORDED, profile, tgids=tgids, fields_unknown=unknown, real=True)
    rows = recording.table("counters").to_pylist()
    events = concatenate(list(recording.event_batches()))
    if not observe(plan, performance, rows, events):
        raise _damaged(recording)
    return plan, performance


def observe(
    plan: Plan,
    performance: Performance,
    rows: Sequence[Mapping[str, Any]],
    events: EventBatch,
) -> bool:
    """Put what was recorded into a performance. rows: of counters. False if steps are missing."""
    start = next((row for row in rows if row["reason"] == "start"), None)
    steps = [row for row in rows if row["reason"] == STEP and row["tgid"] is None]
    operations = [(step, operation) for step in plan.steps for operation in step.operations]
    if start is None or len(steps) != len(operations):
        return False
    of_processes = [row for row in rows if row["reason"] == STEP and row["tgid"] is not None]
    ends = np.searchsorted(events["ts"], [row["ts"] for row in steps], side="right")
    teller = _teller(plan, performance)
    at = process_at = 0
    before_ts = int(start["ts"])
    for (step, operation), row, end in zip(operations, steps, ends.tolist(), strict=True):
        # Nothing comes after the last operation: what does belongs to no operation at all.
        batch = events[at : len(events) if row is steps[-1] else end]
        at = end
        processes: dict[str, Mapping[str, int]] = {}
        while process_at < len(of_processes) and before_ts < of_processes[process_at]["ts"]:
            sample = of_processes[process_at]
            if sample["ts"] > row["ts"] or sample["tgid"] not in performance.tgids:
                break
            values = {name: sample[name] for name in _PROCESS if sample[name] is not None}
            processes[performance.tgids[sample["tgid"]]] = values
            process_at += 1
        before_ts = int(row["ts"])
        works = isinstance(operation, op.Scan | op.Batch)
        performance.observations.append(
            Observation(
                step.number,
                row["full_scans"] if isinstance(operation, op.Scan) else None,
                _counters(row, start),
                processes,
                batch,
                tuple(teller.tell(batch)),
                None if isinstance(operation, op.SetKnob) else "",
                begin=_begin(batch, row) if works else None,
                end=_moment(row, int(row["ts"])) if works else None,
            )
        )
    return True


def _teller(plan: Plan, performance: Performance) -> Teller:
    mms: dict[int, str] = {}

    def process_of(mm: int, tgid: int) -> str:
        if tgid in performance.tgids:
            mms[mm] = performance.tgids[tgid]
        return mms.get(mm, "a process")

    return Teller(process_of, plan.name_of)


def _counters(row: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: row[name] - start[name] if name in RELATIVE else row[name]
        for name in _HOST
        if row[name] is not None and start[name] is not None
    }


def _begin(batch: Any, row: Mapping[str, Any]) -> Moment:
    starts = batch["ts"][batch["kind"] == KSM_START_SCAN.id]
    return _moment(row, int(starts[0]) if len(starts) else int(row["ts"]))


def _moment(row: Mapping[str, Any], now: int) -> Moment:
    return Moment(now, row["ksmd_cpu_ns"] or 0)


def _damaged(recording: StoredRecording) -> KsmtraceError:
    return KsmtraceError(
        f"{recording.path} is no whole lab run: its steps and its samples don't match",
        "make it again with: ksmtrace lab run FILE --record DIR",
        Exit.BAD_RECORDING,
    )
