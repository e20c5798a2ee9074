"""What ksmd does in an experiment, counted by the reference scanner."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from types import MappingProxyType

from ksmtrace.kernel.releases import Profile
from ksmtrace.kernel.stepper import ALL_PAGES
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME
from ksmtrace.lab.calibrate.experiments import Experiment, unique
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.ksm import KsmScanner
from ksmtrace.model.memory import Memory
from ksmtrace.model.work import Work

START = 0x1000_0000_0000
SEED = 1
USUAL_KNOBS = MappingProxyType({"smart_scan": "0", "use_zero_pages": "0"})
"""What experiments count on, but for their own knobs."""


def contents_of(experiment: Experiment) -> tuple[list[bytes], list[bytes]]:
    """Its pages' contents, and those that they are rewritten with; the same each time."""
    dice = random.Random(f"{SEED} {experiment.name}")  # noqa: S311 the same each time
    first = experiment.contents(dice)
    return first, unique(len(first))(dice) if experiment.rewritten else []


def knobs_of(experiment: Experiment, profile: Profile) -> dict[str, str] | None:
    """The knobs to set; None where the kernel lacks one that the experiment is about."""

    def has(name: str) -> bool:
        return profile.has(KNOBS_BY_NAME[name].since)

    if not all(has(name) for name in experiment.knobs):
        return None
    return {n: v for n, v in {**USUAL_KNOBS, **experiment.knobs}.items() if has(n)}


def work_of(experiment: Experiment, profile: Profile, knobs: Mapping[str, str]) -> Work:
    """What one measured scan of it does."""
    memory = Memory()
    scanner = KsmScanner(memory, kernel=profile, knobs=knobs, count_work=True)
    scanner.set_knob("pages_to_scan", ALL_PAGES)
    first, second = contents_of(experiment)
    mm = memory.spawn(1)
    memory.map(mm, START, len(first))
    memory.madvise_mergeable(mm, START, START + len(first) * PAGE_SIZE)

    def write(contents: list[bytes]) -> None:
        for number, content in enumerate(contents):
            memory.write(mm, START + number * PAGE_SIZE, content)

    write(first)
    for _ in range(experiment.scans):
        scanner.finish_scan()
    write(second)
    with difference(scanner.work) as done:
        scanner.finish_scan()
    return done


@contextmanager
def difference(work: Work) -> Iterator[Work]:
    """A Work that holds, at the end, what was added to `work` meanwhile."""
    before = {field.name: getattr(work, field.name) for field in fields(work)}
    done = Work()
    yield done
    for name, value in before.items():
        setattr(done, name, getattr(work, name) - value)
