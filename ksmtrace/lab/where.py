"""Where a scenario is performed, named one way everywhere: host, vm:6.12, model, ksm:6.12."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.releases import Profile, profile, running_profile

HOST = "host"
MODEL = "model"
VM = "vm"
_HINT = (
    "write host, vm:6.12 (that kernel, booted in QEMU), model (of the first real kernel named), "
    "ksm:6.12, ksm:6.12.117 or ksm:2011"
)


@dataclass(frozen=True)
class Where:
    """A place to perform a scenario: a real kernel, or the model of one. name: as asked for.

    series: the kernel to boot in a virtual machine, where it is that; its profile is then known
    exactly only once it runs.
    """

    name: str
    profile: Profile
    real: bool
    series: str | None = None


def parse_where(text: str) -> Where:
    """The place called `text`. Raises KsmtraceError (usage)."""
    if text == HOST:
        return Where(text, running_profile(), real=True)
    if text == MODEL:
        return Where(text, running_profile(), real=False)
    scanner, colon, release = text.partition(":")
    if scanner == VM and release:
        if not re.fullmatch(r"\d{1,3}\.\d{1,3}", release):
            raise KsmtraceError(
                f"{text!r} names no kernel series", "write two numbers, as in vm:6.12", Exit.USAGE
            )
        return Where(text, profile(release), real=True, series=release)
    if scanner != "ksm" or not colon or not release:
        raise KsmtraceError(f"{text!r} is neither a host nor a scanner", _HINT, Exit.USAGE)
    return Where(text, profile(release), real=False)


def parse_all(texts: list[str], *, models_only: bool) -> list[Where]:
    """Several places. Raises KsmtraceError (usage) for a double one, or a host among models."""
    for text in texts:
        if texts.count(text) > 1:
            raise KsmtraceError(f"--on {text} is there twice", None, Exit.USAGE)
    places = [parse_where(text) for text in texts]
    if models_only and any(place.real for place in places):
        raise KsmtraceError(
            "simulate runs models only", "a real ksmd is `ksmtrace lab run`", Exit.USAGE
        )
    return places
