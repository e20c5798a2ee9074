"""What `ksmtrace stat` is asked to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ksmtrace.capture.choose import Choice
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.inspect.stat.figures import JUDGED
from ksmtrace.inspect.stat.watch import Until
from ksmtrace.kernel.knobs import parse_assignments


@dataclass(frozen=True)
class AB:
    """A knob and the two values to compare."""

    knob: str
    a: str
    b: str


@dataclass(frozen=True)
class StatRequest:
    """What to measure. command, pid: neither: the whole host.

    choice: None: no capture, `blind` says why. repeats: of each setting. metric: the one figure
    that `ab` is judged by, None: all. unmerge: everything on the host may be unmerged before each
    run. wait_scans: full scans to wait between runs where it is not. stdout: descriptor that the
    command's output goes to, None: ours. Raises KsmtraceError (usage) for what makes no sense.
    """

    command: Sequence[str] = ()
    pid: int | None = None
    merge: bool = False
    choice: Choice | None = None
    blind: str = "no capture was asked for"
    knobs: Mapping[str, str] = field(default_factory=dict)
    repeats: int = 1
    ab: AB | None = None
    metric: str | None = None
    until: Until = field(default_factory=Until)
    interval: float = 0.05
    unmerge: bool = False
    wait_scans: int = 2
    stdout: int | None = None

    def __post_init__(self) -> None:
        if self.command and self.pid is not None:
            raise _usage("-p and a command exclude each other", "leave one out")
        if self.ab is not None and self.ab.knob in self.knobs:
            raise _usage(f"{self.ab.knob} is set by --set or --run and by --ab", "leave one out")
        if self.metric is not None and self.ab is None:
            raise _usage("--metric chooses what --ab is judged by", "add --ab KNOB=V1,V2")
        if self.metric is not None and self.metric not in JUDGED:
            raise _usage(f"no figure is called {self.metric!r}", f"they are {', '.join(JUDGED)}")
        if self.runs > 1 and not self.command:
            self._check_several()

    def _check_several(self) -> None:
        if not self.unmerge:
            raise _usage(
                "several runs without a command would begin with what is merged already",
                "give a command, or --unmerge: everything on the host is then unmerged before each",
            )
        if self.until == Until():
            raise _usage(
                "several runs without a command would never end",
                "add --duration S or --until-converged",
            )

    @property
    def runs(self) -> int:
        """How many runs in all."""
        return self.repeats * (2 if self.ab is not None else 1)


def parse_ab(text: str) -> AB:
    """`KNOB=V1,V2`. Raises KsmtraceError (usage)."""
    ((knob, values),) = parse_assignments([text]).items()
    a, comma, b = values.partition(",")
    if not (a and comma and b) or "," in b:
        raise _usage(f"{text!r} is not KNOB=V1,V2", "for example --ab smart_scan=0,1")
    if a == b:
        raise _usage(f"{text!r} would compare a setting with itself", "give two values")
    return AB(knob, a, b)


def _usage(message: str, hint: str) -> KsmtraceError:
    return KsmtraceError(message, hint, Exit.USAGE)
