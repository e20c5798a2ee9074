"""Two recordings compared: what they were made with, their figures, their processes by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pandas as pd

from ksmtrace.kernel.sysfs import KNOBS
from ksmtrace.timeline.build import Timeline
from ksmtrace.timeline.host_figures import Measure, Missing, Value
from ksmtrace.timeline.measures import MEASURES, Figures

SETUP: Mapping[str, str] = MappingProxyType(
    {
        "kernel": "Linux",
        "backend": "backend",
        "cpus": "CPUs",
        "memory_bytes": "memory",
        "page_bytes": "page size",
        "rmap_item_bytes": "rmap_item",
        "fields_unknown": "not known",
        "ended": "ended by",
    }
)
"""What of a manifest is compared, and its words."""


@dataclass(frozen=True)
class Setting:
    """A knob as sampled in one recording: at first and at last; None: not known."""

    first: str | None
    last: str | None


@dataclass(frozen=True)
class Compared:
    """A figure of both."""

    measure: Measure[Figures]
    a: Value
    b: Value

    @property
    def equal(self) -> bool:
        """Whether they are the same, which two unknown ones for one reason are too."""
        return self.a == self.b

    @property
    def delta(self) -> float | None:
        """B less A; None if one is not known."""
        if isinstance(self.a, Missing) or isinstance(self.b, Missing):
            return None
        return self.b - self.a

    @property
    def ratio(self) -> float | None:
        """B by A; None if one is not known, or is not above 0."""
        if isinstance(self.a, Missing) or isinstance(self.b, Missing):
            return None
        return self.b / self.a if self.a > 0 and self.b > 0 else None

    @property
    def b_is_better(self) -> bool | None:
        """None if they are equal, or not known, or if neither is better."""
        if self.measure.better is None or not self.delta:
            return None
        return (self.delta > 0) == (self.measure.better == "more")


@dataclass(frozen=True)
class Side:
    """The processes of one name in one recording, summed. None: not known."""

    processes: int
    merged_peak: int
    merged_last: int
    profit_bytes: int | None


@dataclass(frozen=True)
class Pair:
    """The processes of one name in both. cgroup: None if it differs or is not known."""

    name: str | None
    vm: bool
    cgroup: str | None
    a: Side | None
    b: Side | None

    @property
    def weight(self) -> int:
        """How many pages more are merged at most in one than in the other."""
        a, b = (side.merged_peak if side else 0 for side in (self.a, self.b))
        return abs(a - b)


@dataclass(frozen=True)
class Difference:
    """What `ksmtrace diff` says.

    setup: of SETUP what differs. knobs: those that differ. knobs_known: whether each knows any.
    durations_s: None for not known.
    """

    setup: Mapping[str, tuple[Any, Any]]
    knobs: Mapping[str, tuple[Setting, Setting]]
    knobs_known: tuple[bool, bool]
    durations_s: tuple[float | None, float | None]
    figures: tuple[Compared, ...]
    processes: tuple[Pair, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return (
            not self.setup
            and not self.knobs
            and all(figure.equal for figure in self.figures)
            and all(pair.a == pair.b for pair in self.processes)
        )

    @property
    def same_length(self) -> bool:
        """Whether both last as long, to 2 %: then sums compare too."""
        a, b = self.durations_s
        return a is not None and b is not None and abs(a - b) <= max(a, b) / 50


def difference(a: Timeline, b: Timeline) -> Difference:
    """Compare two recordings. Raises KsmtraceError (exit code 4) where a table is damaged."""
    first, second = Figures(a), Figures(b)
    setup = {name: (first.manifest.get(name), second.manifest.get(name)) for name in SETUP}
    knobs = {k.name: (_setting(first, k.name), _setting(second, k.name)) for k in KNOBS}
    return Difference(
        setup={name: both for name, both in setup.items() if both[0] != both[1]},
        knobs={name: both for name, both in knobs.items() if both[0] != both[1]},
        knobs_known=(_any(a for a, _ in knobs.values()), _any(b for _, b in knobs.values())),
        durations_s=(_known(first.duration_s), _known(second.duration_s)),
        figures=tuple(Compared(m, m.of(first), m.of(second)) for m in MEASURES),
        processes=_pairs(a.processes, b.processes),
    )


def _any(settings: Iterable[Setting]) -> bool:
    return any(setting.first is not None for setting in settings)


def _known(value: Value) -> float | None:
    return None if isinstance(value, Missing) else value


def _setting(figures: Figures, name: str) -> Setting:
    sampled = [value for value in figures.timeline.context.host.knobs[name] if value is not None]
    if sampled:
        return Setting(sampled[0], sampled[-1])
    stored = {**figures.manifest.get("knobs", {}), **figures.manifest.get("knobs_set", {})}
    return Setting(stored.get(name), stored.get(name))


Key = tuple[str | None, bool, str | None]


def _sides(processes: pd.DataFrame) -> dict[Key, Side]:
    """The processes of each name; a guest's is its own, so that cgroups are no matter."""
    table = processes[["vm", "comm", "cgroup", "merged_peak", "merged_last", "profit_bytes"]]
    sides: dict[Key, Side] = {}
    for vm, comm, cgroup, peak, last, profit in table.itertuples(index=False, name=None):
        key = (vm, True, None) if pd.notna(vm) else (_text(comm), False, _text(cgroup))
        before = sides.get(key, Side(0, 0, 0, None))
        gained = before.profit_bytes
        if pd.notna(profit):
            gained = int(profit) + (gained or 0)
        sides[key] = Side(
            before.processes + 1,
            before.merged_peak + int(peak),
            before.merged_last + int(last),
            gained,
        )
    return sides


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def _pairs(a: pd.DataFrame, b: pd.DataFrame) -> tuple[Pair, ...]:
    """Processes by name and cgroup, and where the cgroups differ by name alone."""
    first, second = _sides(a), _sides(b)
    pairs = [Pair(*key, first.pop(key), second.pop(key)) for key in [*first] if key in second]
    for key in [*first]:
        twin = next((other for other in second if other[:2] == key[:2]), None)
        if twin is not None and key[0] is not None:
            pairs.append(Pair(key[0], key[1], None, first.pop(key), second.pop(twin)))
    pairs += [Pair(*key, side, None) for key, side in first.items()]
    pairs += [Pair(*key, None, side) for key, side in second.items()]
    return tuple(sorted(pairs, key=lambda p: (-p.weight, p.name or "", p.cgroup or "")))
