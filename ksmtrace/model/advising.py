"""The scan-time advisor at work: what it is told of each full scan, and what it decides."""

from __future__ import annotations

from ksmtrace.kernel.advisor import AdvisorKnobs, AdvisorState, decide
from ksmtrace.model.state import State


class Advising:
    """Remembers a scan's beginning; sets pages_to_scan at its end, if the advisor is on."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._advisor = AdvisorState()
        self._scan_start = 0

    def restart(self) -> None:
        """The mode was switched on: forget everything; the scan under way began at boot."""
        self._advisor = AdvisorState()
        self._scan_start = 0

    def scan_starts(self) -> None:
        """A full scan begins."""
        if self._is_on():
            self._scan_start = self._state.clock.now_ns

    def scan_ends(self) -> None:
        """It has passed its last page."""
        if not self._is_on():
            return
        state = self._state
        settings = state.settings
        decision = decide(
            self._advisor,
            AdvisorKnobs(
                settings.advisor_max_cpu,
                settings.advisor_max_pages_to_scan,
                settings.advisor_target_scan_time,
            ),
            pages_to_scan=settings.pages_to_scan,
            scan_ns=state.clock.now_ns - self._scan_start,
            ksmd_cpu_ns=state.clock.ksmd_cpu_ns,
        )
        self._advisor = decision.state
        settings.pages_to_scan = decision.pages_to_scan
        state.stream.advisor(decision.scan_time, decision.pages_to_scan, decision.cpu_percent)

    def _is_on(self) -> bool:
        return self._state.settings.advisor_mode == "scan-time"
