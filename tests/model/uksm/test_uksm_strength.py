"""The state machine of the hash's strength."""

from __future__ import annotations

from itertools import pairwise

from ksmtrace.model.uksm.strength import Account, Phase, Strength


def fed(strength: Strength, full_round: int, spent: float = 0, pages: int = 1000) -> int:
    """The strength after an adjustment. spent: words on collisions, a share of those spared."""
    spared = max(0, 1024 - strength.value) * pages
    words = max(pages, int(spared * spent)) if spent else 0
    strength.account = Account(spared, words, pages)
    strength.adjust(full_round)
    return strength.value


def test_without_collisions_it_falls_looks_around_and_stays_at_1() -> None:
    strength = Strength()
    values = [fed(strength, number) for number in range(2, 30)]
    assert values[:12] == [64, 64, 64, 63, 61, 57, 49, 33, 1, 34, 1, 1]
    assert set(values[12:]) == {1}


def test_with_dear_collisions_it_rises_by_steps_that_double() -> None:
    strength = Strength()
    values = [fed(strength, number, 0.95) for number in range(2, 10)]
    assert values == [64, 65, 67, 71, 79, 95, 127, 159]


def test_steps_begin_at_one_again_after_a_turn() -> None:
    strength = Strength()
    for number in range(2, 6):
        fed(strength, number, 0.95)
    before = strength.value
    steps = [fed(strength, number) for number in range(11, 15)]
    assert steps == [before, before, before - 1, before - 3]


def test_in_between_it_stays() -> None:
    strength = Strength()
    assert {fed(strength, number, 0.5) for number in range(2, 10)} == {64}


def test_a_changed_benefit_makes_it_look_around_at_the_third_time() -> None:
    strength = Strength()
    fed(strength, 2, 0.1)
    assert [fed(strength, number, 0.8) for number in (3, 4)] == [64, 64]
    assert strength.phase is Phase.STILL
    fed(strength, 5, 0.8)
    assert strength.phase is Phase.TRY_DOWN
    assert strength.value == 63


def test_it_looks_around_in_round_10_and_256_later() -> None:
    for number in (10, 266, 522):
        strength = Strength()
        fed(strength, 2, 0.5)
        fed(strength, number, 0.5)
        assert strength.phase is Phase.TRY_DOWN
    strength = Strength()
    fed(strength, 2, 0.5)
    fed(strength, 11, 0.5)
    assert strength.phase is Phase.STILL


def test_looking_around_it_settles_at_the_better_side() -> None:
    def benefit_at(value: int) -> float:
        # What is best at 80 words.
        return 1 - (900 - abs(value - 80)) / (1024 - value)

    strength = Strength()
    fed(strength, 2, benefit_at(64))
    number = 10
    fed(strength, number, benefit_at(strength.value))
    while strength.phase is not Phase.STILL:
        number += 1
        fed(strength, number, benefit_at(strength.value))
    assert abs(strength.value - 80) < 16


def test_nothing_hashed_is_nothing_to_judge() -> None:
    strength = Strength()
    assert not strength.adjust(10)
    assert strength.phase is Phase.NEW


def test_it_never_leaves_its_bounds() -> None:
    strength = Strength()
    values = [fed(strength, 11, 0.99) for _ in range(60)]
    assert values[-1] == 1034
    assert all(low <= high <= low + 32 for low, high in pairwise(values))
    # At 1024 words and more nothing is spared, so any cost is too much.
    account = Account(0, 5, 7)
    assert (account.ratio, account.benefit) == (100, 0)


def test_less_than_a_hundredth_counts_as_nothing() -> None:
    assert Account(1000, 9, 1).ratio == 0
    assert Account(1000, 10, 1).ratio == 1
    assert Account(1000, 1001, 1).ratio == 100
    assert Account(1000, 400, 6).benefit == 100
