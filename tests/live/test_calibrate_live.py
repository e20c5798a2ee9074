from __future__ import annotations

import os
from dataclasses import replace

import pytest

from ksmtrace.kernel.costs import DEFAULT_SOURCE, KSMD
from ksmtrace.kernel.stepper import parked
from ksmtrace.kernel.sysfs import HostSampler
from ksmtrace.lab.calibrate.calibration import calibrate
from ksmtrace.lab.calibrate.experiments import Experiment, copies, unique, zeros
from ksmtrace.processes.registered import registered_tgids

SMALL = (
    Experiment("merged", "", copies(9_973, 997), scans=3, again=3),
    Experiment("rewritten", "", unique(9_973), scans=1, rewritten=True),
    Experiment("tree", "", unique(4_999), scans=2, again=3),
    Experiment("merging", "", copies(9_973, 97), scans=1),
    Experiment("zero pages", "", zeros(9_973), scans=3, again=3, knobs={"use_zero_pages": "1"}),
)


def test_ksmd_is_measured_and_left_as_it_was() -> None:
    sampler = HostSampler()
    before = sampler.knobs()
    found = calibrate(2, experiments=SMALL)
    assert found.obstacle is None
    costs = found.calibration.costs
    # Slower or faster than this no machine is that runs these tests.
    assert 30 < costs.visit_ns < 10_000
    assert 100 < costs.unstable_level_ns * 10 < 50_000
    assert 0.01 < costs.xxhash_byte_ns < 5
    assert 100 < costs.merge_ns < 100_000
    assert costs.absent_ns < costs.visit_ns
    assert 500 < costs.wakeup_ns < 1_000_000
    sources = {name: one.source for name, one in found.calibration.constants.items()}
    assert sources["visit_ns"] == sources["merge_ns"] == sources["wakeup_ns"] == KSMD
    assert sources["skip_ns"] == DEFAULT_SOURCE
    assert sampler.knobs() == before
    sampler.close()
    assert not registered_tgids()


def test_a_larger_experiment_takes_longer() -> None:
    small = Experiment("merged", "", copies(997, 97), scans=3)
    large = replace(small, name="more", contents=copies(29_989, 97))
    one, other = calibrate(1, experiments=(small, large)).measurements
    assert other.ns[0] > 5 * one.ns[0]
    assert (one.work.visits, other.work.visits) == (997, 29_989)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_where_knobs_are_held_by_another_run_ksmd_is_not_measured() -> None:
    with parked():
        found = calibrate(1, experiments=SMALL)
    assert found.obstacle is not None
    assert found.measurements == ()
