"""What came of one scanner's work under one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ksmtrace.lab.contest.curve import Curve
from ksmtrace.lab.contest.protocols import Protocol
from ksmtrace.model.work import Work

FRACTIONS = (50, 90, 99)
"""Per cent of the optimum that a time is told for."""


@dataclass(frozen=True)
class Outcome:
    """One scanner's figures. protocol: None for a UKSM, which does the same under each.

    settings: how fast ksmd went, or a UKSM's seed. seconds: of simulated time. curve: pages saved
    beyond what fork shares anyway. optimum: what could be saved so at the end. off: by what part
    it misses what it was set to equal, None: was not set so. partial: the user has stopped it.
    """

    on: str
    protocol: Protocol | None
    settings: Mapping[str, int | str]
    seconds: float
    curve: Curve
    optimum: int
    work: Work
    breaks: int
    cpu_s: float
    off: float | None = None
    partial: bool = False

    @property
    def visits(self) -> int:
        """Pages looked at; places where there was none, or a zero page already, are no visits."""
        return self.work.visits

    @property
    def saved(self) -> int:
        """Pages saved at the end."""
        return round(self.curve.last)

    @property
    def cpu_share(self) -> float | None:
        """Of one CPU."""
        return self.cpu_s / self.seconds if self.seconds else None

    @property
    def cpu_us_per_page(self) -> float | None:
        """CPU time for each page that is saved at the end, in microseconds."""
        return self.cpu_s * 1e6 / self.saved if self.saved > 0 else None

    def time_to(self, per_cent: int) -> float | None:
        """Seconds until that part of the optimum was saved; None: never, or nothing can be."""
        if self.optimum <= 0:
            return None
        return self.curve.time_to(self.optimum * per_cent / 100)

    def as_of(self, protocol: Protocol, off: float | None = None) -> Outcome:
        """The same, told under a protocol."""
        return replace(self, protocol=protocol, off=off)
