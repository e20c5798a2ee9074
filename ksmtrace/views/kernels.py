"""Kernel releases as rich renderables and as JSON: what KSM does there and what a trace shows.

Everything follows from the declarations in `kernel.releases`, `kernel.changes`, `kernel.sysfs` and
`events.registry`; only the meaning of each switch is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.kernel.changes import CHANGES, CHANGES_BY_RELEASE, Change, changes_in
from ksmtrace.kernel.releases import (
    FIXES,
    RELEASES,
    Behaviour,
    Fix,
    Profile,
    Release,
    parse_release,
    profile,
)
from ksmtrace.kernel.sysfs import COUNTERS, KNOBS

MEANINGS: Mapping[str, Mapping[str | bool, str]] = MappingProxyType(
    {
        "checksum": {
            "jhash2": "a page's checksum is its jhash2",
            "xxhash": "a page's checksum is its xxhash, the low 32 bits",
        },
        "visit_order": {
            "own_item_first": "ksmd takes the page out of its tree, then searches the stable tree:"
            " a page can merge at its first visit",
            "stable_first": "ksmd searches the stable tree before anything else: a page can merge"
            " at its first visit",
            "checksum_first": "ksmd compares the checksum before it searches: a page that is no"
            " KSM page yet merges at its second visit at the earliest",
        },
        "stale_node_on_walk": {
            "give_up": "a search that meets a dead KSM page finds nothing this time",
            "restart": "a search that meets a dead KSM page removes it and starts again",
        },
        "numa_trees": {
            False: "one stable and one unstable tree for the whole host",
            True: "with merge_across_nodes=0 each NUMA node has trees of its own",
        },
        "run_2_sweeps": {
            False: "run=2 leaves stable nodes that no rmap_item leads to in the tree",
            True: "run=2 removes every stable node up to the first whose page is still mapped",
        },
        "run_2_appends": {
            False: "a new process is always listed just before the one being scanned",
            True: "a new process is listed just before the one being scanned; while run is 2, last",
        },
        "zero_pages": {
            "absent": "zero-filled pages merge like any others",
            "uncounted": "use_zero_pages=1 maps zero-filled pages to the zero page: in no counter,"
            " and unmerging leaves them there",
            "counted": "use_zero_pages=1 maps zero-filled pages to the zero page: ksm_zero_pages"
            " counts them, and unmerging copies them",
        },
        "chains": {
            "absent": "one KSM page for each content, however many map it",
            "longest_with_room": "a KSM page with max_page_sharing mappings is full, and its"
            " content gets a further one; the fullest with room is taken. A chain of one collapses"
            " when chains are pruned",
            "longest": "a KSM page with max_page_sharing mappings is full, and its content gets a"
            " further one; the fullest with room is taken. A chain of one collapses at any walk",
        },
        "same_huge_page_splits": {
            False: "two equal pages of one huge page don't merge: every try fails",
            True: "two equal pages of one huge page: the try fails, the huge page is split, and"
            " they merge a scan later",
        },
        "locked_page_is_busy": {
            False: "ksmd waits for a KSM page that somebody has locked",
            True: "ksmd leaves a page for the next scan if its KSM page is locked by somebody",
        },
        "sole_mapping_reused": {
            False: "every write to a KSM page copies it",
            True: "a write to a KSM page that nobody else maps reuses it, without a copy",
        },
        "unshare": {
            "write_fault": "unmerging copies by a write fault: the copy is dirty, and one that is"
            " pinned doesn't merge again",
            "unshare_fault": "unmerging copies by an unshare fault: the copy is clean, and after a"
            " fork it can merge although it is pinned",
        },
        "prot_none": {
            "visited": "PROT_NONE pages are visited and merged like others",
            "not_visited": "PROT_NONE pages are no candidates; their rmap_items are freed",
            "not_found": "PROT_NONE pages are visited and can merge, but one that waits in the"
            " unstable tree is not found there and blocks the way",
        },
        "unshare_finds_prot_none": {
            False: "unmerging succeeds, but leaves PROT_NONE pages on their KSM pages",
            True: "unmerging copies PROT_NONE pages like others",
        },
        "merge_any": {
            "absent": "there is no PR_SET_MEMORY_MERGE",
            "lost": "PR_SET_MEMORY_MERGE ends when the process execs",
            "unscanned": "PR_SET_MEMORY_MERGE outlives exec, but the process is not scanned: no"
            " ksm_enter",
            "kept": "PR_SET_MEMORY_MERGE outlives exec, with a ksm_enter",
        },
        "drop_clears_merge_any": {
            False: "PR_SET_MEMORY_MERGE stays when ksmd drops a process; its next mapping lists it"
            " again",
            True: "PR_SET_MEMORY_MERGE, where there is one, ends when ksmd drops a process that"
            " has no mergeable region",
        },
        "fork_counters": {
            "inherited": "a forked child's own counters, where there are any, begin with its"
            " parent's numbers and stay wrong by them",
            "fresh": "a forked child's ksm_stat begins at zero, except the zero pages it shares",
        },
        "pages_scanned": {
            "absent": "there is no pages_scanned",
            "per_batch": "pages_scanned counts a whole batch plus one, and nothing for the batch"
            " that ends a scan",
            "exact": "pages_scanned counts every visit",
        },
        "smart_scan": {
            False: "every page is visited in every scan",
            True: "with smart_scan=1, the default, a page that doesn't merge is visited less often",
        },
        "advisor": {
            False: "pages_to_scan changes only by hand",
            True: "with advisor_mode=scan-time pages_to_scan changes after every full scan",
        },
        "huge_page_split_maps_zero_pages": {
            False: "zero-filled pages of a huge page that is split stay pages",
            True: "zero-filled pages of a huge page that is split become mappings of the zero page,"
            " in no counter of KSM",
        },
    }
)
"""What each value of each of Behaviour's fields means for who watches ksmd."""

