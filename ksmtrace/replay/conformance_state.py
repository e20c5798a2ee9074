"""What is known of ksmd while a stream of events is judged.

Nothing here is a guess: it is what holds in every execution that could have made the events so
far. Who is on a KSM page is therefore known from above only (`Item.node`: it was put there, and no
event says that it left), and from below for those put there in the scan under way, which can't
leave without an event before ksmd comes by again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from ksmtrace.kernel.releases import Profile

UNLIMITED = 1 << 62
"""A bound that bounds nothing."""
EFAULT = -14

Excuse = tuple[str, int]
"""A task's own event that may be late: ("enter", mm), ("exit", mm), or any of a kind."""
FORK: Excuse = ("fork", 0)
EXIT: Excuse = ("exit", 0)


class Phase(Enum):
    """Where ksmd is in its cycle."""

    UNKNOWN = "unknown"
    IDLE = "between scans"
    SCANNING = "scanning"


class Stage(Enum):
    """How far the visit of a page has come, as its events tell."""

    BEGUN = "begun"
    ZERO_FAILED = "the zero page was tried in vain"
    OVER = "over"


@dataclass(frozen=True)
class Finding:
    """The first impossible event, or counters that the events before it contradict.

    index: the event's number in the stream, from 0; for counters that of the event after them.
    ts: its time. rule: a key of `RULES`. message: one sentence. state: lines around it.
    """

    index: int
    ts: int
    rule: str
    message: str
    state: tuple[str, ...] = ()


