"""Who shares KSM pages with whom, by domains of trust: virtual machines and cgroups."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ksmtrace.inspect.advise.advice import SharedBy, SharedPair
from ksmtrace.timeline.sharing import together

Numbers = npt.NDArray[np.int64]
_MOST_DOMAINS = 2000


def shared_by(
    by: Literal["vm", "cgroup"],
    pages: npt.NDArray[np.uint64] | Numbers,
    domains: Numbers,
    names: list[str],
    page_bytes: int,
) -> SharedBy:
    """What domains share. pages, domains: one entry a mapping, of a KSM page by a domain's number.

    names: of the domains; a number below 0 belongs to none. Beyond 2,000 domains the pairs are of
    those that map most.
    """
    inside = domains >= 0
    distinct, page = np.unique(pages[inside], return_inverse=True)
    width = max(1, len(names))
    pairs = np.unique(page.astype(np.int64) * width + domains[inside])
    page, domain = pairs // width, pairs % width
    sharers = np.bincount(page, minlength=len(distinct))
    across = int((sharers > 1).sum())
    mapped = np.bincount(domain, minlength=len(names))
    kept = np.argsort(-mapped, kind="stable")[:_MOST_DOMAINS]
    kept = kept[mapped[kept] > 0]
    place = np.full(len(names), -1, np.int64)
    place[kept] = np.arange(len(kept))
    chosen = (sharers[page] > 1) & (place[domain] >= 0)
    matrix = together(page[chosen], place[domain[chosen]], len(kept))
    left, right = np.triu_indices(len(kept), 1)
    both = matrix[left, right]
    order = np.argsort(-both, kind="stable")[: int((both > 0).sum())]
    return SharedBy(
        by=by,
        domains=tuple(names[d] for d in np.flatnonzero(mapped).tolist()),
        ksm_pages=len(distinct),
        ksm_pages_across=across,
        bytes_across=across * page_bytes,
        pairs=tuple(
            SharedPair(
                names[int(kept[left[i]])],
                names[int(kept[right[i]])],
                int(both[i]),
                int(both[i]) * page_bytes,
            )
            for i in order.tolist()
        ),
    )
