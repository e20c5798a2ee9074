"""Two settings held against each other: is a difference real, and how large."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ksmtrace.inspect.stat.figures import JUDGED
from ksmtrace.inspect.stat.result import Comparison, Contrast, Run, Verdict

LEVEL = 0.05
TEST = "two-sided Mann–Whitney U (exact; with ties by permutation)"
_MOST_PERMUTATIONS = 20_000
_SEED = 7

Floats = npt.NDArray[np.float64]


def compare(
    knob: str,
    settings: tuple[str, str],
    order: str,
    runs: Sequence[Run],
    metric: str | None = None,
) -> Comparison:
    """What differs between the runs under two settings of a knob.

    order: the letters of the runs as they were made. metric: the only figure to judge; None: all of
    JUDGED, their p-values adjusted by Holm's method.
    """
    a, b = ([run for run in runs if run.setting == setting] for setting in settings)
    names = JUDGED if metric is None else (metric,)
    samples = {name: (_known(a, name), _known(b, name)) for name in names}
    # A figure that is the same in every run can't differ whichever run had which setting: judging
    # it would only weaken the others.
    judged = {n: (x, y) for n, (x, y) in samples.items() if len(x) and len(y) and _varies(x, y)}
    p = {name: p_value(x, y) for name, (x, y) in judged.items()}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    contrasts = [
        _contrast(name, x, y, p.get(name), adjusted.get(name)) for name, (x, y) in samples.items()
    ]
    return Comparison(
        knob=knob,
        a=settings[0],
        b=settings[1],
        order=order,
        metric=metric,
        judged=len(judged),
        level=LEVEL,
        test=TEST,
        repeats_needed=repeats_needed(max(1, len(judged))),
        contrasts=tuple(contrasts),
    )


def _known(runs: Sequence[Run], name: str) -> Floats:
    return np.array([value for run in runs if (value := run.known(name)) is not None], np.float64)


def _varies(a: Floats, b: Floats) -> bool:
    return len(np.unique(np.concatenate((a, b)))) > 1


def _contrast(name: str, a: Floats, b: Floats, p: float | None, p_holm: float | None) -> Contrast:
    if not len(a) or not len(b):
        return Contrast(name, None, None, None, None, None, "not judged")
    difference, low, high = shift(a, b)
    verdict: Verdict = "equal"
    if p_holm is not None:
        verdict = "real" if p_holm <= LEVEL else "not shown"
    return Contrast(name, difference, low, high, p, p_holm, verdict)


def p_value(a: Floats, b: Floats) -> float:
    """How often chance alone would part two samples as much: Mann-Whitney's U, two-sided.

    Exact: without ties by the distribution of U, with ties by all permutations; where those are
    more than 20,000 by 20,000 random ones.
    """
    from scipy import stats

    ties = len(np.unique(np.concatenate((a, b)))) < len(a) + len(b)
    method: Any = "exact"
    if ties:
        method = stats.PermutationMethod(
            n_resamples=_MOST_PERMUTATIONS, rng=np.random.default_rng(_SEED)
        )
    with warnings.catch_warnings():
        # All that it can have to say is of p-values that are no numbers; none is here.
        warnings.simplefilter("ignore")
        found = stats.mannwhitneyu(b, a, alternative="two-sided", method=method)
    return min(1.0, float(found.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for being several (Holm 1979), in their order."""
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[at]))
        adjusted[at] = highest
    return adjusted


def shift(a: Floats, b: Floats) -> tuple[float, float | None, float | None]:
    """By how much b lies above a, with the bounds of a confidence interval of 1 - LEVEL.

    The median of the differences of all pairs (Hodges and Lehmann 1963); the interval is what the
    exact Mann-Whitney test would not reject. It is None where so few values reject nothing.
    """
    pairs = np.sort((b[:, None] - a[None, :]).ravel())
    cut = _cut(len(a), len(b))
    if cut == 0:
        return float(np.median(pairs)), None, None
    return float(np.median(pairs)), float(pairs[cut - 1]), float(pairs[-cut])


def _cut(first: int, second: int) -> int:
    """The largest number k with P(U < k) <= LEVEL / 2 under chance alone, for samples so long."""
    ways = _ways(first, second)
    below, total = 0, math.comb(first + second, first)
    for k, count in enumerate(ways):
        below += count
        if below > LEVEL / 2 * total:
            return k
    return len(ways)


def _ways(first: int, second: int) -> list[int]:
    """In how many orders of two samples U is 0, 1, 2, ...: the Gaussian binomial coefficients."""
    counts = [1] + [0] * (first * second)
    for i in range(1, first + 1):
        # Times (1 - q^(second + i)), then by (1 - q^i).
        for u in range(len(counts) - 1, second + i - 1, -1):
            counts[u] -= counts[u - second - i]
        for u in range(i, len(counts)):
            counts[u] += counts[u - i]
    return counts


def repeats_needed(judged: int) -> int:
    """The fewest runs of each setting with which one of so many figures can be shown to differ."""
    repeats = 1
    while 2 * judged / math.comb(2 * repeats, repeats) > LEVEL:
        repeats += 1
    return repeats


def abba(repeats: int) -> str:
    """The order of runs: A and B as often, so that a steady drift hits both alike."""
    return "".join("AB" if number % 2 == 0 else "BA" for number in range(repeats))
