"""Moments of made-up processes, for what-ifs and lessons."""

from __future__ import annotations

import numpy as np

from ksmtrace.whatif.moment import Moment

KNOBS = {"smart_scan": "0", "max_page_sharing": "256", "use_zero_pages": "0"}


def moment(contents: list[list[int]], changing: int = 0, **knobs: str) -> Moment:
    """A moment of processes with these contents, 0 is the zero page, each in a frame of its own."""
    flat = [content for held in contents for content in held]
    return Moment(
        tgids=np.array([t for t, held in enumerate(contents, 11) for _ in held], np.int64),
        addresses=np.array([(256 + n) * 4096 for held in contents for n in range(len(held))]),
        contents=np.array(flat, np.int64),
        frames=np.arange(len(flat)),
        changing=np.arange(len(flat)) < changing,
        different=max(flat, default=0) + 1,
        regions={
            tgid: [(256 * 4096, (256 + len(held)) * 4096)] for tgid, held in enumerate(contents, 11)
        },
        knobs=KNOBS | knobs,
        page_bytes=4096,
    )
