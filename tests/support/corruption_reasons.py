"""Why a corruption has to be found, or why what it leaves is still a legal execution.

Not every corruption contradicts something: what ksmd did is told in part only. `contradiction`
names those that must be found, each with the argument; `excuse` says of any other what makes it
legal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from support.corruptions import (
    ALTERED_COUNTER,
    ALTERED_EVENT,
    DOUBLED,
    DROPPED,
    EFAULT,
    MISPLACED,
    REPEATED,
    SWAPPED,
    Corruption,
)
from support.executions import Execution

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    FIRST_SIGHT,
    INTO_EXISTING,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    KSM_START_SCAN,
    KSM_STOP_SCAN,
)
from ksmtrace.replay.conformance import Reading

ENTER, EXIT, START, STOP = KSM_ENTER.id, KSM_EXIT.id, KSM_START_SCAN.id, KSM_STOP_SCAN.id
ZERO, MERGE = KSM_MERGE_ONE_PAGE.id, KSM_MERGE_WITH_KSM_PAGE.id
LEAVES, GONE = KSM_REMOVE_RMAP_ITEM.id, KSM_REMOVE_KSM_PAGE.id
_BY_TASKS = (ENTER, EXIT)
_PARTS = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")


# What must be found.


def contradiction(original: Execution, corruption: Corruption) -> str | None:
    """What a corruption contradicts, for those of which that is certain; None for others."""
    if corruption.kind == ALTERED_COUNTER:
        return _counter_contradiction(original, corruption)
    events = _of_ksmd(original.events)
    if not (original.time[0] <= original.events["ts"][corruption.at] <= original.time[1]):
        return None
    at = int(np.searchsorted(events["index"], corruption.at))
    if at >= len(events) or events["index"][at] != corruption.at:
        return None
    judge = _CERTAIN.get(corruption.kind)
    return judge(events, at, corruption) if judge else None


def _of_ksmd(events: EventBatch) -> EventBatch:
    """The events but those of tasks, each with its number."""
    rows = np.flatnonzero(~np.isin(events["kind"], _BY_TASKS))
    described = [("index", np.int64), *((n, events.dtype[n]) for n in events.dtype.names or ())]
    result = np.zeros(len(rows), np.dtype(described))
    result["index"] = rows
    for name in events.dtype.names or ():
        result[name] = events[name][rows]
    return result


def _kind(events: EventBatch, at: int) -> int:
    return int(events["kind"][at]) if 0 <= at < len(events) else 0


def _is_pair(events: EventBatch, at: int) -> bool:
    """Whether a new KSM page's two halves are here."""
    return (
        _kind(events, at) == MERGE
        and not events["arg"][at] & INTO_EXISTING
        and not events["err"][at]
        and at + 1 < len(events)
    )


def _is_scan(events: EventBatch, at: int) -> bool:
    """Whether a whole scan begins or ends here, and the one before or after is its neighbour."""
    borders = np.flatnonzero(np.isin(events["kind"], (START, STOP)))
    place = int(np.searchsorted(borders, at))
    around = borders[max(place - 1, 0) : place + 2]
    if len(around) < 3:
        return False
    kinds, numbers = events["kind"][around].tolist(), events["addr"][around].tolist()
    if kinds == [START, STOP, START]:
        return bool(numbers[2] == numbers[0] + 1)
    return bool(kinds == [STOP, START, STOP] and numbers[1] == numbers[0] + 1)


def _dropped(events: EventBatch, at: int, _corruption: Corruption) -> str | None:
    kind = _kind(events, at)
    if kind in (START, STOP) and _is_scan(events, at):
        return "scans start and stop in turn"
    if kind == GONE and _kind(events, at - 1) == LEAVES and at + 1 < len(events):
        return "the page goes right after its rmap_items"
    if at and _is_pair(events, at - 1) and at + 1 < len(events):
        following = events[at + 1]
        if following["kind"] != MERGE or following["pfn"] != events["pfn"][at]:
            return "a new KSM page's second half comes next"
    return None


def _twice(events: EventBatch, at: int, _corruption: Corruption) -> str | None:
    kind = _kind(events, at)
    if kind == STOP:
        return "a scan stops once"
    if kind in (MERGE, ZERO):
        return "a page is visited once a scan"
    if kind == LEAVES:
        return "a rmap_item leaves its KSM page once"
    return None


