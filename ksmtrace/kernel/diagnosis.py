"""What a look at a host found: the doctor's findings, and their form in JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ksmtrace.kernel import host

State = Literal["yes", "no", "note"]


@dataclass(frozen=True)
class Finding:
    """One answer. state: yes (works), no (doesn't), note (worth knowing)."""

    topic: str
    state: State
    detail: str
    remedy: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All answers. can_trace: some backend sees events. system: which of the two the kernel has.

    Of UKSM there are no events, but `record` takes its counters.
    """

    findings: list[Finding]
    can_trace: bool
    system: Literal["ksm", "uksm"] | None = "ksm"

    @property
    def can_record(self) -> bool:
        """Whether `record` works here, if only with counters."""
        return self.can_trace or self.system == "uksm"

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kernel": host.kernel_release(),
            "system": self.system,
            "can_trace": self.can_trace,
            "can_record": self.can_record,
            "findings": [asdict(finding) for finding in self.findings],
        }
