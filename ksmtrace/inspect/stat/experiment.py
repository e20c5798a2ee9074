"""Runs one after another, under one setting or two in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from ksmtrace.capture.choose import open_first
from ksmtrace.capture.command import Command
from ksmtrace.capture.session import Signals
from ksmtrace.capture.source import DEFAULT_RING_BYTES
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.inspect.stat.compare import abba, compare
from ksmtrace.inspect.stat.family import Family
from ksmtrace.inspect.stat.figures import figures_of
from ksmtrace.inspect.stat.notes import notes
from ksmtrace.inspect.stat.request import AB, StatRequest
from ksmtrace.inspect.stat.reset import Reset
from ksmtrace.inspect.stat.result import Comparison, Run, StatResult
from ksmtrace.inspect.stat.subject import attached
from ksmtrace.inspect.stat.watch import Eyes, Progress, Subject, watch
from ksmtrace.kernel import host
from ksmtrace.kernel.knobs import Change, changed
from ksmtrace.kernel.releases import fork_counts_afresh
from ksmtrace.kernel.sysfs import HostSampler, read_knob
from ksmtrace.processes.registered import is_registered

_PATIENCE = 5.0
Say = Callable[[str], None]


def measure(
    request: StatRequest,
    *,
    say: Say = lambda _words: None,
    status: Say = lambda _words: None,
) -> StatResult:
    """Make all the runs. say: words for the person; status: what is being done just now.

    A signal ends it; what is complete by then is told. Knobs are restored before this returns or
    raises. Raises KsmtraceError.
    """
    signals = Signals()
    with ExitStack() as stack:
        stack.enter_context(signals.installed())
        subject, fd = " ".join(request.command) or "the whole host", None
        if request.pid is not None:
            fd, who = stack.enter_context(attached(request.pid))
            subject = f"process {request.pid} ({who.comm})"
            if not is_registered(request.pid):
                say(f"{subject} is not registered with KSM: nothing of it will merge")
        stream, backend, tgids_known = None, None, False
        if request.choice is not None:
            choice, stream, _ = open_first(stack, request.choice, DEFAULT_RING_BYTES, say)
            backend = choice.source.name
            tgids_known = "tgid" not in choice.source.fields_unknown
            tgids_known = tgids_known and host.in_initial_pid_namespace()
        sampler = stack.enter_context(closing(HostSampler()))
        eyes = Eyes(sampler, signals, stream, request.blind, tgids_known)
        change = stack.enter_context(changed(_held(request)))
        runs = _Runs(request, eyes, change, fd, status)
        made = runs.all()
        runs.reset.tidy()
    compared = _comparison(request.ab, made, request.metric)
    return StatResult(
        subject=subject,
        kernel=host.kernel_release(),
        backend=backend,
        asked=request.repeats,
        runs=tuple(made),
        knobs=dict(request.knobs),
        comparison=compared,
        notes=tuple(notes(request, made, compared, settled=runs.reset.settled)),
    )


def _held(request: StatRequest) -> dict[str, str]:
    """The knobs that may be changed, with what they are set to at first."""
    held = dict(request.knobs)
    if request.ab is not None:
        # As it is now: some can't be changed before everything is unmerged.
        held[request.ab.knob] = read_knob(request.ab.knob) or request.ab.a
    if request.unmerge or (held and request.runs > 1):
        held.setdefault("run", read_knob("run") or "0")
    return held


def _comparison(ab: AB | None, runs: Sequence[Run], metric: str | None) -> Comparison | None:
    if ab is None or {run.setting for run in runs} != {ab.a, ab.b}:
        return None
    order = "".join("A" if run.setting == ab.a else "B" for run in runs)
    return compare(ab.knob, (ab.a, ab.b), order, runs, metric)


class _Runs:
    """Makes the runs of one request."""

    def __init__(
        self, request: StatRequest, eyes: Eyes, change: Change, fd: int | None, status: Say
    ) -> None:
        self._request = request
        self._eyes = eyes
        self._change = change
        self._fd = fd
        self._status = status
        self._command: Command | None = None
        self._family_afresh = fork_counts_afresh(host.kernel_release())
        self.reset = Reset(
            eyes,
            change,
            unmerge=request.unmerge,
            wait_scans=request.wait_scans,
            status=status,
        )

    def all(self) -> list[Run]:
        """The runs that were completed; of a single one also what a signal left of it."""
        request, signals = self._request, self._eyes.signals
        order = abba(request.repeats) if request.ab else "A" * request.repeats
        if request.ab is not None:
            self._try_both(request.ab)
        runs: list[Run] = []
        for number, letter in enumerate(order):
            setting = None if request.ab is None else getattr(request.ab, letter.lower())
            fresh = self.reset.prepare(self._knobs(setting), first=number == 0)
            if signals.caught:
                break
            words = f"run {number + 1} of {len(order)}: " if len(order) > 1 else ""
            if request.ab is not None:
                words += f"{letter}, {request.ab.knob}={setting}  "
            run = self._one(setting, words, fresh=fresh)
            if signals.caught and len(order) > 1:
                break
            runs.append(run)
            if run.ended == "subject" and self._fd is not None:
                break
        return runs

    def _knobs(self, setting: str | None) -> dict[str, str]:
        knobs = {**self._change.before, **self._request.knobs}
        if self._request.ab is not None and setting is not None:
            knobs[self._request.ab.knob] = setting
        return knobs

    def _try_both(self, ab: AB) -> None:
        """See that the kernel takes both values, and that they are two."""
        taken = []
        for value in (ab.b, ab.a):
            self.reset.prepare(self._knobs(value), first=True)
            taken.append(read_knob(ab.knob))
        if taken[0] == taken[1]:
            raise KsmtraceError(
                f"{ab.knob}={ab.a} and {ab.b} are the same to the kernel",
                "give two values",
                Exit.USAGE,
            )

    def _one(self, setting: str | None, words: str, *, fresh: bool) -> Run:
        def show(progress: Progress) -> None:
            saved = progress.saved_pages
            pages = "" if saved is None else f"  {saved:,} pages saved"
            self._status(f"{words}{progress.seconds:7.1f} s{pages}  (Ctrl-C ends it)")

        request = self._request
        try:
            watched = watch(self._eyes, self._launch, request.until, request.interval, show)
        except BaseException:
            self._end_command()
            raise
        status = self._end_command()
        ended = watched.ended
        if ended == "subject":
            ended = "command" if request.command else "process"
        return Run(
            setting=setting,
            ended=ended,
            status=status,
            values=figures_of(watched.seen),
            samples=watched.samples,
            own_cpu_s=watched.own_cpu_s,
            sampling_cpu_s=watched.sampling_cpu_s,
            fresh=fresh,
            notes=watched.notes,
        )

    def _launch(self) -> Subject:
        request = self._request
        if request.command:
            self._command = Command(request.command, merge=request.merge, stdout=request.stdout)
            return Subject(self._command.fileno(), self._family(self._command.pid))
        if request.pid is not None:
            return Subject(self._fd, self._family(request.pid))
        return Subject()

    def _family(self, root: int) -> Family:
        return Family(root, counts_afresh=self._family_afresh)

    def _end_command(self) -> int | None:
        """The command's status; one that still runs is asked to end."""
        command, self._command = self._command, None
        if command is None:
            return None
        if not command.has_ended():
            command.terminate()
        status = command.end(_PATIENCE)
        if status is None and self._request.runs > 1:
            raise KsmtraceError(
                f"{self._request.command[0]} does not end when asked to (SIGTERM)",
                f"end process {command.pid} yourself",
            )
        return status