def _swapped(events: EventBatch, at: int, corruption: Corruption) -> str | None:
    place = int(np.searchsorted(events["index"], corruption.after))
    if place >= len(events) or events["index"][place] != corruption.after:
        return None
    if corruption.kind == MISPLACED:
        earlier, later = events["ts"][at], events["ts"][place]
        return "ksmd's events come in the order of time" if later > earlier + 5000 else None
    kinds = {_kind(events, at), _kind(events, place)}
    if _are_visits(events, at, place):
        return "the pages of a process are visited in the order of their addresses"
    if place == at + 1 and kinds in ({LEAVES, GONE}, {LEAVES}):
        same = events["pfn"][at] == events["pfn"][place]
        return "rmap_items leave newest first, then the page" if same else None
    if place == at + 1 and _is_pair(events, at) and _kind(events, at + 2) not in (0, MERGE):
        return "a new KSM page's second half comes after the first"
    return None


def _are_visits(events: EventBatch, at: int, place: int) -> bool:
    """Whether these are two pages of one process, visited in one scan."""
    visits = all(
        _kind(events, n) in (MERGE, ZERO) and not _is_pair(events, n - 1) for n in (at, place)
    )
    same = bool(events["mm"][at] == events["mm"][place])
    borders = np.isin(events["kind"][at : place + 1], (START, STOP)).any()
    return visits and same and not borders and events["addr"][at] < events["addr"][place]


def _altered(events: EventBatch, at: int, corruption: Corruption) -> str | None:
    kind, slot = _kind(events, at), corruption.what
    if slot == "pfn":
        return _altered_pfn(events, at)
    if slot == "tgid" and 0 < at < len(events) - 1:
        around = [(int(events["mm"][n]), int(events["tgid"][n])) for n in (at - 1, at, at + 1)]
        alike = around[0] == around[1] == around[2] and corruption.after
        return "a process does not own again what it has lost" if alike else None
    if kind not in (START, STOP) or not _is_scan(events, at):
        return None
    if slot == "addr" and (kind == STOP or corruption.after):
        return "a scan stops with the number it started with, and then comes the next"
    if slot == "arg" and kind == START and corruption.after > corruption.before:
        return "between scans no rmap_item is made"
    return None


def _altered_pfn(events: EventBatch, at: int) -> str | None:
    kind = _kind(events, at)
    if _is_pair(events, at) or (kind == MERGE and _is_pair(events, at - 1)):
        return "both halves of a new KSM page name one frame"
    if (kind == LEAVES and at + 1 < len(events)) or (
        kind == GONE and _kind(events, at - 1) == LEAVES
    ):
        return "a KSM page and those who leave it name one frame"
    return None


_CERTAIN: Mapping[str, Callable[[EventBatch, int, Corruption], str | None]] = MappingProxyType(
    {
        DROPPED: _dropped,
        DOUBLED: _twice,
        REPEATED: _twice,
        MISPLACED: _swapped,
        SWAPPED: _swapped,
        ALTERED_EVENT: _altered,
    }
)


def _counter_contradiction(original: Execution, corruption: Corruption) -> str | None:
    sample = original.samples[corruption.at]
    name, change = corruption.what, corruption.after - corruption.before
    if sample.tgid is not None or not is_idle(original, sample):
        return None
    if name in _PARTS:
        return "the pages of all trees are the rmap_items that the scan stopped with"
    if name == "full_scans" and change != -1:
        return "the number of scans is that of the last one, plus one"
    if name == "general_profit" and (change % 4096 or change > 0):
        return "the profit follows from the saved pages and the rmap_items"
    if name in ("pages_scanned", "pages_skipped") and _between_whole_scans(original, corruption.at):
        return "each scan visits or skips all rmap_items that are there when it stops"
    return None


def is_idle(execution: Execution, sample: Reading) -> bool:
    """Whether ksmd slept all the while, and nothing was unmerged until it went on."""
    events = _of_ksmd(execution.events)
    until = sample.begin if sample.until is None else sample.until
    after = int(np.searchsorted(events["ts"], until, "right"))
    before = int(np.searchsorted(events["ts"], sample.begin)) - 1
    return (
        before >= 0
        and before + 1 == after
        and _kind(events, before) == STOP
        and _kind(events, after) == START
        and bool(events["addr"][after] == events["addr"][before] + 1)
        and bool(events["arg"][after] == events["arg"][before])
        and execution.time[0] <= sample.begin <= execution.time[1]
    )


def _between_whole_scans(execution: Execution, at: int) -> bool:
    """Whether the samples before and after are as good, and nobody exited in between."""
    if execution.profile.behaviour.pages_scanned != "exact":
        return False
    host = [n for n, sample in enumerate(execution.samples) if sample.tgid is None]
    place = host.index(at)
    around = [execution.samples[n] for n in host[max(place - 1, 0) : place + 2]]
    if len(around) < 3 or not all(is_idle(execution, sample) for sample in around):
        return False
    low, high = around[0].begin, around[2].until or around[2].begin
    exits = execution.events["kind"] == EXIT
    times = execution.events["ts"][exits]
    starts = execution.events[execution.events["kind"] == START]["ts"]
    after = starts[starts > high][:1]
    return not np.any((times >= low) & (times <= (after[0] if len(after) else high)))


