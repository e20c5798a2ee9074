"""Samples of memory as `ksmtrace estimate` makes them: of the model's memory, and made up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash

from ksmtrace.inspect.estimate.sample import (
    IS_HUGE,
    IS_KSM,
    MemorySample,
    SampledProcess,
    SampledRegion,
    Tally,
)
from ksmtrace.model import Memory
from ksmtrace.model.content import PAGE_SIZE, page_of
from ksmtrace.processes.identity import Identity
from ksmtrace.processes.memory import ZERO_DIGEST


def identity(tgid: int, comm: str = "a", vm: str | None = None) -> Identity:
    return Identity(tgid, 1, 7, comm, "/a.slice", vm, comm)


def sample_of(memory: Memory) -> MemorySample:
    """What reading all processes of a simulated memory once would give."""
    processes, regions, lengths = [], [], []
    digests, frames, kinds = [], [], []
    for mm in memory.mms:
        processes.append(SampledProcess(identity(mm.tgid), ksm_zero_pages=len(mm.ksm_zero)))
        for vma in mm.vmas:
            mapped = [mm.pages[address] for address in mm.mapped_in(vma.start, vma.end)]
            present = [frame for frame in mapped if frame is not memory.zero_frame]
            tally = Tally(candidates=len(present), kernel_zero=len(mapped) - len(present))
            tally.absent = (vma.end - vma.start) // PAGE_SIZE - tally.pages
            regions.append(
                SampledRegion(len(processes) - 1, vma.start, vma.end, "", True, tally=tally)
            )
            lengths.append(len(present))
            digests += [xxhash.xxh3_64_intdigest(page_of(frame.content)) for frame in present]
            frames += [frame.pfn for frame in present]
            kinds += [IS_KSM * f.ksm | IS_HUGE * (f.huge is not None) for f in present]
    return MemorySample(
        processes=processes,
        regions=regions,
        digests=np.array(digests, np.uint64),
        frames=np.array(frames, np.uint32),
        kinds=np.array(kinds, np.uint8),
        numbers=None,
        bounds=np.cumsum([0, *lengths]).astype(np.int64),
    )


def digest_of(content: int) -> int:
    """A content's digest; 0 is the zero-filled page."""
    return ZERO_DIGEST if content == 0 else xxhash.xxh3_64_intdigest(b"%d" % content)


def made_up(
    regions: Sequence[Sequence[int]], owners: Sequence[int], *, fraction: float = 1.0
) -> MemorySample:
    """regions: contents, 0 a zero-filled page. owners: each region's process. Own frames all."""
    digests = np.array([digest_of(c) for region in regions for c in region], np.uint64)
    return MemorySample(
        processes=[SampledProcess(identity(n + 2)) for n in range(max(owners) + 1)],
        regions=[
            SampledRegion(owner, n << 40, (n << 40) + len(region) * 4096, "", True,
                          tally=Tally(candidates=len(region)))
            for n, (owner, region) in enumerate(zip(owners, regions, strict=True))
        ],
        digests=digests,
        frames=np.arange(len(digests), dtype=np.uint32),
        kinds=np.zeros(len(digests), np.uint8),
        numbers=None,
        bounds=np.cumsum([0, *map(len, regions)]).astype(np.int64),
        fraction=fraction,
    )  # fmt: skip
