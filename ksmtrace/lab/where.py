"""Where a scenario is performed, named one way everywhere: host, vm:6.12, ksm:6.12, uksm:full."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.releases import Profile, profile, running_profile
from ksmtrace.model.uksm.governors import GOVERNORS
from ksmtrace.model.uksm.quirks import AS_INTENDED, AS_SHIPPED, Quirks

HOST = "host"
MODEL = "model"
VM = "vm"
KSM = "ksm"
UKSM = "uksm"
ALL_QUIRKS = "quirks"
"""What switches all of UKSM's quirks off."""
QUIRKS = tuple(field.name for field in fields(Quirks))
"""The quirks of UKSM, each with a name by which it is switched off."""
_UKSM_KERNEL = "6.8"
_HINT = (
    "write host, vm:6.12 (that kernel, booted in QEMU), model (of the first real kernel named), "
    "ksm:6.12, ksm:6.12.117, ksm:2011 or uksm:full"
)


@dataclass(frozen=True)
class UksmModel:
    """A UKSM to model: its governor, and which of its quirks it has."""

    governor: str
    quirks: Quirks = AS_SHIPPED


@dataclass(frozen=True)
class Where:
    """A place to perform a scenario: a real kernel, or the model of one. name: as asked for.

    series: the kernel to boot in a virtual machine, where it is that; its profile is then known
    exactly only once it runs. uksm: the UKSM, where it is one; its profile is then that of a kernel
    which UKSM was ported to.
    """

    name: str
    profile: Profile
    real: bool
    series: str | None = None
    uksm: UksmModel | None = None

    @property
    def scanner(self) -> str:
        """Which scanner works there: ksm or uksm. What two of a kind do can be compared."""
        return KSM if self.uksm is None else UKSM


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
    if scanner == UKSM:
        return Where(text, profile(_UKSM_KERNEL), real=False, uksm=_parse_uksm(text, release))
    if scanner != KSM or not colon or not release:
        raise KsmtraceError(f"{text!r} is neither a host nor a scanner", _HINT, Exit.USAGE)
    return Where(text, profile(release), real=False)


def _parse_uksm(text: str, words: str) -> UksmModel:
    """A governor, and behind it the quirks to switch off: full-ghost-freeze."""
    governor, *off = words.split("-")
    if governor not in GOVERNORS:
        raise KsmtraceError(
            f"{text!r} names no governor of UKSM",
            f"there are {', '.join(f'{UKSM}:{name}' for name in GOVERNORS)}",
            Exit.USAGE,
        )
    if off == [ALL_QUIRKS]:
        return UksmModel(governor, AS_INTENDED)
    for name in off:
        if name not in QUIRKS:
            raise KsmtraceError(
                f"{text!r}: UKSM has no quirk {name!r} that could be switched off",
                f"there are {', '.join(QUIRKS)}; {UKSM}:{governor}-{ALL_QUIRKS} is without all",
                Exit.USAGE,
            )
    return UksmModel(governor, replace(AS_SHIPPED, **dict.fromkeys(off, False)))


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
