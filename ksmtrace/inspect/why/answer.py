"""The answer to `why`: what was found, level by level. Plain data; views show it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ksmtrace.processes.identity import Identity
from ksmtrace.processes.regions import Region


@dataclass(frozen=True)
class Found:
    """A cause that applies, what was read that shows it, and what to do here."""

    cause: str
    evidence: str
    remedy: str


@dataclass
class RegionAnswer:
    """One region. pages: cause -> pages; `unmerged` until contents were looked at.

    huge: pages of it that are parts of transparent huge pages. unregistered: eligible, but nobody
    registered it.
    """

    region: Region
    pages: Counter[str] = field(default_factory=Counter)
    huge: int = 0


@dataclass
class PageAnswer:
    """One page. facts: what was read of it, in order. cause: of CAUSES. equals: other pages.

    equals: (process id, address, whether it is merged), at most some; equal_count: all of them.
    """

    address: int
    cause: str
    evidence: str
    remedy: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    equals: list[tuple[int, int, bool]] = field(default_factory=list)
    equal_count: int | None = None


@dataclass
class Answer:
    """All of it. host, process: causes found there. pages: the chosen regions' pages by cause.

    contents_read: whether `unmerged` pages were told apart. wait_s: until ksmd has been everywhere
    twice, None if never or not needed.
    """

    identity: Identity | None
    tgid: int
    host: list[Found]
    process: list[Found]
    regions: list[RegionAnswer]
    facts: list[tuple[str, str]]
    page_bytes: int
    page: PageAnswer | None = None
    contents_read: bool = False
    wait_s: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def pages(self) -> Counter[str]:
        """Pages by cause, over all chosen regions."""
        total: Counter[str] = Counter()
        for region in self.regions:
            total += region.pages
        return total
