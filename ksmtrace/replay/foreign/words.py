"""What an import lacks, in words: notes for a person, doubts for who judges the recording."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ksmtrace.events.registry import KSM_START_SCAN, KSM_STOP_SCAN
from ksmtrace.replay.foreign.fields import HASH_BITS
from ksmtrace.replay.foreign.parse import Account
from ksmtrace.replay.foreign.textformat import TextFormat

_SHOWN = 3
_NEGLIGIBLE = 0.001
"""A probability."""


@dataclass(frozen=True)
class Shortcomings:
    """notes: sentences. doubts: clauses that say why what looks impossible may not be."""

    notes: list[str]
    doubts: list[str]


def shortcomings(
    account: Account, text_format: TextFormat, kinds: frozenset[int], kernel: str | None
) -> Shortcomings:
    """What must be told of an import. kinds: ids of the events that are there."""
    told = list(_told(account, text_format, kinds, kernel))
    return Shortcomings(
        [note for note, _ in told if note], [doubt for _, doubt in told if doubt is not None]
    )


def _told(
    account: Account, text_format: TextFormat, kinds: frozenset[int], kernel: str | None
) -> Iterator[tuple[str, str | None]]:
    """(note, doubt); a doubt for what can make a possible stream look impossible."""
    if kernel is None:
        yield "the text does not say which kernel it is from; name it with --kernel", None
    if account.ticks:
        yield "times are a counter's ticks: durations and rates mean nothing", "times are ticks"
    else:
        yield f"times are of the clock that {text_format.tool} shows, not CLOCK_MONOTONIC", None
    if account.backwards:
        yield (
            f"times go back {account.backwards:,} times; events are in the text's order",
            "times go back",
        )
    if hashed := account.pointers.hashed:
        # As many at most as were printed, each against each other.
        likely = hashed**2 / 2 / (1 << HASH_BITS) > _NEGLIGIBLE
        doubt = "two pointers may have one hash" if likely else None
        yield f"pointers are hashed to {HASH_BITS} bits: two may have one name", doubt
    if account.without_cpu:
        yield "the text does not say which CPU an event was on", "CPUs are not known"
    yield from _losses(account, text_format)
    yield from _left_out(account)
    scans = {KSM_START_SCAN.id, KSM_STOP_SCAN.id}
    if kinds and not kinds >= scans:
        missing = " and ".join(
            kind.name for kind in (KSM_START_SCAN, KSM_STOP_SCAN) if kind.id not in kinds
        )
        yield f"it has no {missing}: were all ksm events traced?", f"it has no {missing}"


def loss_known(account: Account, text_format: TextFormat) -> bool:
    """Whether the text tells of every loss; a part of one, without its header, may not."""
    whole = text_format.loss_told and "cpus" in account.told
    return "lost_chunks" not in account.told and (whole or account.lost > 0)


def _losses(account: Account, text_format: TextFormat) -> Iterator[tuple[str, str | None]]:
    if account.lost and account.others:
        yield "lost events are of all kinds that were traced, not only KSM's", None
    if chunks := account.told.get("lost_chunks"):
        yield f"perf lost events {chunks:,} times, not told how many and where", "events were lost"
    elif not loss_known(account, text_format):
        how = (
            "it has no header, so that lost events may not be told"
            if text_format.loss_told
            else "perf script tells of lost events only with --show-lost-events"
        )
        yield how, "lost events may not be told"


def _left_out(account: Account) -> Iterator[tuple[str, str | None]]:
    if account.first_unreadable is not None:
        where = f"the first is line {account.first_unreadable[0]:,}"
        yield (
            f"{account.unreadable:,} lines name a ksm event but can't be read; {where}",
            "some lines can't be read",
        )
    if unknown := account.unknown_kinds:
        names = ", ".join(list(unknown)[:_SHOWN])
        yield f"{sum(unknown.values()):,} ksm events are of kinds not known here: {names}", None
