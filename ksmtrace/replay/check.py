"""`replay --check`: is a recording a legal execution, and is it the one that the model predicts?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.releases import (
    RELEASES,
    UNKNOWN_KERNEL,
    Profile,
    profile,
    profile_of_host,
)
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.replay.conformance import check_recording
from ksmtrace.replay.lab_run import is_lab_run, predict_lab_run
from ksmtrace.replay.prediction import has_contents, predict_from_contents

YES, NO, NOT_CLAIMED = "yes", "no", "not claimed"


def check(
    path: Path | str, kernel: str | None = None, *, demand_prediction: bool = False
) -> dict[str, Any]:
    """Both answers about a recording, with stable names.

    kernel: the release to check it as, the recorded one by default. An answer is {"answer": yes,
    no or not claimed, "why": words, "finding": {"index", "message", "state"} or None}. ok: neither
    is no. demand_prediction: a recording that can't be predicted is a bad one. Raises KsmtraceError
    (bad recording, or usage for a release).
    """
    recording = StoredRecording(path)
    recording.need_events()
    if demand_prediction and not is_lab_run(recording) and not has_contents(recording):
        raise KsmtraceError(
            f"{path} holds no contents, so nothing can be predicted from it",
            "record with --contents, or keep a lab run with: ksmtrace lab run FILE --record DIR",
            Exit.BAD_RECORDING,
        )
    release = kernel_of(recording, kernel)
    notes = [release.note] if release.note else []
    legal = _legal(recording, release)
    predicted = _predicted(recording, release, notes)
    return {
        "recording": str(recording.path),
        "kernel": ".".join(map(str, release.version)),
        "events": int(recording.manifest.get("events") or 0),
        "lost": _lost(recording),
        "ok": NO not in (legal["answer"], predicted["answer"]),
        "legal": legal,
        "predicted": predicted,
        "notes": notes,
    }


def kernel_of(recording: StoredRecording, kernel: str | None) -> Profile:
    """The profile to check a recording as: the newest one's for an import that names no kernel."""
    if kernel is not None:
        return profile(kernel)
    if recording.manifest["kernel"] == UNKNOWN_KERNEL:
        newest = RELEASES[-1].version
        note = f"its kernel is not known: checked as {newest}, choose with --kernel"
        return replace(profile(newest), note=note)
    return profile_of_host(
        recording.manifest["kernel"], str(recording.manifest.get("kernel_build") or "")
    )


def _lost(recording: StoredRecording) -> int | None:
    lost = int(recording.manifest.get("lost") or 0)
    return None if not lost and recording.manifest.get("loss_known") is False else lost


def _answer(answer: str, why: str, finding: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"answer": answer, "why": why, "finding": finding}


def _legal(recording: StoredRecording, release: Profile) -> dict[str, Any]:
    verdict = check_recording(recording, release)
    finding = verdict.finding
    if finding is None:
        return _answer(YES, f"{verdict.events:,} events are possible one after the other")
    told = {
        "index": finding.index, "ts": finding.ts, "rule": finding.rule,
        "message": finding.message, "state": list(finding.state),
    }  # fmt: skip
    if doubts := _doubts(recording, release):
        why = f"event {finding.index} looks impossible there, but {' and '.join(doubts)}"
        return _answer(NOT_CLAIMED, why, told)
    return _answer(NO, f"event {finding.index} is impossible there", told)


def _doubts(recording: StoredRecording, release: Profile) -> list[str]:
    """Why what looks impossible in an import may not be; empty for what ksmtrace recorded."""
    doubts = [str(doubt) for doubt in recording.manifest.get("doubts") or []]
    if recording.manifest["kernel"] == UNKNOWN_KERNEL and release.note:
        doubts.append("its kernel is not known")
    return doubts


def _predicted(recording: StoredRecording, release: Profile, notes: list[str]) -> dict[str, Any]:
    if is_lab_run(recording):
        return _lab_run(recording, release)
    if not has_contents(recording):
        return _answer(
            NOT_CLAIMED, "it holds no contents (see `record --contents` and `lab run --record`)"
        )
    prediction = predict_from_contents(recording, release)
    notes += prediction.notes
    if prediction.unpredicted is not None:
        wrong = prediction.unpredicted
        told = {"index": wrong.index, "message": wrong.message, "state": list(wrong.state)}
        return _answer(NO, f"{prediction.predicted} scans are, then one is not", told)
    scans = f"{prediction.predicted} scans with {prediction.events:,} events"
    if prediction.stopped:
        return _answer(
            YES if prediction.predicted else NOT_CLAIMED,
            f"{scans}; no more, because {prediction.stopped}",
        )
    moved = f"; memory moved in {prediction.moved} others" if prediction.moved else ""
    return _answer(YES if prediction.predicted else NOT_CLAIMED, scans + moved)


def _lab_run(recording: StoredRecording, release: Profile) -> dict[str, Any]:
    plan, comparison = predict_lab_run(recording, release)
    if comparison.agree:
        scans = sum(seen.scan is not None for seen in comparison.first.observations)
        return _answer(YES, f"the whole scenario: {scans} scans, every event, every counter")
    number, first = next(
        (n, one) for n, one in enumerate(comparison.observations) if not one.agrees
    )
    before = sum(len(seen.events) for seen in comparison.first.observations[:number])
    where = plan.steps[first.step - 1].step.where
    state = [
        f"{name}: recorded {recorded}, predicted {predicted}"
        for name, (recorded, predicted) in first.counters.items()
    ]
    if first.events is None:
        message = f"the counters after step {first.step} ({where}) are not as predicted"
        return _answer(NO, message, {"index": before, "message": message, "state": state})
    recorded, predicted = first.events.told
    index = before + first.events.at
    message = f"event {index}, step {first.step}: recorded is {recorded}, predicted was {predicted}"
    state.insert(0, f"they differ in: {first.events.why}")
    return _answer(
        NO, f"event {index} is not", {"index": index, "message": message, "state": state}
    )