_KNOWN = {
    "live": "compared with such a kernel running",
    "read": "read in its source",
    "interpolated": "taken from the releases around it",
}
_STATUS_STYLES = {"modelled": "bold", "visible": "", "no effect": "dim"}
_LEGEND = """\
known    live: compared with that kernel running. read: read in its source.
         interpolated: taken from the releases around it.
events   KSM's tracepoints there. Without any, a trace needs the fentry backend (5.17).
commits  modelled: the reference scanner behaves differently because of it.
         visible: it shows in a counter, an event or another interface."""


@dataclass(frozen=True)
class Inventory:
    """Names of what a kernel has, or of what came with it."""

    tracepoints: list[str]
    counters: list[str]
    knobs: list[str]


def _inventory(exists: Callable[[str | None], bool]) -> Inventory:
    return Inventory(
        [kind.name for kind in TRACEPOINTS if exists(kind.since)],
        [counter.name for counter in COUNTERS if exists(counter.since)],
        [knob.name for knob in KNOBS if exists(knob.since)],
    )


def came_with(release: Release) -> Inventory:
    """What was not there yet in the entry before this one."""
    place = RELEASES.index(release)
    here = profile(release.version)
    if place == 0:
        return _inventory(here.has)
    before = profile(RELEASES[place - 1].version)
    return _inventory(lambda since: here.has(since) and not before.has(since))


def releases_as_dict() -> dict[str, Any]:
    """What `ksmtrace kernels --json` prints, oldest first; changes: null where none are listed."""
    return {
        "releases": [
            {
                "release": release.version,
                "evidence": release.evidence,
                "notes": list(release.notes),
                "behaviour_changes": dict(release.changes),
                "new": asdict(came_with(release)),
                **_changes_as_dict(changes_in(release.version)),
            }
            for release in RELEASES
        ]
    }


def kernel_as_dict(kernel: Profile) -> dict[str, Any]:
    """What `ksmtrace kernels RELEASE --json` prints."""
    return {
        "name": kernel.name,
        "version": ".".join(map(str, kernel.version)),
        "release": kernel.release.version,
        "evidence": kernel.release.evidence,
        "note": kernel.note or None,
        "notes": list(kernel.release.notes),
        "behaviour": asdict(kernel.behaviour),
        "fixes": [
            {
                "name": fix.name,
                "what": fix.what,
                "carried": fix.name in kernel.fixes,
                "seen_in": _seen_in(fix, kernel),
            }
            for fix in _fixes_of(kernel)
        ],
        **asdict(_inventory(kernel.has)),
        **_changes_as_dict(changes_in(kernel.release.version)),
    }


def changes_as_dict(kernel: Profile | None = None) -> dict[str, Any]:
    """What `ksmtrace kernels --changes --json` prints, of one release or of all."""
    return _changes_as_dict(CHANGES if kernel is None else changes_in(kernel.release.version))


def _changes_as_dict(changes: Iterable[Change] | None) -> dict[str, Any]:
    return {"changes": None if changes is None else [asdict(change) for change in changes]}


