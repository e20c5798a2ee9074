"""What an advisor has to say of a host: the answer's parts, and their form in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Confidence = Literal["sure", "likely", "possible"]
"""sure: the kernel's own numbers prove it. likely: it follows from them unless the load changes.
possible: it is one of several explanations."""

State = Literal["pays", "dear", "loses", "idle", "off", "unknown"]
"""dear: it saves, but for more CPU than the memory is worth. idle: running, nothing to merge."""


@dataclass(frozen=True)
class Advice:
    """One piece of advice.

    id: its rule's. what: an imperative. commands: what to type, or the option or call with where
    it belongs. brings, risks: sentences; brings tells its arithmetic, or that it is not known.
    evidence: the numbers, units in their names. gain_bytes, gain_cpu_percent (of one core): the
    estimate, None if there is none. first: without it nothing else helps.
    """

    what: str
    commands: tuple[str, ...]
    why: str
    brings: str
    risks: str
    confidence: Confidence
    evidence: Mapping[str, float | int | str | None] = field(default_factory=dict)
    gain_bytes: float | None = None
    gain_cpu_percent: float | None = None
    first: bool = False
    id: str = ""

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Sorts ascending from the highest expected benefit."""
        return (not self.first, -(self.gain_bytes or 0.0), -(self.gain_cpu_percent or 0.0))


@dataclass(frozen=True)
class Verdict:
    """Whether KSM pays. figures: the numbers behind it, units in their names; None: not known."""

    state: State
    sentence: str
    figures: Mapping[str, float | int | None]


@dataclass(frozen=True)
class Overcommit:
    """What it would take to break all sharing. available_bytes: MemAvailable + free swap."""

    needed_bytes: int | None
    mem_available_bytes: int | None
    swap_free_bytes: int | None
    sentence: str

    @property
    def available_bytes(self) -> int | None:
        """Memory that can be given out; None if not known."""
        if self.mem_available_bytes is None:
            return None
        return self.mem_available_bytes + (self.swap_free_bytes or 0)

    @property
    def fits(self) -> bool | None:
        """Whether the host would survive it; None if not known."""
        if self.needed_bytes is None or self.available_bytes is None:
            return None
        return self.needed_bytes <= self.available_bytes


@dataclass(frozen=True)
class SharedPair:
    """KSM pages that two domains both map."""

    one: str
    other: str
    ksm_pages: int
    bytes: int


@dataclass(frozen=True)
class SharedBy:
    """Sharing across the domains of one kind. ksm_pages_across: mapped by at least two of them.

    domains: those that map any KSM page. pairs: most first.
    """

    by: Literal["vm", "cgroup"]
    domains: tuple[str, ...]
    ksm_pages: int
    ksm_pages_across: int
    bytes_across: int
    pairs: tuple[SharedPair, ...]


@dataclass(frozen=True)
class Caveat:
    """What to know about the numbers shown: a behaviour of this kernel that matters to them."""

    id: str
    sentence: str


@dataclass(frozen=True)
class Answer:
    """The whole page. shared: None if it can't be told; why: then in `not_known`."""

    source: str
    kernel: str
    observed_s: float
    verdict: Verdict
    advice: tuple[Advice, ...]
    overcommit: Overcommit
    shared: tuple[SharedBy, ...] | None
    caveats: tuple[Caveat, ...]
    not_known: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; units are in the names."""
        told = asdict(self)
        told["overcommit"] |= {
            "available_bytes": self.overcommit.available_bytes,
            "fits": self.overcommit.fits,
        }
        for one in told["advice"]:
            del one["first"]
            one["gain_cpu_percent_of_one_core"] = one.pop("gain_cpu_percent")
        return told
