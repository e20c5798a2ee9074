"""The figures of the host as a whole, each declared once: its name, unit, source and meaning.

The screen, `--json` and the documentation's table (`top.docs`) read the same list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Counters = Mapping[str, float]
"""By the kernel's name; one that is not known is missing."""


@dataclass(frozen=True)
class Reading:
    """What figures are made of. now: the counters. change: how they grew within `seconds`.

    merges, breaks: what events told within `event_seconds`; None: they tell nothing of it.
    """

    now: Counters
    change: Counters
    seconds: float
    page_bytes: int
    cpus: int | None
    merges: int | None = None
    breaks: int | None = None
    event_seconds: float = 0.0


@dataclass(frozen=True)
class Figure:
    """A figure. name: as JSON has it, with its unit. source: what it is made of."""

    name: str
    of: Callable[[Reading], float | None]
    source: str
    meaning: str


def is_count(name: str) -> bool:
    """Whether what is called so, with its unit, counts something; rates and shares don't."""
    return "_per_" not in name and "_percent" not in name


def saved_pages(now: Counters) -> float | None:
    """pages_sharing + ksm_zero_pages, as the kernel counts."""
    sharing = now.get("pages_sharing")
    return None if sharing is None else sharing + now.get("ksm_zero_pages", 0)


def merged_pages(now: Counters) -> float | None:
    """Mappings of KSM pages and of the zero page."""
    saved, shared = saved_pages(now), now.get("pages_shared")
    return None if saved is None or shared is None else saved + shared


def _counter(name: str) -> Callable[[Reading], float | None]:
    return lambda reading: reading.now.get(name)


def _saved(reading: Reading) -> float | None:
    pages = saved_pages(reading.now)
    return None if pages is None else pages * reading.page_bytes


def _ratio(reading: Reading) -> float | None:
    sharing, shared = reading.now.get("pages_sharing"), reading.now.get("pages_shared")
    return sharing / shared if sharing is not None and shared else None


def _grown(name: str, scale: float = 1.0) -> Callable[[Reading], float | None]:
    def figure(reading: Reading) -> float | None:
        change = reading.change.get(name)
        return None if change is None or not reading.seconds else scale * change / reading.seconds

    return figure


def _host_cpu(reading: Reading) -> float | None:
    share = _grown("ksmd_cpu_ns", 1e-7)(reading)
    return share / reading.cpus if share is not None and reading.cpus else None


def _merges(reading: Reading) -> float | None:
    if reading.merges is None or not reading.event_seconds:
        return None
    return reading.merges / reading.event_seconds


def _net(reading: Reading) -> float | None:
    change = merged_pages(reading.change)
    return None if change is None or not reading.seconds else change / reading.seconds


def _breaks(reading: Reading) -> float | None:
    if reading.breaks is not None and reading.event_seconds:
        return reading.breaks / reading.event_seconds
    return _grown("cow_ksm")(reading)


def _skipped(reading: Reading) -> float | None:
    skipped, scanned = reading.change.get("pages_skipped"), reading.change.get("pages_scanned")
    if skipped is None or scanned is None or not skipped + scanned:
        return None
    return 100 * skipped / (skipped + scanned)


_SHARING = "`pages_sharing`"
FIGURES: tuple[Figure, ...] = (
    Figure("saved_bytes", _saved, f"({_SHARING} + `ksm_zero_pages`) × page size", "memory saved"),
    Figure(
        "profit_bytes",
        _counter("general_profit"),
        "`general_profit`",
        "saved, less the memory that ksmd's lists take; may be negative",
    ),
    Figure("pages_shared", _counter("pages_shared"), "`pages_shared`", "KSM pages in use"),
    Figure("pages_sharing", _counter("pages_sharing"), _SHARING, "further mappings of them"),
    Figure(
        "sharing_per_shared",
        _ratio,
        f"{_SHARING} ÷ `pages_shared`",
        "pages saved by each KSM page; none while there is no KSM page",
    ),
    Figure(
        "ksm_zero_pages",
        _counter("ksm_zero_pages"),
        "`ksm_zero_pages`",
        "pages mapped to the zero page by ksmd",
    ),
    Figure(
        "pages_unshared",
        _counter("pages_unshared"),
        "`pages_unshared`",
        "pages that wait for an equal one",
    ),
    Figure(
        "pages_volatile",
        _counter("pages_volatile"),
        "`pages_volatile`",
        "scanned pages that are in no tree: they change, or are new",
    ),
    Figure(
        "pages_scanned",
        _counter("pages_scanned"),
        "`pages_scanned`",
        "visits by ksmd since boot",
    ),
    Figure(
        "pages_skipped",
        _counter("pages_skipped"),
        "`pages_skipped`",
        "visits that smart scan spared, since boot",
    ),
    Figure("full_scans", _counter("full_scans"), "`full_scans`", "full scans done"),
    Figure(
        "ksmd_percent_of_one_core",
        _grown("ksmd_cpu_ns", 1e-7),
        "ksmd's `schedstat`, over 5 s",
        "ksmd's share of one core",
    ),
    Figure(
        "ksmd_percent_of_host",
        _host_cpu,
        "the same ÷ CPUs",
        "ksmd's share of all cores",
    ),
    Figure("visits_per_s", _grown("pages_scanned"), "`pages_scanned`, over 5 s", "visits a second"),
    Figure(
        "skipped_percent",
        _skipped,
        "`pages_skipped` and `pages_scanned`, over 5 s",
        "of the pages that ksmd came by, those that smart scan left out",
    ),
    Figure(
        "merges_per_s",
        _merges,
        "events, over 5 s",
        "merges a second that stood, the zero page's and those inherited by fork too; none without"
        " a capture",
    ),
    Figure(
        "merged_net_per_s",
        _net,
        f"`pages_shared` + {_SHARING} + `ksm_zero_pages`, over 5 s",
        "how fast the number of merged mappings grows: merges less what ended",
    ),
    Figure(
        "breaks_per_s",
        _breaks,
        "events with `--cow`, else `cow_ksm` of /proc/vmstat, over 5 s",
        "copies made a second because a merged page was written",
    ),
)


def figures_of(reading: Reading) -> dict[str, float | None]:
    """Every figure, by name."""
    return {figure.name: figure.of(reading) for figure in FIGURES}
