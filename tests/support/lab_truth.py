"""The truth of a scenario, told in the numbers and times of a real run of it.

The real ksmd and the model emit the same events in the same order, so that each event, and with it
each moment, page frame and process of the model's run, has one in the recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ksmtrace.events.batch import concatenate
from ksmtrace.events.registry import KSM_ENTER
from ksmtrace.kernel.releases import profile
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import parse_scenario
from ksmtrace.recording.reader import StoredRecording
from tests.support.truth import Truth
from tests.support.watched_model import STEP_NS, truth_of


def truth_of_lab_run(recording: StoredRecording) -> Truth:
    """What the model says happened in a recorded lab run, with the recording's events."""
    lab = recording.manifest["lab"]
    truth = truth_of(
        plan_scenario(parse_scenario(lab["scenario"], "recorded")),
        profile(recording.manifest["kernel"]),
    )
    events = concatenate(list(recording.event_batches()))
    assert events["kind"].tolist() == truth.events["kind"].tolist(), "host and model part"
    # Of a fork's ksm_enter it is the parent's process id.
    placed = events["kind"] != KSM_ENTER.id
    assert (events["addr"][placed] == truth.events["addr"][placed]).all(), "host and model part"
    when = _clock(truth, recording)
    # A process just forked, or just gone, is nobody's.
    owned = (events["tgid"] != 0) & (truth.events["tgid"] != 0)
    pairs = np.unique(np.stack((truth.events["tgid"][owned], events["tgid"][owned])), axis=1)
    real_tgid = dict(pairs.T.tolist())
    assert len(real_tgid) == pairs.shape[1], "one process, one process id"
    lives = {
        id(life): replace(
            life,
            tgid=real_tgid[life.tgid],
            ns=when(life.ns),
            end=None if life.end is None else when(life.end),
            item_ns=None if life.item_ns is None else when(life.item_ns),
        )
        for life in truth.lives
    }
    nodes = [
        replace(
            node,
            pfn=int(events["pfn"][node.lives[0].event]),
            born=when(node.born),
            died=None if node.died is None else when(node.died),
            lives=[lives[id(life)] for life in node.lives],
        )
        for node in truth.nodes
    ]
    return replace(
        truth,
        begin=replace(truth.begin, ns=when(truth.begin.ns)),
        events=events,
        lives=list(lives.values()),
        nodes=nodes,
        steps=[replace(step, ns=when(step.ns)) for step in truth.steps],
    )


def _clock(truth: Truth, recording: StoredRecording) -> Callable[[int], int]:
    """Turns the model's moments into the recording's."""
    samples = recording.table("counters").to_pandas()
    samples = samples[samples["tgid"].isna()]
    begin = samples["ts"][samples["reason"] == "start"].astype(int).tolist()
    sampled = begin + samples["ts"][samples["reason"] == "step"].astype(int).tolist()
    told = [truth.begin.ns, *(step.ns for step in truth.steps)]
    assert len(told) == len(sampled), "a sample for each operation"
    events = concatenate(list(recording.event_batches()))["ts"].tolist()
    # An operation begins just after the sample of the one before.
    theirs = [*told, *(ns + STEP_NS for ns in told), *truth.events["ts"].tolist()]
    ours = [*sampled, *(ns + 1 for ns in sampled), *events]
    order = np.argsort(theirs)
    theirs, ours = [theirs[i] for i in order], [ours[i] for i in order]
    assert ours == sorted(ours), "the same order"
    moments = dict(zip(theirs, ours, strict=True))

    def when(ns: int) -> int:
        return moments[ns]

    return when
