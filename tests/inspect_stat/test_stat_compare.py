from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.inspect.stat.compare import (
    LEVEL,
    _ways,
    abba,
    compare,
    holm,
    p_value,
    repeats_needed,
    shift,
)
from ksmtrace.inspect.stat.figures import STAT_MEASURES
from ksmtrace.inspect.stat.notes import notes
from ksmtrace.inspect.stat.request import AB, StatRequest
from ksmtrace.inspect.stat.result import Comparison, Run
from ksmtrace.timeline.host_figures import Missing, Value


def run(setting: str, **values: float) -> Run:
    known: dict[str, Value] = {measure.name: Missing("not here") for measure in STAT_MEASURES}
    return Run(setting, "command", 0, known | values, 10, 0.1, 0.01)


def compared(a: list[float], b: list[float], metric: str | None = None) -> Comparison:
    runs = [run("0", ksmd_cpu_s=x) for x in a] + [run("1", ksmd_cpu_s=x) for x in b]
    return compare("smart_scan", ("0", "1"), "A" * len(a) + "B" * len(b), runs, metric)


def cpu_of(comparison: Comparison) -> str:
    return next(c.verdict for c in comparison.contrasts if c.name == "ksmd_cpu_s")


@given(st.integers(1, 40))
def test_the_order_has_as_many_of_each_and_balances_a_steady_drift(repeats: int) -> None:
    order = abba(repeats)
    places = {letter: [i for i, x in enumerate(order) if x == letter] for letter in "AB"}
    assert len(places["A"]) == len(places["B"]) == repeats
    difference = sum(places["B"]) - sum(places["A"])
    assert difference == repeats % 2


def test_p_is_that_of_the_published_table() -> None:
    # Every value of one sample below every one of the other: 2 of C(10, 5) orders.
    assert p_value(np.arange(5.0), np.arange(5.0) + 10) == pytest.approx(2 / 252)
    # U = 5 is the critical value of 6 and 6 at 5 % (Mann and Whitney 1947); U = 6 is not enough.
    u5 = [1.0, 2, 3, 4, 5, 11.5], [6.0, 7, 8, 9, 10, 12]
    u6 = [1.0, 2, 3, 4, 6.5, 11.5], [6.0, 7, 8, 9, 10, 12]
    assert p_value(*map(np.array, u5)) <= 0.05 < p_value(*map(np.array, u6))


def test_p_with_ties_counts_every_way_to_part_the_values() -> None:
    a, b = np.array([1.0, 1, 2, 3]), np.array([3.0, 4, 4, 5])
    pooled = np.concatenate((a, b))
    ranks = np.array([(pooled < x).sum() + ((pooled == x).sum() + 1) / 2 for x in pooled])
    sums = np.array([ranks[list(c)].sum() for c in combinations(range(8), 4)])
    most = abs(ranks[4:].sum() - sums.mean())
    assert p_value(a, b) == pytest.approx((abs(sums - sums.mean()) >= most - 1e-9).mean())


def test_holm_is_the_published_procedure() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_an_adjusted_p_is_never_smaller_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(x <= y <= 1 for x, y in zip(p, adjusted, strict=True))
    assert [adjusted[i] for i in np.argsort(p)] == sorted(adjusted)


@given(st.integers(1, 7), st.integers(1, 7))
def test_the_ways_to_reach_u_are_counted_right(first: int, second: int) -> None:
    found = [0] * (first * second + 1)
    for chosen in combinations(range(first + second), first):
        found[sum(chosen) - sum(range(first))] += 1
    assert _ways(first, second) == found
    assert sum(found) == math.comb(first + second, first)


def test_the_shift_and_its_interval_are_those_of_the_pairs() -> None:
    a, b = np.array([1.0, 2, 3, 4]), np.array([11.0, 12, 13, 14])
    # 4 and 4: the critical U is 0, so the interval spans all pairs' differences.
    assert shift(a, b) == (10.0, 7.0, 13.0)
    assert shift(a[:3], b[:3]) == (10.0, None, None)


