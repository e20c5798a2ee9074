"""The steps of the scenario language that processes do, and what befalls their memory."""

from __future__ import annotations

from collections.abc import Iterable

from ksmtrace.lab.contents import contents_for
from ksmtrace.lab.operations import (
    Advise,
    Exec,
    Exit,
    Fork,
    Map,
    MergeAny,
    Migrate,
    Operation,
    Pin,
    Place,
    Protect,
    Read,
    Remap,
    Start,
    SwapOut,
    Unmap,
    Unpin,
    Write,
    WritePart,
)
from ksmtrace.lab.plan import Region, address_of
from ksmtrace.lab.planner import Planner, Process
from ksmtrace.lab.verb import Values, addresses, flag, node_number, require, span, verb, whole
from ksmtrace.model.content import PAGE_SIZE
from ksmtrace.model.memory import HUGE_PAGES

# Processes.


@verb("process", 'process = "a"')
def _process(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Start a process with nothing mapped. `map` starts one by itself, too."""
    planner.begin(subject)
    yield Start(str(subject))


@verb("fork", 'fork = "a"\nas = "b"', **{"as": "the child's name"})
def _fork(planner: Planner, subject: object, values: Values) -> Iterable[Operation]:
    """Fork: the child shares every page until somebody writes, and has the same regions."""
    parent = planner.living(subject)
    if "as" not in values:
        raise planner.error("fork needs the child's name", 'for example as = "b"')
    child = planner.begin(values["as"])
    child.regions = {name: Region(r.start, r.pages) for name, r in parent.regions.items()}
    planner.places[values["as"]] = dict(child.regions)
    child.mapped = dict(parent.mapped)
    planner.count_pages(len(child.mapped))
    yield Fork(str(subject), values["as"])


def _forget(planner: Planner, process: Process) -> None:
    planner.pages_mapped -= len(process.mapped)
    process.mapped = {}
    process.regions = {}


@verb("exec", 'exec = "a"')
def _exec(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Exec: the process goes on with a new, empty address space."""
    _forget(planner, planner.living(subject))
    yield Exec(str(subject))


@verb("exit", 'exit = "a"')
def _exit(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """End a process."""
    process = planner.living(subject)
    _forget(planner, process)
    process.alive = False
    yield Exit(str(subject))


@verb("merge_any", 'merge_any = "a"\non = true', on="true (if not said) or false")
def _merge_any(planner: Planner, subject: object, values: Values) -> Iterable[Operation]:
    """PR_SET_MEMORY_MERGE: opt a whole process in, or out and unmerge all of it (Linux 6.4)."""
    planner.living(subject)
    yield MergeAny(str(subject), flag(planner, "on", values.get("on", True)))


# Memory.


@verb(
    "map",
    'map = "a.heap"\npages = 4',
    pages="how many",
    at="page number where it goes; else above all that was mapped, or where it was before",
    huge="true: of huge pages; pages must be a multiple of 512",
    ksm="false: not opted in to KSM; true if not said",
    node="the NUMA node that its pages come from, 0 if not said",
)
def _map(planner: Planner, subject: object, values: Values) -> Iterable[Operation]:
    """Map private anonymous memory, untouched yet, and opt it in to KSM."""
    name, region_name, low, high = planner.split(subject)
    if low or high is not None:
        raise planner.error("a whole region is mapped, not a part", f'write map = "{name}.heap"')
    if name not in planner.processes:
        planner.begin(name)
        yield Start(name)
    process = planner.living(name)
    old = process.regions.get(region_name)
    huge = flag(planner, "huge", values.get("huge", False))
    if "pages" in values:
        pages = whole(planner, "pages", values["pages"], 1, 1 << 30)
    elif old is not None:
        pages = old.pages
    else:
        raise planner.error("map needs pages", "for example pages = 4")
    if "at" in values:
        start = whole(planner, "at", values["at"], 0, 1 << 40)
    else:
        start = old.start if old is not None else process.next_free()
    if huge:
        if pages % HUGE_PAGES:
            raise planner.error(f"pages of a huge region must be a multiple of {HUGE_PAGES}")
        start = -(-start // HUGE_PAGES) * HUGE_PAGES
    planner.add_pages(process, range(start, start + pages), f"{name}.{region_name}")
    region = process.regions[region_name] = Region(start, pages)
    planner.places[name][region_name] = region
    begin, length = span(range(start, start + pages))
    yield Map(name, begin, length, huge, node_number(planner, values.get("node", 0)))
    if flag(planner, "ksm", values.get("ksm", True)):
        yield Advise(name, begin, length, "mergeable")


@verb(
    "write",
    'write = "a.heap[0:2]"\ncontent = "same"',
    content='a name (the same name, the same page), "zero", "unique", "sequence" or "random"',
    first="sequence: its first number, 0 if not said",
    seed="random: where the dice begin, 0 if not said",
    of="random: how many different contents there are",
    bytes="instead of content: a text that overwrites a part of each page",
    offset="where in the page those bytes go, 0 if not said",
)
def _write(planner: Planner, subject: object, values: Values) -> Iterable[Operation]:
    """Write whole pages, or with `bytes` a part of each. Names order pages as memcmp would."""
    name, process, _region, pages = planner.mapped(subject)
    require(planner, process, pages, ("write",))
    if ("content" in values) == ("bytes" in values):
        raise planner.error("write needs either content or bytes")
    if "bytes" in values:
        text = values["bytes"]
        if not isinstance(text, str) or not text:
            raise planner.error("bytes must be a text")
        data = text.encode()
        offset = whole(planner, "offset", values.get("offset", 0), 0, PAGE_SIZE - len(data))
        yield WritePart(name, addresses(pages), offset, data)
        return
    contents = contents_for(planner, values, len(pages))
    yield Write(name, tuple(zip(addresses(pages), contents, strict=True)))


@verb("read", 'read = "a.heap[3]"')
def _read(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Read pages. One never written gets the zero page, which ksmd does not look at."""
    name, process, _region, pages = planner.mapped(subject)
    require(planner, process, pages, ("write", "read"))
    yield Read(name, addresses(pages))


@verb("unmap", 'unmap = "a.heap"')
def _unmap(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Munmap. Mapping the region again puts it at the same address."""
    name, process, _region, pages = planner.mapped(subject)
    planner.remove_pages(process, pages)
    yield Unmap(name, *span(pages))


@verb("discard", 'discard = "a.heap[1]"')
def _discard(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """MADV_DONTNEED: the pages' contents go, the mapping stays."""
    name, _process, _region, pages = planner.mapped(subject)
    yield Advise(name, *span(pages), "discard")


@verb("mergeable", 'mergeable = "a.heap"')
def _mergeable(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """MADV_MERGEABLE."""
    name, _process, _region, pages = planner.mapped(subject)
    yield Advise(name, *span(pages), "mergeable")


@verb("unmergeable", 'unmergeable = "a.heap"')
def _unmergeable(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """MADV_UNMERGEABLE: unmerge what is merged, and keep ksmd away."""
    name, _process, _region, pages = planner.mapped(subject)
    yield Advise(name, *span(pages), "unmergeable")


@verb("protect", 'protect = "a.heap"\naccess = "none"', access='"write", "read" or "none"')
def _protect(planner: Planner, subject: object, values: Values) -> Iterable[Operation]:
    """Mprotect."""
    name, process, _region, pages = planner.mapped(subject)
    access = values.get("access")
    if access not in ("write", "read", "none"):
        raise planner.error('access must be "write", "read" or "none"')
    process.mapped.update(dict.fromkeys(pages, str(access)))
    yield Protect(name, *span(pages), access)


@verb(
    "move",
    'move = "a.heap"\nto = "new"',
    to="the region's name at its new place",
    at="page number of the new place; else above all that was mapped",
)
def _move(planner: Planner, subject: object, values: Values) -> Iterable[Operation]:
    """Mremap a whole region to another address."""
    name, process, region, pages = planner.mapped(subject)
    if len(pages) != region.pages:
        raise planner.error("a whole region is moved, not a part")
    to = values.get("to")
    _, new_name, low, high = planner.split(f"{name}.{to}")
    if low or high is not None or new_name in process.regions:
        raise planner.error("to must be the name of a new region")
    at = values.get("at", process.next_free())
    start = whole(planner, "at", at, 0, 1 << 40)
    access = [process.mapped[page] for page in pages]
    if start < region.start + region.pages and region.start < start + region.pages:
        raise planner.error("a region can't be moved onto itself")
    planner.add_pages(process, range(start, start + region.pages), f"{name}.{new_name}")
    planner.remove_pages(process, pages)
    moved = range(start, start + region.pages)
    process.mapped.update(zip(moved, access, strict=True))
    process.regions[new_name] = planner.places[name][new_name] = Region(start, region.pages)
    yield Remap(name, *span(pages), address_of(start))


@verb("place", 'place = "a.heap[2:4]"\nnode = 1', node="the NUMA node")
def _place(planner: Planner, subject: object, values: Values) -> Iterable[Operation]:
    """Mbind: pages made there from now on, copies too, come from that node; others stay."""
    name, _process, _region, pages = planner.mapped(subject)
    yield Place(name, *span(pages), _the_node(planner, values))


@verb("migrate", 'migrate = "a.heap[3]"\nnode = 1', node="the NUMA node")
def _migrate(planner: Planner, subject: object, values: Values) -> Iterable[Operation]:
    """move_pages(2): move written pages to a NUMA node, for all who share them."""
    name, _process, _region, pages = planner.mapped(subject)
    yield Migrate(name, *span(pages), _the_node(planner, values))


def _the_node(planner: Planner, values: Values) -> int:
    if "node" not in values:
        raise planner.error("it needs a node", "for example node = 1")
    return node_number(planner, values["node"])


@verb("swap_out", 'swap_out = "a.heap"')
def _swap_out(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Send pages to the swap disk, for all who share them; the next touch brings them back."""
    name, _process, _region, pages = planner.mapped(subject)
    yield SwapOut(name, *span(pages))


@verb("pin", 'pin = "a.heap[0]"')
def _pin(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Hold a reference to one written page, as direct I/O does, until `unpin`."""
    name, process, _region, pages = planner.mapped(subject)
    if len(pages) != 1:
        raise planner.error("one page is pinned at a time")
    require(planner, process, pages, ("write", "read"))
    label = str(subject)
    if label in planner.pins:
        raise planner.error(f"{label} is pinned already")
    planner.pins.add(label)
    yield Pin(name, address_of(pages.start), label)


@verb("unpin", 'unpin = "a.heap[0]"')
def _unpin(planner: Planner, subject: object, _values: Values) -> Iterable[Operation]:
    """Give back the reference that was taken under that name, wherever the page is now."""
    if not isinstance(subject, str) or subject not in planner.pins:
        raise planner.error(f"{subject!r} is not pinned")
    planner.pins.discard(str(subject))
    yield Unpin(str(subject))
