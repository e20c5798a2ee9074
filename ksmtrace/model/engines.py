"""The two engines of the KSM model: the readable one, and the fast one with the same answers."""

from __future__ import annotations

from typing import Any, Literal, get_args

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.releases import Profile
from ksmtrace.model.clock import Clock
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.memory import Memory

Engine = Literal["readable", "fast"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


def model_of(
    profile: Profile, clock: Clock, engine: Engine = "readable", **options: Any
) -> tuple[Memory, KsmScanner]:
    """An empty memory, and ksmd of a kernel over it. options: more for the readable KsmScanner.

    Raises KsmtraceError (usage) for an unknown engine, and for the fast one where numba is missing.
    """
    if engine == "readable":
        memory = Memory()
        return memory, KsmScanner(memory, kernel=profile, clock=clock, **options)
    if engine not in ENGINES:
        raise KsmtraceError(
            f"there is no engine {engine!r}", f"there are {' and '.join(ENGINES)}", Exit.USAGE
        )
    from ksmtrace.model.fast.memory import FastMemory
    from ksmtrace.model.fast.scanner import FastScanner

    fast = FastMemory(checksum=profile.behaviour.checksum)
    return fast, FastScanner(fast, kernel=profile, clock=clock)
