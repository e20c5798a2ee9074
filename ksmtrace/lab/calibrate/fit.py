"""Costs from experiments: which prices make the work counted cost the time measured?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ksmtrace.kernel.costs import DEFAULT, Costs
from ksmtrace.model.work import PRICES, Work

_PULL = 0.05
"""That a price is twice the usual one counts as much as an error of 5 % in an experiment."""


@dataclass(frozen=True)
class Fit:
    """prices: nanoseconds by constant, those that any of the work depends on.

    errors: of each experiment, the sum of its work at these prices against what was measured; 0.1
    is ten percent too much.
    """

    prices: dict[str, float]
    errors: tuple[float, ...]


def fit(
    works: Sequence[Work], measured_ns: Sequence[float], wakeup_ns: float, usual: Costs = DEFAULT
) -> Fit:
    """Prices that make the relative errors least (least squares, none below 0).

    wakeup_ns: known from elsewhere. usual: prices whose proportions are drawn to, weakly; that
    decides where the experiments can hardly tell two of them apart. Raises ValueError for a time
    that isn't positive, or a usual price.
    """
    from scipy.optimize import nnls

    times = np.array(measured_ns, float)
    if not (times > 0).all():
        raise ValueError("a measured time must be positive")
    kinds = [
        kind for kind in PRICES if kind != "wakeups" and any(getattr(work, kind) for work in works)
    ]
    counts = np.array([[getattr(work, kind) for kind in kinds] for work in works], float)
    woken = np.array([work.wakeups for work in works], float) * wakeup_ns
    goal = (times - woken) / times
    usually = np.array([getattr(usual, PRICES[kind]) for kind in kinds], float)
    if not (usually > 0).all():
        raise ValueError("a usual price must be positive")
    # A host that is slower altogether is not drawn to the usual speed.
    usually *= np.median(goal / (counts @ usually / times))
    rows = np.vstack([counts / times[:, None], np.diag(_PULL / usually)])
    found, _ = nnls(rows, np.append(goal, np.full(len(kinds), _PULL)))
    errors = counts @ found / times - goal
    prices = {PRICES[kind]: float(price) for kind, price in zip(kinds, found, strict=True)}
    return Fit(prices, tuple(float(error) for error in errors))
