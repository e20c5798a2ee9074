"""Losing events on purpose: what is counted as lost is truth minus captured."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import numpy as np
import pytest

from ksmtrace.errors import Exit
from ksmtrace.events.batch import concatenate, lost_count, of_kind
from ksmtrace.events.registry import LOST
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.recording.reader import StoredRecording
from tests.live.conftest import Actor, Recorder, run_ksmtrace

PAGES = 50_021


@pytest.mark.parametrize("backend", ["core", "bcc"])
def test_counted_loss_equals_truth_minus_captured(
    backend: str,
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    record: Callable[..., Recorder],
    counters: Callable[[], dict[str, int]],
) -> None:
    # A ring of 1 MiB holds 16,384 events.
    recorder = record("--backend", backend, "--ring", "1", "--strict")
    actor([1 + number % 101 for number in range(PAGES)])
    ksmd.scan(1)
    recorder.process.send_signal(signal.SIGSTOP)
    ksmd.scan(1)
    recorder.process.send_signal(signal.SIGCONT)
    ksmd.scan(1)
    now = counters()
    assert recorder.end() == Exit.EVENTS_LOST

    # Every page merged once; three scans began and ended; one process entered.
    truth = now["pages_shared"] + now["pages_sharing"] + 2 * 3 + 1
    assert now["pages_shared"] + now["pages_sharing"] == PAGES
    events = concatenate(list(StoredRecording(recorder.target).event_batches()))
    captured = len(events) - int(of_kind(events, LOST).sum())
    assert captured < truth
    assert lost_count(events) == truth - captured
    report = json.loads(run_ksmtrace("report", recorder.target, "--json").stdout)
    assert report["lost"] == truth - captured
    # The loss stands where it happened: inside the second scan, after what the ring could hold.
    place = int(np.flatnonzero(of_kind(events, LOST))[0])
    assert 16_000 < place < captured
    shown = run_ksmtrace("report", recorder.target).stdout
    assert f"{truth - captured:,} LOST" in shown


def test_tracefs_reports_overruns_in_the_stream(
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    record: Callable[..., Recorder],
) -> None:
    recorder = record("--backend", "tracefs", "--ring", "1")
    actor([1 + number % 101 for number in range(PAGES)])
    ksmd.scan(1)
    recorder.process.send_signal(signal.SIGSTOP)
    ksmd.scan(1)
    recorder.process.send_signal(signal.SIGCONT)
    ksmd.scan(1)
    assert recorder.end() == Exit.OK
    events = concatenate(list(StoredRecording(recorder.target).event_batches()))
    captured = len(events) - int(of_kind(events, LOST).sum())
    assert lost_count(events) == PAGES + 2 * 3 + 1 - captured
