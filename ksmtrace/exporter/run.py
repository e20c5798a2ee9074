"""The exporter as a whole: what it reads, where it listens, how it ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass

from ksmtrace.errors import host_cannot
from ksmtrace.exporter.collect import KsmCollector
from ksmtrace.exporter.listening import Address
from ksmtrace.exporter.serving import Server
from ksmtrace.kernel.host import in_initial_pid_namespace, kernel_release, ksm_obstacles
from ksmtrace.kernel.sysfs import PROC, HostSampler
from ksmtrace.processes.background import Background
from ksmtrace.processes.following import Processes, files_to_keep

_FIRST_READING = 10.0


@dataclass(frozen=True)
class Plan:
    """What to export and where. processes, groups: most that get series of their own.

    backend: None without a capture. cow: see writes to merged pages too.
    """

    address: Address
    processes: int
    groups: int
    backend: str | None = None
    cow: bool = False


def export(plan: Plan, say: Callable[[str], None]) -> None:
    """Serve until KeyboardInterrupt ends it, which goes through.

    Raises KsmtraceError: HOST_CANNOT without KSM, or where it can't be traced as asked.
    """
    if obstacles := ksm_obstacles():
        raise host_cannot(obstacles, "export KSM's counters")
    with ExitStack() as stack:
        _serve(plan, stack, say)


def _serve(plan: Plan, stack: ExitStack, say: Callable[[str], None]) -> None:
    sampler = stack.enter_context(closing(HostSampler()))
    capture = None
    if plan.backend is not None:
        # numpy, which only events need.
        from ksmtrace.capture.pump import capturing
        from ksmtrace.exporter.breaks import BreaksByProcess
        from ksmtrace.exporter.events import EventSums

        # Inside a container the events' process ids are not those of its /proc.
        listed = plan.processes if in_initial_pid_namespace() else 0
        sums = EventSums(BreaksByProcess(listed) if plan.cow else None)
        capture = stack.enter_context(capturing(plan.backend, sums, cow=plan.cow, say=say))
    background = _processes(plan, say)
    collector = KsmCollector(sampler, background, capture, (plan.processes, plan.groups))
    server = stack.enter_context(closing(Listening(plan.address, collector, say)))
    server.serve()


def _processes(plan: Plan, say: Callable[[str], None]) -> Background | None:
    if not (PROC / "self" / "ksm_stat").exists():
        say(f"this kernel ({kernel_release()}) tells nothing of processes: ksm_stat came with 6.1")
        return None
    background = Background(Processes(plan.processes, files_to_keep()).take, say)
    first = background.latest(_FIRST_READING)
    if first is not None and first.unreadable:
        say(
            f"{first.unreadable:,} processes can't be read, so they are in no figure:\n"
            "          run as root, or give it CAP_DAC_READ_SEARCH"
        )
    return background


class Listening:
    """The server, which says where it is."""

    def __init__(
        self, address: Address, collector: KsmCollector, say: Callable[[str], None]
    ) -> None:
        self._server = Server(address, collector, say)
        self.address = Address(address.family, self._server.server_address)
        if not self.address.loopback:
            say(
                f"{self.address} is no loopback address: whoever can reach it reads the names of"
                " processes,\n          cgroups and guests here"
            )
        say(f"listening on http://{self.address}/metrics (Ctrl-C ends it)")

    def serve(self) -> None:
        """Until interrupted."""
        self._server.serve_forever()

    def close(self) -> None:
        """Listen no more."""
        self._server.server_close()
