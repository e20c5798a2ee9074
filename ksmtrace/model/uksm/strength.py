"""How strong the hash shall be: UKSM weighs the words it spares against those that collisions cost.

After each full round the state machine moves the strength, or looks around: down first, then up,
then to the better of the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ksmtrace.model.uksm.governors import LEAST_STRENGTH, MOST_STRENGTH, STRENGTH

_LONGEST_STEP = 5
_WINDOW = 5
_GIVE_UP = 3
_EXPENSIVE = 90
_DIFFERENT = 50
_PROBE_AT = 10


@dataclass
class Account:
    """Words since the last adjustment. spared: not hashed. spent: on full hashes and collisions."""

    spared: int = 0
    spent: int = 0
    hashed: int = 0

    @property
    def ratio(self) -> int:
        """What was spent, in per cent of what was spared; below one per cent is 0."""
        if self.spent == 0:
            return 0
        if self.spared == 0 or self.spent > self.spared:
            return 100
        return self.spent * 100 // self.spared

    @property
    def benefit(self) -> int:
        """Words spared for each page hashed, after all."""
        return 0 if self.spent > self.spared else (self.spared - self.spent) // self.hashed


class Phase(Enum):
    """What the state machine is about."""

    NEW = "new"
    STILL = "still"
    TRY_DOWN = "try down"
    TRY_UP = "try up"
    BEFORE_STILL = "before still"


class Direction(Enum):
    """Where an account points."""

    STAY = "stay"
    UP = "up"
    DOWN = "down"
    PROBE = "probe"


@dataclass
class Strength:
    """The strength, and the state machine that moves it. account: what it judges by."""

    value: int = STRENGTH
    phase: Phase = Phase.NEW
    account: Account = field(default_factory=Account)
    _exponent: int = 0
    _last: Direction = Direction.UP
    _reference: int = 0
    _zeros: int = 0
    _obscure: int = 0
    _origin: int = 0
    _best_down: tuple[int, int] = (0, 0)
    _best_up: tuple[int, int] = (0, 0)
    _tried: int = 0
    _below: int = 0

    def adjust(self, full_round: int) -> bool:
        """Judge the account and open a new one; returns whether the strength has changed."""
        account = self.account
        if not account.hashed:
            return False
        before = self.value
        benefit = account.benefit
        match self.phase:
            case Phase.NEW | Phase.BEFORE_STILL:
                self._reference = benefit
                self._exponent = 0
                self.phase = Phase.STILL
            case Phase.STILL:
                self._still(full_round, benefit)
            case Phase.TRY_DOWN:
                self._try_down(full_round, benefit)
            case Phase.TRY_UP:
                self._try_up(full_round, benefit)
        self.account = Account()
        return self.value != before

    def _still(self, full_round: int, benefit: int) -> None:
        direction = self._direction(full_round)
        if direction is Direction.PROBE:
            self._origin = self.value
            self._best_down = self._best_up = (self.value, benefit)
            self._tried = 0
            self.phase = Phase.TRY_DOWN
            self._move(Direction.DOWN)
        elif direction is not Direction.STAY:
            if self._last is not direction:
                self._exponent = 0
            self._move(direction)
            self._reference = benefit
            self._last = direction

    def _try_down(self, full_round: int, benefit: int) -> None:
        self._look_back()
        if benefit < self._reference:
            self._below += 1
        elif benefit > self._best_down[1]:
            self._best_down = (self.value, benefit)
        if (
            self._below >= _GIVE_UP
            or self._direction(full_round) is Direction.UP
            or self.value == LEAST_STRENGTH
        ):
            self.value = min(MOST_STRENGTH, self._origin + 1)
            self._exponent = 0
            self._tried = 0
            self.phase = Phase.TRY_UP
        else:
            self._move(Direction.DOWN)

    def _try_up(self, full_round: int, benefit: int) -> None:
        self._look_back()
        if benefit < self._best_down[1]:
            self._below += 1
        elif benefit > self._best_up[1]:
            self._best_up = (self.value, benefit)
        if (
            self._below >= _GIVE_UP
            or self._direction(full_round) is Direction.DOWN
            or self.value == MOST_STRENGTH
        ):
            down, up = self._best_down, self._best_up
            self.value = up[0] if up[1] > down[1] else down[0]
            self.phase = Phase.BEFORE_STILL
        else:
            self._move(Direction.UP)

    def _look_back(self) -> None:
        if self._tried % _WINDOW == 0:
            self._below = 0
        self._tried += 1

    def _move(self, direction: Direction) -> None:
        """One step, the next one being longer."""
        step = 1 << self._exponent
        if direction is Direction.UP:
            self.value = min(MOST_STRENGTH, self.value + step)
        else:
            self.value = LEAST_STRENGTH if self.value <= step + 1 else self.value - step
        self._exponent = min(_LONGEST_STEP, self._exponent + 1)

    def _direction(self, full_round: int) -> Direction:
        """Where the account points. Asking changes what is remembered."""
        if full_round & 0xFF == _PROBE_AT:
            self._obscure = 0
            return Direction.PROBE
        ratio = self.account.ratio
        if ratio == 0:
            self._zeros += 1
            return Direction.DOWN if self._zeros > 2 else Direction.STAY
        self._zeros = 0
        if ratio > _EXPENSIVE:
            self._obscure = 0
            return Direction.UP
        if self._reference == 0:
            self._obscure = 0
            return Direction.PROBE
        if 100 * abs(self.account.benefit - self._reference) // self._reference > _DIFFERENT:
            self._obscure += 1
            return Direction.PROBE if self._obscure > 2 else Direction.STAY
        self._obscure = 0
        return Direction.STAY
