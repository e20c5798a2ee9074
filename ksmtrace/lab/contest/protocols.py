"""How fast each scanner may go: the protocols by which KSM and UKSM are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.lab.contest.ground import is_advised
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.where import Where

ProtocolName = Literal["cpu", "defaults", "visits"]
ALL = "all"


@dataclass(frozen=True)
class Protocol:
    """name: as on the command line. title: above a table. meaning: a sentence's end."""

    name: ProtocolName
    title: str
    meaning: str


PROTOCOLS: dict[ProtocolName, Protocol] = {
    p.name: p
    for p in (
        Protocol("cpu", "equal CPU", "ksmd is set to take as much CPU time as the UKSM did"),
        Protocol("defaults", "defaults", "each as it is delivered, or as the scenario sets it"),
        Protocol("visits", "equal visits", "ksmd is set to visit as many pages as the UKSM did"),
    )
}
assert (*PROTOCOLS,) == get_args(ProtocolName)


def chosen(text: str | None, plan: Plan, places: Sequence[Where]) -> list[Protocol]:
    """The protocols that `text` names, None or "all" standing for all that make sense.

    Raises KsmtraceError (usage) for an unknown one, and where KSM can't be set to equal a UKSM.
    """
    if text is not None and text != ALL and text not in PROTOCOLS:
        raise KsmtraceError(
            f"there is no protocol {text!r}", f"there are {', '.join(PROTOCOLS)}, {ALL}", Exit.USAGE
        )
    why = _why_not_equal(plan, places)
    if text in (None, ALL):
        return [p for p in PROTOCOLS.values() if p.name == "defaults" or why is None]
    protocol = next(p for name, p in PROTOCOLS.items() if name == text)
    if protocol.name != "defaults" and why is not None:
        raise KsmtraceError(f"--protocol {text} makes no sense here: {why[0]}", why[1], Exit.USAGE)
    return [protocol]


def _why_not_equal(plan: Plan, places: Sequence[Where]) -> tuple[str, str] | None:
    """Why nothing can be made equal, and what to do; None if it can."""
    if not any(place.uksm for place in places):
        return "there is no UKSM to equal", "add --on uksm:full"
    if all(place.uksm for place in places):
        return "there is no KSM that could be set to equal it", "add --on ksm:6.12"
    if is_advised(plan):
        return "the advisor sets pages_to_scan", "set advisor_mode=none, or --protocol defaults"
    return None