def render_releases() -> RenderableType:
    """What `ksmtrace kernels` prints; fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("release", style="bold", no_wrap=True)
    table.add_column("known", no_wrap=True)
    table.add_column("events", justify="right", no_wrap=True)
    table.add_column("what is new")
    for release in RELEASES:
        events = len(_inventory(profile(release.version).has).tracepoints)
        table.add_row(release.version, release.evidence, str(events), Group(*_what_is_new(release)))
    return Group(table, "", Text(_LEGEND))


def _what_is_new(release: Release) -> list[Text]:
    changes = changes_in(release.version)
    lines = [Text(note, style="bold") for note in release.notes]
    if new := _new_things(came_with(release)):
        lines.append(Text(f"+ {new}"))
    told = [change for change in changes or () if change.status != "no effect"]
    lines += [
        Text.assemble(
            (change.commit, "cyan"),
            (f" {change.status}", _STATUS_STYLES[change.status]),
            f": {change.effect}",
        )
        for change in told
    ]
    # A modelled commit says what it means; without one listed, the switch that it moved does.
    if not any(change.status == "modelled" for change in told):
        lines += [
            Text(f"{name} {_value(value)}: {MEANINGS[name][value]}.")
            for name, value in release.changes.items()
        ]
    if silent := len(changes or ()) - len(told):
        commits = _several(silent, "further commit" if told else "commit")
        lines.append(Text(f"{commits} without effect", style="dim"))
    if not lines:
        lines = [Text("no changes" if changes == () else "no change is known", style="dim")]
    return lines


def _new_things(new: Inventory) -> str:
    parts = [_several(len(new.tracepoints), "tracepoint")] if new.tracepoints else []
    for what, names in (("counter", new.counters), ("knob", new.knobs)):
        if names:
            parts.append(f"{what}{'s' if len(names) > 1 else ''} {', '.join(names)}")
    return "; ".join(parts)


def _several(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _without_tracepoints(kernel: Profile) -> str:
    """What a trace can have there all the same; see docs/backends.md."""
    hooked = kernel.has("5.17")
    return f"none: {'the fentry backend hooks its functions' if hooked else 'only counters tell'}"


def render_kernel(kernel: Profile) -> RenderableType:
    """What `ksmtrace kernels RELEASE` prints; fits 80 columns."""
    head = Table.grid(padding=(0, 2))
    head.add_column(style="bold", no_wrap=True)
    head.add_column()
    release = kernel.release
    head.add_row("kernel", Text(".".join(map(str, kernel.version))))
    head.add_row("release", Text(f"{release.version}, {_KNOWN[release.evidence]}"))
    head.add_row(f"new in {release.version}", Text("\n".join(_headlines(release))))
    head.add_row("fixes", Group(*_fix_lines(kernel)))
    there = _inventory(kernel.has)
    head.add_row("tracepoints", Text(", ".join(there.tracepoints) or _without_tracepoints(kernel)))
    for where, label in (
        ("ksm", "in /sys/kernel/mm/ksm"),
        ("vmstat", "in /proc/vmstat"),
        ("ksmd", "of ksmd"),
        ("process", "of a process"),
    ):
        names = [c.name for c in COUNTERS if c.where == where and c.name in there.counters]
        topic = "counters" if where == "ksm" else ""
        if names:
            head.add_row(topic, Text(f"{label}: {', '.join(names)}"))
    head.add_row("knobs", Text(", ".join(there.knobs)))
    return Group(
        head,
        "",
        Text("behaviour", style="bold"),
        _behaviour(kernel.behaviour),
        "",
        Text(f"commits of {release.version}", style="bold"),
        _commits(release.version),
    )


def _headlines(release: Release) -> list[str]:
    new = _new_things(came_with(release))
    return [*release.notes, *([f"+ {new}"] if new else [])] or ["no change is known"]


def _fixes_of(kernel: Profile) -> list[Fix]:
    """Those the kernel carries, and those that a later one of its series was seen with."""
    return [f for f in FIXES if f.name in kernel.fixes or kernel.version[:2] in f.stable]


def _seen_in(fix: Fix, kernel: Profile) -> str | None:
    major, minor, _ = kernel.version
    patch = fix.stable.get((major, minor))
    return None if patch is None else f"{major}.{minor}.{patch}"


def _fix_lines(kernel: Profile) -> list[Text]:
    lines = []
    for fix in _fixes_of(kernel):
        carried = fix.name in kernel.fixes
        state = "carried" if carried else f"seen in {_seen_in(fix, kernel)}, not assumed before"
        lines.append(Text(f"{fix.name}: {fix.what} ({state})"))
    major, minor, _ = kernel.version
    return lines or [Text(f"no fix of later releases is known in a stable {major}.{minor}")]


def _behaviour(behaviour: Behaviour) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for field in fields(behaviour):
        value = getattr(behaviour, field.name)
        switch = Text.assemble(field.name, "\n  ", (_value(value), "bold"))
        table.add_row(switch, Text(MEANINGS[field.name][value]))
    return table


def _value(value: str | bool) -> str:
    return value if isinstance(value, str) else ("no", "yes")[value]


def render_changes(kernel: Profile | None = None) -> RenderableType:
    """What `ksmtrace kernels --changes` prints, of one release or of all; fits 80 columns."""
    if kernel is not None:
        return _commits(kernel.release.version)
    parts: list[RenderableType] = []
    for release in CHANGES_BY_RELEASE:
        parts += [Text(release, style="bold"), _commits(release), ""]
    return Group(*parts[:-1])


def _commits(release: str) -> RenderableType:
    changes = changes_in(release)
    if changes is None:
        first, *_, last = sorted(CHANGES_BY_RELEASE, key=parse_release)
        return Text(f"not listed: commits are listed from {first} to {last}")
    if not changes:
        return Text("no changes")
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column()
    for change in changes:
        style = _STATUS_STYLES[change.status]
        table.add_row(
            Text(change.commit, style="cyan"),
            Text(change.status, style=style),
            Group(Text(change.subject), Text(f"→ {change.effect}")),
        )
    return table
