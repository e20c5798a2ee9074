"""Scans in which ksmd does little but one kind of work, so that its costs can be told apart."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ksmtrace.model.content import ZERO

Contents = Callable[[random.Random], list[bytes]]

_BYTES = 16
_KSM_PAGES = 499


@dataclass(frozen=True)
class Experiment:
    """One process's pages, and the scans of them that are measured.

    tells: the kind of work. contents: of its pages, one after another. scans: before the one that
    counts. rewritten: all pages get contents nobody has just before it. again: how many scans
    are measured in a row, which do the same. knobs: besides the usual ones.
    """

    name: str
    tells: str
    contents: Contents
    scans: int
    rewritten: bool = False
    again: int = 1
    knobs: Mapping[str, str] = field(default_factory=dict)


def unique(pages: int, prefix: int = 0) -> Contents:
    """Contents that differ right behind `prefix` bytes which they have in common."""
    return lambda dice: [b"=" * prefix + dice.randbytes(_BYTES) for _ in range(pages)]


def copies(pages: int, contents: int) -> Contents:
    """So many contents, each as often, in turn."""

    def made(dice: random.Random) -> list[bytes]:
        kinds = unique(contents)(dice)
        return [kinds[number % contents] for number in range(pages)]

    return made


def pairs_and_unique(pairs: int, pages: int) -> Contents:
    """Two of each of `pairs` contents, and behind them pages that nobody else has."""

    def made(dice: random.Random) -> list[bytes]:
        kinds = unique(pairs)(dice)
        return kinds + kinds + unique(pages)(dice)

    return made


def zeros(pages: int) -> Contents:
    """Nothing but zero pages."""
    return lambda _dice: [ZERO] * pages


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("merged", "visits", copies(39_989, 9_973), scans=3, again=3),
    Experiment("rewritten", "checksums", unique(19_997), scans=1, rewritten=True),
    Experiment("tree of 499", "levels", unique(499), scans=2, again=29),
    Experiment("tree of 3,989", "levels", unique(3_989), scans=2, again=5),
    Experiment("tree of 29,989", "levels", unique(29_989), scans=2, again=2),
    Experiment("tree of 99,991", "levels", unique(99_991), scans=1),
    Experiment(
        "stable tree of 499", "stable levels", pairs_and_unique(499, 9_973), scans=3, again=3
    ),
    Experiment(
        "stable tree of 19,997", "stable levels", pairs_and_unique(19_997, 9_973), scans=3, again=3
    ),
    Experiment("512 bytes in common", "comparing", unique(4_999, 512), scans=2, again=3),
    Experiment("2 KiB in common", "comparing", unique(4_999, 2048), scans=2, again=3),
    Experiment("merging copies", "merges", copies(19_997, _KSM_PAGES), scans=1),
    Experiment("merging pairs", "KSM pages", copies(5_998, 2_999), scans=1),
    Experiment(
        "merging zero pages", "merges", zeros(19_997), scans=1, knobs={"use_zero_pages": "1"}
    ),
    Experiment(
        "zero pages", "absent", zeros(19_997), scans=3, again=5, knobs={"use_zero_pages": "1"}
    ),
    Experiment("skipped", "skips", unique(19_997), scans=4, knobs={"smart_scan": "1"}),
)
"""A page's content decides after 16 bytes at most where not said otherwise."""
