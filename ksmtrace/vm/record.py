"""Recordings made in a guest."""

from __future__ import annotations

from ksmtrace.errors import KsmtraceError
from ksmtrace.lab.performance import Performance, Watch
from ksmtrace.lab.plan import Plan
from ksmtrace.recording.target import Target, private_files
from ksmtrace.vm.guest import Guest

_THERE = "/tmp/recorded.ksm"  # noqa: S108 the guest's own


def perform_and_record(
    guest: Guest, plan: Plan, target: Target, *, watch: Watch = lambda _seen: None
) -> Performance:
    """Perform a scenario in a guest and keep it here. Raises KsmtraceError."""
    performance = guest.perform(plan, watch=watch, record_as=_THERE)
    _keep(guest, target)
    return performance


def record_in_guest(guest: Guest, target: Target, *options: str, seconds: float = 120) -> str:
    """Run `ksmtrace record OPTIONS` in a guest and keep its recording here; what it said.

    Raises KsmtraceError if it failed there.
    """
    status, _, words = guest.run("record", "-o", _THERE, "--force", *options, seconds=seconds)
    if status:
        raise KsmtraceError(f"record failed in the guest: {words.strip()}")
    _keep(guest, target)
    return words


def _keep(guest: Guest, target: Target) -> None:
    with private_files():
        folder = target.begin()
        try:
            guest.fetch(_THERE, folder)
            target.publish()
        except BaseException:
            target.leave()
            raise
    target.done()
