"""A process and its descendants, and what their ksm_stat adds up to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ksmtrace.kernel.host import read_text
from ksmtrace.kernel.sysfs import PROC, read_ksm_stat
from ksmtrace.processes.identity import stat_words

_START, _STACK, _ARGUMENTS = 19, 25, 45
"""Where `stat_words` has the start time, where the stack begins, and where the arguments lie."""

Image = tuple[bytes, bytes]


class Family:
    """A process and all that descends from it, as far as a look now and then sees it.

    A member stays one when its parent is gone. counts_afresh: whether a forked child's ksm_stat
    begins at zero (`releases.fork_counts_afresh`); where it does not, a child that has not
    executed another program shows its parent's numbers too, so that sums are not known.
    """

    def __init__(self, root: int, *, counts_afresh: bool, proc: Path = PROC) -> None:
        self._proc = proc
        self._afresh = counts_afresh
        self._members: dict[int, bytes] = {}
        self._parents: dict[int, int] = {}
        self._copies: set[int] = set()
        self.ever: set[int] = set()
        """Everybody who was ever one of them."""
        self._add(root, 0)

    def _add(self, tgid: int, parent: int) -> None:
        words = stat_words(tgid, self._proc)
        if words is not None:
            self._members[tgid] = words[_START]
            self._parents[tgid] = parent
            self.ever.add(tgid)

    def _children(self, tgid: int) -> Iterator[int]:
        try:
            threads = list((self._proc / str(tgid) / "task").iterdir())
        except OSError:
            return
        for thread in threads:
            # Absent without CONFIG_PROC_CHILDREN: then the family is the root alone.
            yield from map(int, (read_text(thread / "children") or "").split())

    def sample(self) -> tuple[float, float] | None:
        """Merged pages and bytes of profit of all of them now; NaN: not known; None: all gone.

        Zero pages that ksmd placed count as merged.
        """
        images = self._look()
        if not images:
            return None
        copies = {
            tgid
            for tgid, image in images.items()
            if image == images.get(self._parents[tgid]) and b"0" not in image
        }
        # A child that vfork made has its parent's memory, for a moment: it must not count twice.
        lasting, self._copies = copies & self._copies, copies
        if lasting and not self._afresh:
            return math.nan, math.nan
        merged = profit = 0.0
        for tgid in images.keys() - (copies - lasting):
            values = read_ksm_stat(tgid, self._proc)
            if values is None:
                continue
            merged += values.get("ksm_merging_pages", math.nan) + values.get("ksm_zero_pages", 0)
            profit += values.get("ksm_process_profit", math.nan)
        return merged, profit

    def _look(self) -> dict[int, Image]:
        """Who lives, and which program's memory each has: two of one image have not executed."""
        images: dict[int, Image] = {}
        waiting = list(self._members)
        while waiting:
            tgid = waiting.pop()
            words = stat_words(tgid, self._proc)
            if words is None or words[_START] != self._members[tgid] or words[0] in (b"Z", b"X"):
                del self._members[tgid]
                continue
            images[tgid] = (words[_STACK], words[_ARGUMENTS])
            for child in self._children(tgid):
                if child not in self._members:
                    self._add(child, tgid)
                    if child in self._members:
                        waiting.append(child)
        return images
