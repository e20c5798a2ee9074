"""What differs between kernel releases, as far as a recorder must know it."""

from __future__ import annotations

import re
from typing import Literal

Version = tuple[int, int, int]
MergeFate = Literal["absent", "lost", "unscanned", "kept"]


def parse_release(text: str) -> Version:
    """The numbers of a release like 6.12.117+deb12-amd64; (0, 0, 0) if there are none."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        return (0, 0, 0)
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)


def merge_any_at_exec(release: str) -> MergeFate:
    """What becomes of PR_SET_MEMORY_MERGE when the process execs.

    6.4 (d7597f59d1d3) brought it and lost it at exec; 6.7 to 6.9 keep the flag but never put the
    new address space on ksmd's list; since 6.10 it is kept.
    """
    version = parse_release(release)
    if version < (6, 4, 0):
        return "absent"
    if version < (6, 7, 0):
        return "lost"
    return "unscanned" if version < (6, 10, 0) else "kept"


def checksum_comes_first(release: str) -> bool:
    """Whether ksmd compares the checksum before it searches the stable tree (6.11, d58a361b0350).

    If so, a page that ksmd sees for the first time can only be on a KSM page because a fork put
    it there.
    """
    return parse_release(release) >= (6, 11, 0)
