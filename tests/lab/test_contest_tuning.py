from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.lab.contest.tuning import TOLERANCE, Settings, settings_for, tune

DEFAULTS = Settings(100, 20)


@pytest.mark.parametrize(
    ("rate", "settings"),
    [
        (5, DEFAULTS),
        (50, Settings(1000, 20)),
        # 40 pages in 20 ms are too coarse: 120 in 60 are the same rate.
        (2, Settings(120, 60)),
        (0.01, Settings(20, 2000)),
        (1e-9, Settings(1, 2000)),
    ],
)
def test_a_rate_is_a_batch_of_a_hundred_pages_at_least_where_the_sleep_allows_it(
    rate: float, settings: Settings
) -> None:
    assert settings_for(rate, 20) == settings


def test_a_scenarios_own_sleep_is_kept() -> None:
    assert settings_for(5, 3000) == Settings(15000, 3000)
    assert settings_for(5, 0) == Settings(100, 20)


@given(st.floats(0.05, 1000), st.floats(0.01, 100), st.floats(0.3, 1.2))
def test_the_settings_found_do_as_much_as_wanted(
    wanted_rate: float, unit: float, power: float
) -> None:
    tries = []

    def measure(settings: Settings) -> Settings:
        tries.append(settings)
        return settings

    def amount(settings: Settings) -> float:
        return unit * settings.rate**power

    target = unit * wanted_rate**power
    found = tune(measure, amount, target, (DEFAULTS, DEFAULTS))
    assert abs(found.off) <= TOLERANCE
    assert amount(found.settings) == pytest.approx(target, rel=TOLERANCE)
    assert len(tries) <= 10


def test_what_can_not_be_met_is_told_with_how_far_it_is_off() -> None:
    # A step: nothing lies between 1 and 3.
    found = tune(lambda s: s, lambda s: 1 if s.rate < 7 else 3, 2, (DEFAULTS, DEFAULTS))
    assert found.off in (-0.5, 0.5)


def test_what_meets_the_target_already_is_not_tried_again() -> None:
    def never(_settings: Settings) -> float:
        raise AssertionError

    assert tune(never, lambda found: found, 1.01, (DEFAULTS, 1.0)).settings == DEFAULTS
