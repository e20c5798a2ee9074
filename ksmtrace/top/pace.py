"""How far the full scan under way has come, and when it will end, on a live host."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from ksmtrace.top.state import Scan

_KEPT = 64


def visits_of(counters: Mapping[str, float]) -> float | None:
    """Pages that ksmd came by since boot: visited, or skipped by smart scan (6.7)."""
    scanned = counters.get("pages_scanned")
    return None if scanned is None else scanned + counters.get("pages_skipped", 0)


class ScanWatch:
    """Follows full scans by samples of the counters, and by events where there are any."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self._seq: int | None = None
        self._sampled_ns = 0
        self._start_ns: int | None = None
        self._start_visits: float | None = None
        self._visits_before: float | None = None
        self._last_visits: float | None = None
        self._last_s: float | None = None
        self._done: int | None = None
        self._too_fast = 0

    def sample(self, ns: int, counters: Mapping[str, float]) -> None:
        """Take a sample of the counters."""
        visits = visits_of(counters)
        if visits is not None:
            self._samples.append((ns, visits))
        done = counters.get("full_scans")
        if done is not None:
            self._count(ns, int(done))
        self._sampled_ns = ns
        self._settle()

    def _count(self, ns: int, done: int) -> None:
        scans = 0 if self._done is None else done - self._done
        self._done = done
        self._too_fast = scans if scans > 1 else 0
        if self._too_fast:
            self._last_s = (ns - self._sampled_ns) / scans / 1e9
            self._last_visits = self._visits_before = None
            self._start_ns = self._start_visits = None
        elif scans and done != self._seq:
            # It ended and the next began somewhere between the two samples.
            self._begin((self._sampled_ns + ns) // 2, follows=scans == 1)
        self._seq = done

    def told(self, start: tuple[int, int, int] | None, last_s: float | None) -> None:
        """What events tell: start (ns), number and items of the scan, and seconds of the last."""
        self._last_s = last_s or self._last_s
        if start is None or start[0] == self._start_ns:
            return
        ns, seq, _ = start
        follows = self._seq is None or seq in (self._seq, self._seq + 1)
        if self._seq == seq and self._start_ns is not None:
            # The samples told of it already, less exactly.
            self._start_ns, self._start_visits = ns, None
            return
        self._begin(ns, follows=follows)
        self._seq = seq

    def _begin(self, ns: int, *, follows: bool) -> None:
        self._visits_before = self._start_visits if follows else None
        if follows and self._start_ns is not None:
            self._last_s = (ns - self._start_ns) / 1e9
        self._start_ns, self._start_visits = ns, None

    def _settle(self) -> None:
        """Once a sample is there from after the start: how many visits there were by then."""
        if self._start_ns is None or self._start_visits is not None:
            return
        self._start_visits = self._visits_at(self._start_ns)
        if self._start_visits is not None and self._visits_before is not None:
            self._last_visits = self._start_visits - self._visits_before

    def _visits_at(self, ns: int) -> float | None:
        """The visits at a moment, between two samples in proportion; None: before all samples."""
        after: tuple[int, float] | None = None
        for at, visits in reversed(self._samples):
            if at <= ns:
                if after is None:
                    return visits
                share = (ns - at) / (after[0] - at)
                return visits + share * (after[1] - visits)
            after = at, visits
        return None

    def scan(self, ns: int, pace: float | None, items: float | None, run: str | None) -> Scan:
        """The scan now. pace: visits a second. items: pages on ksmd's list. run: the knob."""
        if run is not None and run != "1":
            return Scan(self._seq, last_s=self._last_s, basis="ksmd is stopped")
        if self._too_fast:
            words = f"{self._too_fast} scans since the last look"
            return Scan(self._seq, under_way=True, last_s=self._last_s, basis=words)
        if self._start_ns is None:
            return Scan(
                self._seq, under_way=True, last_s=self._last_s, basis="it began before top did"
            )
        elapsed = max(ns - self._start_ns, 0) / 1e9
        here = Scan(self._seq, under_way=True, elapsed_s=elapsed, last_s=self._last_s)
        expected = self._last_visits or items
        visits = self._samples[-1][1] if self._samples else None
        done = None
        if visits is not None and self._start_visits is not None:
            done = max(visits - self._start_visits, 0)
        if done and expected:
            left = expected - done
            return _with(
                here,
                visited_pages=int(done),
                expected_pages=int(expected),
                fraction=min(done / expected, 1.0),
                ends_in_s=left / pace if pace and left > 0 else None,
                basis="of the pages of the scan before" if self._last_visits else "of all pages",
            )
        if self._last_s:
            left = self._last_s - elapsed
            return _with(
                here,
                expected_pages=None if expected is None else int(expected),
                fraction=min(elapsed / self._last_s, 1.0),
                ends_in_s=left if left > 0 else None,
                basis="of the time of the scan before",
            )
        return _with(here, basis="nothing to compare it with yet")


def _with(scan: Scan, **changes: object) -> Scan:
    return Scan(**{**vars(scan), **changes})