class Impossible(Exception):
    """The event at hand can't be. rule, message: as in `Finding`. state: what is known."""

    def __init__(self, rule: str, message: str, *state: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.state = state


class Proven(Exception):
    """Something before the event at hand can't have been: the only excuse for it fell away."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class Mm:
    """One registration of an address space: from ksm_enter, or first sight, to its end.

    seen_stops: how many scans had stopped when it was seen last. entered: the scan at its
    ksm_enter, 0 if it was late, None without one.
    exited: its ksm_exit was seen; dead: ksmd has freed its rmap_items since. done: the last scan
    that has passed it. in_scan: the scan for which `seen` (rmap_items known to be visited) and
    `fresh` (put on a KSM page) count. attached: rmap_items on KSM pages, as far as events tell;
    most: as far as samples do. sure: the scan at whose end all of `attached` were known to be so.
    opted_out: the last scan after which it was sampled with nothing left to merge; merge_any: as
    sampled last. entries: how often it has entered since; after: who is behind it in ksmd's list,
    as of which of its entries. places: rmap_items by address.
    """

    __slots__ = (
        "after", "attached", "dead", "done", "entered", "entries", "exit_stops", "exit_visits",
        "exited", "former", "fresh", "in_scan", "merge_any", "most", "opted_out", "places",
        "pointer", "seen", "seen_stops", "sure", "tgid", "zero_most",
    )  # fmt: skip

    def __init__(self, pointer: int, stops: int) -> None:
        self.pointer = pointer
        self.seen_stops = stops
        self.tgid = 0
        self.former: frozenset[int] = frozenset()
        self.entered: int | None = None
        self.exited = False
        self.exit_visits = 0
        self.exit_stops = 0
        self.dead = False
        self.done = -1
        self.in_scan = -1
        self.seen = 0
        self.fresh = 0
        self.attached = 0
        self.most = UNLIMITED
        self.zero_most = UNLIMITED
        self.sure = -1
        self.opted_out = -1
        self.merge_any = 0
        self.after: set[tuple[Mm, int]] = set()
        self.entries = 0
        self.places: dict[int, Item] = {}


class Item:
    """A rmap_item from its birth to its silent end.

    node: the KSM page that events have put it on. serial: when, ascending in time; attached: in
    which scan, -1 if the kernel may have undone it. seen: the last scan in which ksmd
    is known to have visited it; over: in which it has taken it out of all trees for that scan.
    looked: it is known to have a checksum.
    """

    __slots__ = ("addr", "attached", "looked", "mm", "node", "over", "pointer", "seen", "serial")

    def __init__(self, pointer: int, mm: Mm, addr: int, seen: int) -> None:
        self.pointer = pointer
        self.mm = mm
        self.addr = addr
        self.seen = seen
        self.node: Node | None = None
        self.serial = 0
        self.attached = -1
        self.over = -1
        self.looked = False


class Node:
    """A KSM page. items: who was put on it, oldest first; some may have left.

    made: its making was seen, so nobody else is on it. first, last: the first and last event that
    named it. doubtful: its end was told, or that of another on its frame. in_scan, fresh: how many
    were put on it in that scan; exits: how many had exited when the first was. mapped, enters: the
    mapcount told last, and how many had entered by then.
    """

    __slots__ = (
        "doubtful", "enters", "exits", "first", "fresh", "in_scan", "items", "last", "made",
        "mapped", "pfn",
    )  # fmt: skip

    def __init__(self, pfn: int, index: int, *, made: bool) -> None:
        self.pfn = pfn
        self.made = made
        self.items: dict[Item, None] = {}
        self.first = index
        self.last = index
        self.doubtful = False
        self.in_scan = -1
        self.fresh = 0
        self.mapped = 0
        self.enters = 0
        self.exits = 0


class Half:
    """The first half of a new KSM page: its other half must be ksmd's next event."""

    __slots__ = ("first_sight", "index", "item", "pfn")

    def __init__(self, pfn: int, item: Item, index: int, *, first_sight: bool) -> None:
        self.pfn = pfn
        self.item = item
        self.index = index
        self.first_sight = first_sight


class Removal:
    """A dead KSM page being removed: rmap_items newest first, then the page.

    node: which one; None for one of before the stream. serial: of the rmap_item named last.
    """

    __slots__ = ("count", "index", "node", "pfn", "serial")

    def __init__(self, pfn: int, index: int) -> None:
        self.pfn = pfn
        self.index = index
        self.node: Node | None = None
        self.serial = UNLIMITED
        self.count = 0


class Advice:
    """The advisor has spoken: the end of the scan must be ksmd's next event."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


@dataclass
class Suspicion:
    """Impossible unless a task's own event is still to come: one of the excuses."""

    finding: Finding
    stops: int
    excuses: tuple[Excuse, ...]


@dataclass
class Claim:
    """Impossible unless run=2 was written meanwhile, or with exits: unless an mm has exited."""

    finding: Finding
    exits: int | None = None


@dataclass(slots=True)
class World:
    """Everything that is known. What is in it is explained where it is used.

    lines: the event at hand and some before it, in words. complete: the stream has every event
    since KSM was empty. closed: whoever is on a KSM page now
    was put there by an event seen. filtered: only some processes' events are there.
    """

    profile: Profile
    knobs: dict[str, str | None]
    unknown: frozenset[str]
    names: Mapping[int, str]
    lines: Callable[[], Iterable[str]]
    complete: bool = False
    filtered: bool = False
    one_zero_page: bool = True
    closed: bool = False

    index: int = 0
    ts: int = 0

    # Scans. ordinal: counts them, with gaps where rmap_items may have been freed unseen.
    phase: Phase = Phase.UNKNOWN
    ordinal: int = 10
    seq: int | None = None
    start_ts: int | None = None
    stop_ts: int = 0
    rmap_items: int | None = None
    stops: int = 0
    advised: bool = False
    enters: int = 0
    forks: int = 0
    exits: int = 0

    # The visit under way, and what must come next.
    mm: Mm | None = None
    addr: int = -1
    item: Item | None = None
    stage: Stage = Stage.OVER
    visits: int = 0
    expected: Half | Removal | Advice | None = None

    # Who is where.
    mms: dict[int, Mm] = field(default_factory=dict)
    owners: dict[int, Mm] = field(default_factory=dict)
    dying: list[Mm] = field(default_factory=list)
    items: dict[int, Item] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)
    older: dict[int, list[Node]] = field(default_factory=dict)
    strangers: dict[Node, Finding] = field(default_factory=dict)
    zero_pfn: int = 0

    # Sums: `seen` and `fresh` of this scan, `attached` as events tell, `most` as samples do;
    # occupied: KSM pages that events have put somebody on.
    seen: int = 0
    fresh: int = 0
    attached: int = 0
    occupied: int = 0
    most: int = UNLIMITED
    most_shared: int = UNLIMITED
    sure: int = -1
    attachments: int = 0
    created: int = 0
    gone: int = 0
    zero_most: int = UNLIMITED
    zero_merges: int = 0
    visits_due: int = 0
    visits_exact: bool = False

    # What is impossible unless an excuse turns up. missing: by mm, the farthest rmap_item that did
    # not leave a dead KSM page: impossible if ksmd has not come so far yet.
    missing: dict[Mm, tuple[int, Finding]] = field(default_factory=dict)
    suspicions: list[Suspicion] = field(default_factory=list)
    idle_claims: list[Claim] = field(default_factory=list)
    scan_claims: list[Claim] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.closed = self.complete
        if self.complete:
            self.most = self.most_shared = self.zero_most = 0

    def knob(self, name: str) -> str | None:
        """A knob's value, None where it isn't known to have been the same all along."""
        return self.knobs.get(name)

    def finding(self, rule: str, message: str, *state: str) -> Finding:
        """A finding about the event at hand."""
        return Finding(self.index, self.ts, rule, message, (*self.lines(), *state))

    def process(self, mm: Mm) -> str:
        """What to call an address space."""
        return self.tgid(mm.tgid) if mm.tgid else f"the address space {mm.pointer:#x}"

    def tgid(self, tgid: int) -> str:
        """What to call a process."""
        name = self.names.get(tgid)
        return f"process {tgid} ({name})" if name else f"process {tgid}"

    def page(self, mm: Mm, addr: int, pointer: int) -> str:
        """What to call a page."""
        what = f"page {addr:#x}" if addr else f"the page of rmap_item {pointer:#x}"
        return f"{what} of {self.process(mm)}"

    def page_of(self, item: Item) -> str:
        """What to call a rmap_item's page."""
        return self.page(item.mm, item.addr, item.pointer)

    @property
    def scan(self) -> str:
        """What to call the scan under way, or the last one."""
        return "this scan" if self.seq is None else f"scan {self.seq}"