def test_the_interval_holds_the_true_shift_as_often_as_it_says() -> None:
    random = np.random.default_rng(11)
    inside = 0
    for _ in range(1000):
        _, low, high = shift(random.normal(size=7), random.normal(size=7) + 3)
        assert low is not None
        assert high is not None
        inside += low <= 3 <= high
    assert inside >= 930


def test_runs_of_one_setting_held_against_themselves_are_seldom_called_different() -> None:
    random = np.random.default_rng(13)
    real = 0
    for _ in range(200):
        runs = [
            run(setting, ksmd_cpu_s=x, duration_s=y, saved_mean_bytes=z)
            for setting, x, y, z in zip("01" * 6, *random.normal(size=(3, 12)), strict=True)
        ]
        found = compare("smart_scan", ("0", "1"), "AB" * 6, runs)
        assert found.judged == 3
        real += any(contrast.verdict == "real" for contrast in found.contrasts)
    assert real <= 200 * LEVEL * 1.6


@given(st.permutations(range(12)))
def test_the_order_of_runs_is_no_matter_to_the_figures(order: list[int]) -> None:
    runs = [run("01"[i % 2], ksmd_cpu_s=float((i * 7) % 5 + i % 2)) for i in range(12)]
    one = compare("smart_scan", ("0", "1"), "AB" * 6, runs)
    other = compare("smart_scan", ("0", "1"), "AB" * 6, [runs[i] for i in order])
    assert one.contrasts == other.contrasts


def test_a_clear_difference_is_real_with_six_of_each_and_can_not_be_with_three() -> None:
    assert cpu_of(compared([1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16])) == "real"
    three = compared([1, 2, 3], [11, 12, 13])
    assert cpu_of(three) == "not shown"
    assert three.repeats_needed == 4


def test_more_figures_take_more_repeats() -> None:
    for judged in (1, 2, 5, 12, 40):
        needed = repeats_needed(judged)
        assert judged * 2 / math.comb(2 * needed, needed) <= LEVEL
        assert judged * 2 / math.comb(2 * needed - 2, needed - 1) > LEVEL


def test_what_is_the_same_in_every_run_is_equal_and_weakens_no_other() -> None:
    runs = [run("0", ksmd_cpu_s=i, merges=7) for i in range(4)]
    runs += [run("1", ksmd_cpu_s=i + 10, merges=7) for i in range(4)]
    found = compare("smart_scan", ("0", "1"), "ABBAABBA", runs)
    assert found.judged == 1
    verdicts = {c.name: c.verdict for c in found.contrasts}
    assert (verdicts["ksmd_cpu_s"], verdicts["merges"]) == ("real", "equal")
    assert verdicts["copies"] == "not judged"


def test_one_chosen_figure_is_judged_alone() -> None:
    runs = [run(s, ksmd_cpu_s=x + 10 * int(s), duration_s=x) for s in "01" for x in range(4)]
    assert compare("smart_scan", ("0", "1"), "AB" * 4, runs).judged == 2
    alone = compare("smart_scan", ("0", "1"), "AB" * 4, runs, "ksmd_cpu_s")
    assert [(c.name, c.verdict) for c in alone.contrasts] == [("ksmd_cpu_s", "real")]


@pytest.mark.parametrize("metric", [None, "ksmd_cpu_s"])
def test_where_nothing_could_be_judged_the_repeats_told_are_for_one_figure(
    metric: str | None,
) -> None:
    request = StatRequest(["true"], ab=AB("smart_scan", "0", "1"), repeats=2, metric=metric)
    comparison = compared([3, 3], [3, 3], metric)
    told = list(notes(request, [run("0"), run("1")] * 2, comparison, settled=0))
    (few,) = (note for note in told if "--repeat" in note)
    assert "for one figure it takes --repeat 4" in few
    assert "--metric" not in few
