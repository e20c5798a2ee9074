"""What KSM would save, as rich renderables and as a dictionary: an answer in, text out."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ksmtrace.amounts import UNKNOWN, count, seconds, size
from ksmtrace.inspect.estimate.answer import Answer
from ksmtrace.inspect.estimate.cost import Cost
from ksmtrace.inspect.estimate.sample import Tally
from ksmtrace.inspect.estimate.savings import ProcessSavings, RegionSavings, Savings
from ksmtrace.views.text import name, named_table

_MOST = 12
_LEFT_OUT = (
    ("absent", "never touched: nothing to merge"),
    ("swapped", "in swap: left there, and not counted"),
    ("file", "of files, not written by the process: never merged"),
    ("barred", "in regions that KSM passes over (see ksmtrace why)"),
    ("unregistered", "in regions that nobody registered"),
    ("watched", "in regions with userfaultfd: not touched"),
    ("kernel_zero", "mapped to the kernel's zero page already"),
    ("unread", "could not be read"),
    ("late", "not reached: see the notes"),
)


def render_estimate(answer: Answer, *, regions: bool = False) -> RenderableType:
    """What `ksmtrace estimate` prints; fits 80 columns. regions: a table of them, too."""
    parts: list[RenderableType] = [_head(answer), _left_out(answer)]
    if len(answer.savings.processes) > 1:
        parts.append(_processes(answer.savings))
    if regions:
        parts.append(_regions(answer.savings))
    parts += [Text(f"note: {note}", style="yellow") for note in answer.notes]
    return Group(*parts)


def _pages(pages: float, page_bytes: int) -> str:
    return f"{count(pages)} pages, {size(pages * page_bytes)}"


def _head(answer: Answer) -> RenderableType:
    savings, page = answer.savings, answer.savings.terms.page_bytes
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column()
    add = lines.add_row
    processes = sum(1 for p in savings.processes if p.pages or p.process.trouble is None)
    add(
        "looked at",
        f"{_pages(savings.candidates, page)} of {processes:,}"
        f" process{'' if processes == 1 else 'es'}, in {seconds(answer.seconds)}"
        f" ({answer.bytes_per_second / 1e9:.1f} GB/s)",
    )
    share = savings.saved / savings.candidates if savings.candidates else 0
    add("would save", Text(f"{_pages(savings.saved, page)} ({share:.1%} of it)", style="green"))
    if savings.high > savings.low:
        low, high = size(savings.low * page), size(savings.high * page)
        add("", f"95 % sure: {low} to {high} (contents were sampled)")
    add("  within", f"{_pages(savings.within, page)}: each process merged with itself only")
    add("  across", _pages(savings.across, page))
    zero = savings.zero + savings.placed_zero
    how = "onto the zero page" if savings.terms.use_zero_pages else "use_zero_pages=0"
    add("zero-filled", f"{_pages(zero, page)} ({how})")
    if savings.split_off:
        words = "of them are in huge pages: freed when ksmd splits those, not counted as saved"
        add("", f"{count(savings.split_off)} {words}")
    if answer.merged_now is not None:
        add("merged now", f"{count(answer.merged_now)} pages of these processes")
    if savings.freed is None:
        add("frees", f"{UNKNOWN} (frames are hidden; run with sudo)")
    else:
        add(
            "frees",
            f"{size(savings.freed * page)} more: what fork or KSM shares already frees nothing",
        )
    add("rmap_items", f"{size(savings.rmap_bytes)}: what keeping account of every page costs")
    profit = savings.net_profit_bytes
    style = "" if profit is None else "green" if profit > 0 else "red"
    add("net profit", Text(size(profit), style=style))
    changed = count(savings.changed) if answer.interval else UNKNOWN
    add(
        "changing",
        f"{changed} pages were written within {seconds(answer.interval)}: not counted as saved"
        if answer.interval
        else "not known: memory was read once (--once)",
    )
    add("time", _time(answer.cost))
    return Group(lines, "")


def _time(cost: Cost) -> str:
    pace = cost.pace
    at = f"pages_to_scan={pace.pages_to_scan}, sleep_millisecs={pace.sleep_millisecs}"
    if cost.seconds is None:
        return f"never, at {at}"
    percent = UNKNOWN if cost.cpu_percent is None else f"{cost.cpu_percent:.0f} %"
    if cost.cpu_percent is not None and cost.cpu_percent < 1:
        percent = "below 1 %"
    return (
        f"{seconds(cost.seconds)} and {seconds(cost.cpu_seconds)} of ksmd's CPU until merged,"
        f" at {at};\nthen {percent} of one core for ever (by {cost.engine})"
    )


def _left_out(answer: Answer) -> RenderableType:
    table = named_table("not looked at", collapse_padding=True)
    table.add_column("pages", justify="right")
    table.add_column("")
    table.add_column("size", justify="right")
    page = answer.savings.terms.page_bytes
    for kind, words in _LEFT_OUT:
        pages = getattr(answer.tally, kind)
        if pages and kind != "absent":
            table.add_row(count(pages), words, size(pages * page))
    return Group(table, "") if table.row_count else Text()


def _processes(savings: Savings) -> RenderableType:
    table = named_table("processes", collapse_padding=True)
    for title in ("process", "name"):
        table.add_column(title, no_wrap=True, max_width=20)
    for title in ("looked at", "saved", "alone", "zero", "changing"):
        table.add_column(title, justify="right", no_wrap=True)
    page = savings.terms.page_bytes
    read = [p for p in savings.processes if p.pages or p.process.trouble is None]
    for process in _most(read):
        identity = process.process.identity
        table.add_row(
            str(identity.tgid),
            name(identity.vm or identity.comm),
            size(process.pages * page),
            size(process.saved * page),
            size(process.alone * page),
            size(process.zero * page),
            count(process.changed),
        )
    if len(read) > _MOST:
        table.add_row("…", "--json has all")
    return Group(table, "")


def _most(processes: list[ProcessSavings]) -> list[ProcessSavings]:
    return sorted(processes, key=lambda process: -process.saved)[:_MOST]


def _regions(savings: Savings) -> RenderableType:
    table = named_table("regions", collapse_padding=True)
    for title in ("process", "region", "name"):
        table.add_column(title, no_wrap=True, max_width=26)
    for title in ("looked at", "saved", "changing"):
        table.add_column(title, justify="right", no_wrap=True)
    page = savings.terms.page_bytes
    found: list[tuple[int, RegionSavings]] = [
        (process.process.identity.tgid, region)
        for process in savings.processes
        for region in process.regions
        if region.pages
    ]
    found.sort(key=lambda pair: -pair[1].saved)
    for tgid, region in found[: 2 * _MOST]:
        table.add_row(
            str(tgid), f"{region.region.start:x}", name(region.region.name or "[anonymous]"),
            size(region.pages * page), size(region.saved * page), count(region.changed),
        )  # fmt: skip
    if len(found) > 2 * _MOST:
        table.add_row("…", "--json has all")
    return Group(table, "")


def estimate_as_dict(answer: Answer) -> dict[str, Any]:
    """What `ksmtrace estimate --json` prints: stable names, units in them."""
    savings, cost = answer.savings, answer.cost
    page = savings.terms.page_bytes
    return {
        "pages_saved": round(savings.saved),
        "pages_saved_low": round(savings.low),
        "pages_saved_high": round(savings.high),
        "bytes_saved": round(savings.bytes_saved),
        "bytes_freed": None if savings.freed is None else round(savings.freed * page),
        "pages_saved_within_processes": round(savings.within),
        "pages_saved_across_processes": round(savings.across),
        "pages_merged_now": answer.merged_now,
        "ksm_pages": round(savings.ksm_pages),
        "zero_pages": savings.zero + savings.placed_zero,
        "zero_pages_split_off": savings.split_off,
        "rmap_items_bytes": savings.rmap_bytes,
        "net_profit_bytes": None
        if savings.net_profit_bytes is None
        else round(savings.net_profit_bytes),
        "candidate_pages": savings.candidates,
        "pages_changed": round(savings.changed) if answer.interval else None,
        "pages": _tally(answer.tally),
        "sampled_fraction": answer.fraction,
        "interval_s": answer.interval or None,
        "read_bytes": answer.bytes_read,
        "read_s": answer.seconds,
        "page_bytes": page,
        "terms": {
            "use_zero_pages": savings.terms.use_zero_pages,
            "max_page_sharing": savings.terms.max_page_sharing,
            "rmap_item_bytes": savings.terms.rmap_item_bytes,
        },
        "cost": {
            "engine": cost.engine,
            "seconds_until_merged": cost.seconds,
            "full_scan_s": cost.scan_seconds,
            "ksmd_cpu_s": cost.cpu_seconds,
            "ksmd_cpu_percent_of_one_core": cost.cpu_percent,
            "pages_to_scan": cost.pace.pages_to_scan,
            "sleep_millisecs": cost.pace.sleep_millisecs,
            "visit_ns": dict(cost.visit_ns),
        },
        "processes": [_process(process, page) for process in savings.processes],
        "missing": {str(tgid): why for tgid, why in answer.missing.items()},
        "notes": answer.notes,
    }


def _tally(tally: Tally) -> dict[str, int]:
    return dict(vars(tally))


def _process(process: ProcessSavings, page: int) -> dict[str, Any]:
    identity = process.process.identity
    return {
        "tgid": identity.tgid,
        "comm": identity.comm,
        "vm": identity.vm,
        "cgroup": identity.cgroup,
        "candidate_pages": process.pages,
        "pages_saved": round(process.saved),
        "bytes_saved": round(process.saved * page),
        "pages_saved_alone": round(process.alone),
        "pages_changed": round(process.changed),
        "zero_pages": process.zero,
        "ksm_merging_pages": process.process.ksm_merging_pages,
        "pages": _tally(process.tally),
        "trouble": process.process.trouble,
        "regions": [
            {
                "start": region.region.start,
                "end": region.region.end,
                "name": region.region.name,
                "mergeable": region.region.mergeable,
                "barred_by": region.region.bar,
                "candidate_pages": region.pages,
                "pages_saved": round(region.saved),
                "pages_changed": round(region.changed),
                "zero_pages": region.zero,
                "ksm_pages_mapped": region.region.ksm,
                "pages": _tally(region.region.tally),
            }
            for region in process.regions
        ],
    }
