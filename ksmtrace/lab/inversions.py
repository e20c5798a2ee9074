"""A kernel's behaviour with one switch the other way round: what a comparison must notice.

A comparison that agrees proves a switch only if it would have disagreed with another value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from typing import get_args, get_type_hints

from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.releases import Behaviour, Profile
from ksmtrace.lab.compare import compare
from ksmtrace.lab.needs import NEEDS, TWO_NODES, Need
from ksmtrace.lab.on_model import ModelStage
from ksmtrace.lab.performance import Performance
from ksmtrace.lab.plan import Plan

NOT_SEEN_IN_A_LAB = {
    "checksum": "contents differ or are the same, whatever their checksums are",
    "run_2_appends": "no scenario enters while run is 2",
    "locked_page_is_busy": "nobody locks a page while ksmd works",
    "advisor": "whether there is one is said by its knobs",
}
"""Switches that no scenario can tell apart, and why."""
_ABSENT = "absent"
_PARTS_OF = {"drop_clears_merge_any": "merge_any"}
"""Switches that mean nothing where another is absent."""
_SEEN_WITH = {"numa_trees": TWO_NODES}
"""What a machine must have for a switch to be seen there."""


def inversions(profile: Profile, has: Collection[Need] = NEEDS) -> Iterator[tuple[str, Profile]]:
    """The profile with each switch that a lab can see set to each other value; named.

    has: what the lab's machine has that not every one has. What a kernel doesn't have has no
    counter or call there by which it could be noticed.
    """
    types = get_type_hints(Behaviour)
    for field in fields(Behaviour):
        now = getattr(profile.behaviour, field.name)
        whole = getattr(profile.behaviour, _PARTS_OF.get(field.name, field.name))
        if field.name in NOT_SEEN_IN_A_LAB or whole == _ABSENT:
            continue
        if field.name in _SEEN_WITH and _SEEN_WITH[field.name] not in has:
            continue
        for value in get_args(types[field.name]) or (False, True):
            if value != now:
                other = replace(profile.behaviour, **{field.name: value})
                name = f"{field.name} = {value}"
                yield name, replace(profile, behaviour=other, name=f"{profile.name} ({name})")


def tells_apart(seen: Sequence[tuple[Plan, Performance]], other: Profile) -> str:
    """The scenario in which a model of `other` differs first from what a kernel did, or ""."""
    for plan, real in seen:
        name = plan.scenario.name or plan.scenario.title
        try:
            model = ModelStage(plan, other, on=other.name).perform(like=real.observations)
        except KsmtraceError:
            # The other kernel can't do at all what this one did.
            return name
        if not compare(plan, real, model).agree:
            return name
    return ""