# Why others may be legal.


def excuse(original: Execution, corruption: Corruption) -> str:
    """What makes an execution legal after a corruption that was not found."""
    if corruption.kind == ALTERED_COUNTER:
        return _counter_excuse(original, corruption)
    event = original.events[corruption.at]
    if not original.time[0] <= event["ts"] <= original.time[1]:
        return "while events were being switched on or off"
    if corruption.kind in (MISPLACED, SWAPPED):
        return _order_excuse(original.events, corruption)
    if corruption.kind == ALTERED_EVENT:
        return _alteration_excuse(event, corruption)
    kind = int(event["kind"])
    if kind in (MERGE, ZERO) and event["err"]:
        return "a try that fails leaves no trace"
    return (_DROP_EXCUSES if corruption.kind == DROPPED else _DOUBLE_EXCUSES)[kind]


def _order_excuse(events: EventBatch, corruption: Corruption) -> str:
    kinds = {int(events["kind"][corruption.at]), int(events["kind"][corruption.after])}
    if kinds & set(_BY_TASKS):
        return "a task's own event may come earlier or later than ksmd's"
    return "either may have come first: what decides it is told by no event"


_BORDER = "the stream's border, or run=2 ended that scan"
_DROP_EXCUSES = {
    ENTER: "it may have been on ksmd's list before the stream",
    EXIT: "ksmd may have dropped the address space before: then it exits silently",
    START: _BORDER,
    STOP: _BORDER,
    MERGE: "the page may not have merged: others that left a KSM page silently hide it",
    ZERO: "the page may not have merged: others that were written to hide it",
    LEAVES: "the rmap_item may have left its KSM page before, silently",
    GONE: "the KSM page may not have been found dead yet",
}
_DOUBLE_EXCUSES = {
    ENTER: "ksmd may have dropped the address space in between",
    START: "the scan may have been given up (run=2) and begun again",
    GONE: "another dead KSM page may have had the same frame",
}


def _alteration_excuse(event: np.void, corruption: Corruption) -> str:
    kind, slot = int(event["kind"]), corruption.what
    if kind == ENTER and slot != "kind":
        return "any process may enter, by itself or as any other's child"
    if kind == MERGE and slot == "arg":
        return _flag_excuse(corruption)
    if slot == "pfn" and kind == GONE:
        return "a dead KSM page of before may have had that frame"
    if slot == "err" and corruption.after == EFAULT:
        return "the page may not have merged: others that left silently hide it"
    return _SLOT_EXCUSES[slot]


_ELSEWHERE = "it was seen there only, so it may as well have been another"
_SLOT_EXCUSES = {
    "arg": "run=2 may have been interrupted between the scans: it frees rmap_items",
    "pfn": "no event tells which of the KSM pages has the page's content",
    "item": _ELSEWHERE,
    "mm": _ELSEWHERE,
    "addr": _ELSEWHERE,
    "tgid": "an address space may change its owner",
    "err": "the page may have merged, and left its KSM page silently",
    "kind": "an event of that kind may have come there, too",
}


def _flag_excuse(corruption: Corruption) -> str:
    changed = corruption.before ^ corruption.after
    if changed & INTO_EXISTING:
        return "an event of that kind may have come there, too"
    if changed & FIRST_SIGHT:
        return "a page that a fork shared may be seen for the first time, or again"
    return "anybody may map or unmap a KSM page at any time: mapcount is of the moment"


_COUNTER_EXCUSES = {
    "cow_ksm": "copies of KSM pages are told by no event",
    "ksm_swpin_copy": "copies of KSM pages are told by no event",
    "ksmd_cpu_ns": "CPU time is told by no event",
    "ksm_merge_any": "a process may opt in or out at any time",
    "ksm_mergeable": "a process may opt in or out at any time",
    "ksm_zero_pages": "pages leave the zero page without an event, and come to it by fork",
    "general_profit": "pages leave the zero page without an event",
    "ksm_process_profit": "pages leave the zero page without an event",
    "stable_node_chains": "which KSM pages have one content is told by no event",
    "stable_node_dups": "which KSM pages have one content is told by no event",
}


def _counter_excuse(original: Execution, corruption: Corruption) -> str:
    sample = original.samples[corruption.at]
    name = corruption.what
    if name in _COUNTER_EXCUSES:
        return _COUNTER_EXCUSES[name]
    if not is_idle(original, sample):
        return "ksmd was at work, or unmerging, or at the stream's border"
    if name == "full_scans":
        return "the scan is counted just after its last event"
    if sample.tgid is not None:
        return "it fits what the process's events allow"
    return "it fits what the events allow"
