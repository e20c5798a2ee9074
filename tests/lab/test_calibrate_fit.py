from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.kernel.costs import DEFAULT, Costs
from ksmtrace.kernel.releases import profile
from ksmtrace.lab.calibrate.counted import knobs_of, work_of
from ksmtrace.lab.calibrate.experiments import (
    EXPERIMENTS,
    Experiment,
    copies,
    pairs_and_unique,
    unique,
    zeros,
)
from ksmtrace.lab.calibrate.fit import fit
from ksmtrace.model.work import PRICES, Work

SMALL = (
    Experiment("visits", "", copies(211, 7), scans=3),
    Experiment("hashes", "", unique(211), scans=1, rewritten=True),
    Experiment("levels", "", unique(97), scans=2),
    Experiment("more levels", "", unique(907), scans=2),
    Experiment("stable", "", pairs_and_unique(211, 97), scans=3),
    Experiment("prefix", "", unique(211, 2048), scans=2),
    Experiment("merges", "", copies(211, 7), scans=1),
    Experiment("pairs", "", copies(422, 211), scans=1),
    Experiment("zeros", "", zeros(97), scans=1, knobs={"use_zero_pages": "1"}),
    Experiment("absent", "", zeros(97), scans=3, knobs={"use_zero_pages": "1"}),
    Experiment("skips", "", unique(97), scans=4, knobs={"smart_scan": "1"}),
)
KERNEL = profile("6.18")


def works(experiments: tuple[Experiment, ...] = SMALL) -> list[Work]:
    knobs = [knobs_of(one, KERNEL) for one in experiments]
    return [work_of(one, KERNEL, k) for one, k in zip(experiments, knobs, strict=True) if k]


WORKS = works()


@given(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(0.5, 2))
def test_prices_are_found_again(visit: float, level: float, hashing: float) -> None:
    host = replace(
        DEFAULT,
        visit_ns=DEFAULT.visit_ns * visit,
        unstable_level_ns=DEFAULT.unstable_level_ns * level,
        xxhash_byte_ns=DEFAULT.xxhash_byte_ns * hashing,
    )
    found = fit(WORKS, [work.ns(host) for work in WORKS], host.wakeup_ns, usual=host)
    for name, price in found.prices.items():
        assert price == pytest.approx(getattr(host, name), rel=1e-6)
    assert max(map(abs, found.errors)) < 1e-6


@given(st.floats(0.3, 3), st.floats(0.3, 3))
def test_the_sum_is_right_even_if_the_usual_prices_are_not(slower: float, hashing: float) -> None:
    host = Costs(**{name: getattr(DEFAULT, name) * slower for name in Costs.__annotations__})
    host = replace(host, xxhash_byte_ns=host.xxhash_byte_ns * hashing)
    found = fit(WORKS, [work.ns(host) for work in WORKS], host.wakeup_ns)
    assert max(map(abs, found.errors)) < 0.1
    assert found.prices["visit_ns"] == pytest.approx(host.visit_ns, rel=0.1)


def test_what_cannot_be_told_apart_stays_in_its_usual_proportion() -> None:
    both = Work(visits=1000, merges=1000)
    measured = 2 * both.ns(DEFAULT)
    prices = fit([both], [measured], 0.0).prices
    assert set(prices) == {"visit_ns", "merge_ns"}
    assert prices["visit_ns"] > DEFAULT.visit_ns
    assert prices["merge_ns"] > DEFAULT.merge_ns
    assert 1000 * sum(prices.values()) == pytest.approx(measured, rel=0.01)


def test_only_what_was_done_has_a_price() -> None:
    names = set(fit(WORKS, [work.ns(DEFAULT) for work in WORKS], 0.0).prices)
    assert names == {
        "visit_ns", "absent_ns", "skip_ns", "xxhash_byte_ns", "compare_byte_ns",
        "stable_level_ns", "unstable_level_ns", "ksm_page_ns", "merge_ns",
    } | ({"cold_level_ns"} if any(work.cold_levels for work in WORKS) else set())  # fmt: skip


@pytest.mark.parametrize("ns", [0.0, -1.0, float("nan")])
def test_a_time_that_cannot_be_is_refused(ns: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        fit([Work(visits=3)], [ns], 0.0)


def test_each_experiment_does_what_it_is_for() -> None:
    done = dict(zip((one.name for one in SMALL), WORKS, strict=True))
    assert done["visits"] == Work(visits=211, wakeups=1)
    assert done["hashes"] == Work(visits=211, xxhash_bytes=211 * 4096, wakeups=1)
    assert done["absent"] == Work(absent=97, wakeups=1)
    assert done["skips"] == Work(skipped=97, wakeups=1)
    assert done["merges"].merges == 211 - 7
    assert done["pairs"].ksm_pages == 211
    assert done["zeros"].merges == 97
    assert done["stable"].stable_levels > 97 * 6
    assert done["prefix"].compared_bytes >= 2048 * done["prefix"].unstable_levels


def test_an_experiment_repeats_the_same_work() -> None:
    assert works() == WORKS


def test_what_a_kernel_lacks_is_not_tried() -> None:
    old = profile("2011")
    tried = [one.name for one in EXPERIMENTS if knobs_of(one, old) is not None]
    assert "skipped" not in tried
    assert "zero pages" not in tried
    assert "merged" in tried
    knobs = {name for one in EXPERIMENTS for name in knobs_of(one, old) or {}}
    assert not knobs


def test_every_kind_of_work_but_failures_has_a_price() -> None:
    assert set(PRICES) == set(Work.__annotations__) - {"failed"}
    assert set(PRICES.values()) == set(Costs.__annotations__)
