"""Sampled pages by content: how many hold each, in how many frames and in which regions. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ksmtrace.inspect.estimate.sample import IS_KSM, Digests, Frames, MemorySample
from ksmtrace.processes.memory import ZERO_DIGEST

Counts = npt.NDArray[np.int64]

_PAGES_AT_ONCE = 1 << 17


def by_content(digests: Digests) -> Iterator[Counts]:
    """Positions of pages in chunks: some contents, all pages of each; or very many of one."""
    order = np.argsort(digests)
    begin = 0
    while begin < len(order):
        end = min(begin + _PAGES_AT_ONCE, len(order))
        if end < len(order):
            last = digests[order[end - 1]]
            end = int(np.searchsorted(digests, last, side="left", sorter=order))
            if end <= begin:
                end = int(np.searchsorted(digests, last, side="right", sorter=order))
        yield order[begin:end]
        begin = end


def distinct(values: Frames) -> int:
    """How many different values there are, in little memory."""
    parts = -(-len(values) // _PAGES_AT_ONCE)
    slices = range(0, len(values), _PAGES_AT_ONCE)
    found = 0
    for part in range(parts):
        some = [v[v % parts == part] for v in (values[s : s + _PAGES_AT_ONCE] for s in slices)]
        found += len(np.unique(np.concatenate(some)))
    return found


@dataclass
class Contents:
    """Some contents. sizes: pages of each; frames: of how many different ones, None if hidden.

    merged_now: whether any of its pages is a KSM page. of_content, of_region, pages: how many pages
    of a content lie in a region, where there are any.
    """

    is_zero: npt.NDArray[np.bool_]
    sizes: Counts
    frames: Counts | None
    merged_now: npt.NDArray[np.bool_]
    of_content: Counts
    of_region: Counts
    pages: Counts


def pages_by_region(sample: MemorySample, order: Counts) -> Counts:
    """How many of these pages lie in each region."""
    regions = np.zeros(len(sample.regions), np.int64)
    for at in range(0, len(order), _PAGES_AT_ONCE):
        found = regions_of(sample, order[at : at + _PAGES_AT_ONCE])
        regions += np.bincount(found, minlength=len(regions))
    return regions


def one_content(sample: MemorySample, order: Counts) -> Contents:
    """Pages that all hold the same, at least one."""
    regions = pages_by_region(sample, order)
    where = np.flatnonzero(regions)
    frames = None if sample.frames is None else np.array([distinct(sample.frames[order])])
    return Contents(
        is_zero=sample.digests[order[:1]] == np.uint64(ZERO_DIGEST),
        sizes=np.array([len(order)]),
        frames=frames,
        merged_now=np.array([bool((sample.kinds[order] & IS_KSM).any())]),
        of_content=np.zeros(len(where), np.int64),
        of_region=where,
        pages=regions[where],
    )


def many_contents(sample: MemorySample, order: Counts, digests: Digests) -> Contents:
    """Pages in the order of what they hold, at least one. digests: theirs."""
    begins = np.flatnonzero(np.concatenate([[True], digests[1:] != digests[:-1]]))
    sizes = np.diff(np.append(begins, len(order)))
    content = np.repeat(np.arange(len(sizes)), sizes)
    region = regions_of(sample, order)
    pairs, pages = np.unique(content * len(sample.regions) + region, return_counts=True)
    return Contents(
        is_zero=digests[begins] == np.uint64(ZERO_DIGEST),
        sizes=sizes,
        frames=None if sample.frames is None else _frames_of(content, sample.frames[order]),
        merged_now=np.logical_or.reduceat((sample.kinds[order] & IS_KSM) != 0, begins),
        of_content=pairs // len(sample.regions),
        of_region=pairs % len(sample.regions),
        pages=pages,
    )


def regions_of(sample: MemorySample, order: Counts) -> Counts:
    """Which region each page lies in."""
    found: Counts = np.searchsorted(sample.bounds, order, side="right") - 1
    return found


def _frames_of(content: Counts, frames: Frames) -> Counts:
    """How many different frames each content lies in."""
    order = np.lexsort((frames, content))
    frames, content = frames[order], content[order]
    first = np.ones(len(frames), np.bool_)
    first[1:] = (frames[1:] != frames[:-1]) | (content[1:] != content[:-1])
    found: Counts = np.bincount(content[first])
    return found
