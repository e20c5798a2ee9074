"""EventBatch: a numpy structured array of fixed 56-byte records, the unit of everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ksmtrace.events.registry import KINDS, LOST, SLOTS, EventKind

EVENT: np.dtype[np.void] = np.dtype([(slot.name, slot.numpy) for slot in SLOTS])
"""One record, little-endian, 56 bytes."""

EventBatch = npt.NDArray[np.void]
"""A one-dimensional array of EVENT, in the order in which the source delivered."""


def empty() -> EventBatch:
    """A batch of no events."""
    return np.empty(0, EVENT)


def concatenate(batches: Sequence[EventBatch]) -> EventBatch:
    """One batch with the events of all, in order."""
    if len(batches) == 1:
        return batches[0]
    return np.concatenate(batches) if batches else empty()


def of_kind(batch: EventBatch, *kinds: EventKind) -> npt.NDArray[np.bool_]:
    """Mask of the events that are of one of `kinds`."""
    mask: npt.NDArray[np.bool_] = batch["kind"] == kinds[0].id
    for kind in kinds[1:]:
        mask |= batch["kind"] == kind.id
    return mask


def counts_by_kind(batch: EventBatch) -> npt.NDArray[np.intp]:
    """How many events of each kind a batch has; index is the kind's id."""
    return np.bincount(batch["kind"], minlength=len(KINDS) + 1)


def lost_count(batch: EventBatch) -> int:
    """How many events the batch's `lost` records say are missing."""
    return int(batch["addr"][of_kind(batch, LOST)].sum())
