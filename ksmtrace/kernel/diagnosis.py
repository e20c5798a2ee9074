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
    """All answers. can_trace: some backend works."""

    findings: list[Finding]
    can_trace: bool

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kernel": host.kernel_release(),
            "can_trace": self.can_trace,
            "findings": [asdict(finding) for finding in self.findings],
        }
