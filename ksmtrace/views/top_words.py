"""What happened, in words: a line for each burst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ksmtrace.amounts import count, seconds
from ksmtrace.processes.identity import clean
from ksmtrace.top.state import Burst, What

STYLES = {
    "lost": "bold red", "failed": "red", "broke": "red", "merged": "green", "zero": "green",
    "attached": "green", "inherited": "cyan", "decided": "magenta", "scanned": "blue",
}  # fmt: skip


def burst_words(burst: Burst) -> str:
    """A sentence without its full stop; harmless whatever the process is called."""
    return _WORDS[burst.what](burst)


def _many(burst: Burst, thing: str, plural: str = "s") -> str:
    return f"{count(burst.count)} {thing}{'' if burst.count == 1 else plural}"


def _pages(burst: Burst, kind: str = "") -> str:
    return _many(burst, f"{kind}page")


def _times(burst: Burst) -> str:
    return "" if burst.count == 1 else f" ({count(burst.count)} decisions)"


def _who(burst: Burst) -> str:
    if burst.processes:
        return f"{burst.processes:,} other processes"
    if not burst.tgid:
        return ""
    return str(burst.tgid) if burst.name is None else f"{clean(burst.name)} ({burst.tgid})"


def _of(burst: Burst) -> str:
    who = _who(burst)
    return f" of {who}" if who else ""


def _registered(burst: Burst) -> str:
    who = _who(burst)
    if who:
        return f"{who} registered with KSM"
    forked = "a forked process" if burst.count == 1 else f"{burst.count:,} forked processes"
    return f"{forked} came onto ksmd's list"


def _scanned(burst: Burst) -> str:
    took = "" if burst.seconds is None else f" after {seconds(burst.seconds)}"
    if burst.count == 1:
        return f"scan {burst.number} ended{took}"
    return f"{burst.count:,} scans ended, the last was {burst.number}{took}"


_WORDS: Mapping[What, Callable[[Burst], str]] = MappingProxyType({
    "merged": lambda b: f"merged {_pages(b)}{_of(b)}",
    "attached": lambda b: f"attached {_pages(b)}{_of(b)} to KSM pages",
    "inherited": lambda b: f"{_who(b) or 'somebody'} took over {_pages(b, 'merged ')} by fork",
    "zero": lambda b: f"mapped {_pages(b)}{_of(b)} onto the zero page",
    "failed": lambda b: f"failed to merge {_pages(b)}{_of(b)}",
    "broke": lambda b: f"{_who(b) or 'somebody'} wrote to {_pages(b, 'merged ')}: copied",
    "entered": _registered,
    "exited": lambda b: f"{_who(b) or _many(b, 'process', 'es')} left ksmd's list",
    "scanned": _scanned,
    "decided": lambda b: f"the advisor chose pages_to_scan={b.number}{_times(b)}",
    "died": lambda b: f"ksmd found {_many(b, 'KSM page')} dead",
    "left": lambda b: f"{_who(b) or 'somebody'} gave up {_many(b, 'range')} of memory",
    "lost": lambda b: f"LOST {_many(b, 'event')}: they came faster than they were read",
})  # fmt: skip
