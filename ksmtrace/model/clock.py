"""The time that a model lives in: it passes only when somebody lets it pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """now_ns: CLOCK_MONOTONIC. ksmd_cpu_ns: CPU time of ksmd since boot.

    visit_ns: what a page visit costs, added to both as ksmd works.
    """

    now_ns: int = 0
    ksmd_cpu_ns: int = 0
    visit_ns: int = 0

    def visited(self) -> None:
        """Ksmd has visited one page."""
        self.now_ns += self.visit_ns
        self.ksmd_cpu_ns += self.visit_ns

    def scan_ends(self) -> None:
        """Ksmd has passed the last page of a full scan; whoever drives the clock may set it."""

    def wait(self, milliseconds: float) -> None:
        """Let time pass without ksmd working."""
        self.now_ns += int(milliseconds * 1_000_000)
