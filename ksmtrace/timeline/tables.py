"""The derived tables: their columns, dtypes, units and meaning, declared once.

`docs/timeline-tables.md` is generated from what stands here, and `frame` makes DataFrames of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

HOW = ("created", "partner", "joined", "inherited", "joined_or_inherited", "zero_page", "before")
"""How a page was merged, in the order of their codes.

created: it became the KSM page itself. partner: the page it became one with. joined: mapped onto a
KSM page that was there. inherited: a fork already shared it. joined_or_inherited: one of the two,
which of them can't be told. zero_page: mapped onto the zero page. before: already merged when the
recording, or what survived of it, began.
"""

END = ("still_merged", "cow_break", "unmapped", "exit", "unmerged", "stale", "unknown")
"""How a merged page's life ended, in the order of their codes.

still_merged: it has not, as far as is known. cow_break: written. unmapped: given up by munmap,
madvise, mremap or the like. exit: with its address space. unmerged: by MADV_UNMERGEABLE, prctl or
run=2. stale: with its KSM page, which ksmd found dead. unknown: it was met again unmerged.
"""

NODE_END = ("alive", "stale", "unmerged", "frame_reused", "unknown")
"""How a KSM page ended. stale: ksmd found it dead. unmerged: with run=2. frame_reused: another KSM
page was made of its frame before ksmd found it dead."""


@dataclass(frozen=True)
class DerivedColumn:
    """A column. dtype: a pandas dtype's name; those with a capital letter can be NA."""

    name: str
    dtype: str
    meaning: str


@dataclass(frozen=True)
class DerivedTable:
    """A derived table."""

    name: str
    meaning: str
    columns: tuple[DerivedColumn, ...]


def _column(name: str, dtype: str, meaning: str) -> DerivedColumn:
    return DerivedColumn(name, dtype, meaning)


_TS = "nanoseconds of CLOCK_MONOTONIC"
_PROCESS = _column("process", "Int32", "row of `processes`; NA: not known")
_MERGED_COUNTS = (
    _column("merges", "int64", "pages mapped onto a KSM page, inherited ones too"),
    _column("inherited", "Int64", "of them shared by a fork already; NA: can't be told"),
    _column("zero_merges", "int64", "pages mapped onto the zero page"),
    _column("failed_merges", "int64", "tries that failed"),
)
_SUMMED = (
    *_MERGED_COUNTS,
    _column("breaks", "int64", "writes to merged pages seen (only with record --cow)"),
    _column("ended", "int64", "merged pages whose life has ended"),
    _column("merged_last", "int64", "pages merged at the end, as far as known"),
    _column("merged_peak", "int64", "most pages merged at once"),
    _column("time_to_50_s", "Float64", "seconds until half of merged_last stood merged; NA: none"),
    _column("time_to_90_s", "Float64", "the same for 90 %"),
    _column("time_to_99_s", "Float64", "the same for 99 %"),
)

TABLES: Mapping[str, DerivedTable] = MappingProxyType(
    {
        table.name: table
        for table in (
            DerivedTable(
                "scans",
                "full scans, also those of which only a part was recorded",
                (
                    _column("scan", "int32", "number in this recording; 0: under way at its start"),
                    _column("seq", "Int64", "the kernel's number, as in full_scans; restarts at 0"),
                    _column("start_ns", "Int64", f"{_TS}; NA: not recorded"),
                    _column("end_ns", "Int64", f"{_TS}; NA: not recorded, or it never ended"),
                    _column("duration_s", "Float64", "seconds from start to end"),
                    _column("items_before", "Int64", "rmap_items at its start"),
                    _column("items_after", "Int64", "rmap_items at its end"),
                    *_MERGED_COUNTS,
                    _column("failed_efault", "int64", "of failed_merges those with EFAULT (-14)"),
                    _column("failed_other", "int64", "those with another errno"),
                    _column("ksm_pages_new", "int64", "KSM pages made"),
                    _column("ksm_pages_dead", "int64", "KSM pages found dead"),
                    _column("breaks", "int64", "writes to merged pages seen (record --cow)"),
                    _column("lost", "int64", "events lost"),
                    _column("pages_saved", "Int64", "pages_sharing + ksm_zero_pages after it"),
                    _column("saved_bytes", "Int64", "the same in bytes"),
                    _column("ksmd_cpu_s", "Float64", "ksmd's CPU seconds since the sample before"),
                    _column("pages_scanned", "Int64", "pages visited; NA: an end lacks a sample"),
                    _column("pages_skipped", "Int64", "the same for those that smart scan skipped"),
                    _column("pages_to_scan", "Int64", "the advisor's decision at its end; NA: no"),
                ),
            ),
            DerivedTable(
                "pages",
                "the life of each merged page: a mapping of a KSM page, or of a zero page that"
                " ksmd placed, in one address space",
                (
                    _PROCESS,
                    _column("tgid", "uint32", "process id; 0: not known"),
                    _column("addr", "uint64", "virtual address; 0: the source does not know it"),
                    _column("region", "Int32", "row of `region_ledger`; NA: not known"),
                    _column("how", "category", "how it was merged: " + ", ".join(HOW)),
                    _column("ksm_page", "Int32", "row of `stable_pages`; NA: a zero page"),
                    _column("merged_ns", "Int64", f"when, {_TS}; NA: before the recording"),
                    _column("scan", "Int32", "the scan in which it was merged; NA: before"),
                    _column("scans_waited", "Int32", "full scans since ksmd could first see it; "
                            "NA: not known, or it had been merged before"),
                    _column("end", "category", "how its life ended: " + ", ".join(END)),
                    _column("ended_after_ns", "Int64", "it was still merged then; NA: not ended"),
                    _column("ended_before_ns", "Int64", "it had ended by then; NA: not ended"),
                    _column("proven", "bool", "`end` is certain; if not it is the latest that can "
                            "have ended it, and it may have ended earlier, unseen"),
                ),
            ),
            DerivedTable(
                "stable_pages",
                "each KSM page; its row number is its id",
                (
                    _column("pfn", "uint64", "its frame, named as in events"),
                    _column("born_ns", "Int64", f"{_TS}; NA: before the recording"),
                    _column("born_scan", "Int32", "the scan it was made in; NA: before"),
                    _column("died_ns", "Int64", "when ksmd found it dead; NA: it has not"),
                    _column("end", "category", "how it ended: " + ", ".join(NODE_END)),
                    _column("merges", "int32", "pages ever mapped onto it"),
                    _column("sharers_peak", "int32", "most at once"),
                    _column("sharers_last", "int32", "at its end or the recording's"),
                    _column("processes", "int32", "address spaces that ever shared it"),
                    _column("in_chain", "boolean", "a chain of equal KSM pages held it; NA: can't "
                            "be told"),
                ),
            ),
            DerivedTable(
                "processes",
                "each address space that ksmd scanned: an exec or a pid used again makes a new row",
                (
                    _column("process", "int32", "its number: the row"),
                    _column("tgid", "uint32", "process id; 0: not known"),
                    _column("comm", "string", "the program's name; NA: not known"),
                    _column("cgroup", "string", "cgroup path"),
                    _column("vm", "string", "a QEMU guest's name"),
                    _column("parent_tgid", "Int64", "who forked it; NA: not known"),
                    _column("entered_ns", "Int64", "when ksmd's list got it; NA: before"),
                    _column("exited_ns", "Int64", "its exit, or its mm was another's; NA: none"),
                    *_SUMMED,
                    _column("ksm_rmap_items", "Int64", "rmap_items at its last sample"),
                    _column("ksm_merging_pages", "Int64", "merged pages at its last sample"),
                    _column("ksm_zero_pages", "Int64", "zero pages at its last sample"),
                    _column("profit_bytes", "Int64", "ksm_process_profit at its last sample"),
                ),
            ),
            DerivedTable(
                "process_history",
                "each address space at the end of each scan in which something of it changed",
                (
                    _PROCESS,
                    _column("scan", "int32", "the scan"),
                    _column("merged", "int64", "pages merged by then, as far as known"),
                    _column("merges", "int64", "pages merged in it"),
                    _column("ended", "int64", "lives that ended in it"),
                    _column("saved_bytes", "int64", "merged pages in bytes"),
                    _column("profit_bytes", "Int64", "ksm_process_profit, sampled since the scan "
                            "before; NA: no sample"),
                ),
            ),
            DerivedTable(
                "region_ledger",
                "each mapping in which pages merged",
                (
                    _PROCESS,
                    _column("tgid", "uint32", "process id"),
                    _column("start", "uint64", "first virtual address, when last seen"),
                    _column("end", "uint64", "virtual address after the last"),
                    _column("name", "string", "[heap], [stack], [anon:...], a file; NA: no name"),
                    _column("pages", "int64", "its size in pages"),
                    *_SUMMED,
                ),
            ),
            DerivedTable(
                "region_history",
                "each mapping at the end of each scan in which something of it changed",
                (
                    _column("region", "int32", "row of `region_ledger`"),
                    _column("scan", "int32", "the scan"),
                    _column("merged", "int64", "pages merged by then, as far as known"),
                    _column("merges", "int64", "pages merged in it"),
                    _column("ended", "int64", "lives that ended in it"),
                    _column("saved_bytes", "int64", "merged pages in bytes"),
                ),
            ),
            DerivedTable(
                "breaks",
                "each write to a merged page that was seen (only with record --cow)",
                (
                    _column("ts_ns", "int64", _TS),
                    _column("scan", "int32", "the scan under way, or the one before"),
                    _PROCESS,
                    _column("tgid", "uint32", "process id; 0: not known"),
                    _column("addr", "uint64", "virtual address of the page"),
                    _column("page", "Int64", "row of `pages`: the life that it ended"),
                    _column("kernel_mode", "bool", "the kernel wrote for the process, as read(2)"),
                    _column("zero_page", "bool", "the page was merged with the zero page"),
                    _column("file", "string", "file whose code wrote; NA: not known"),
                    _column("offset", "UInt64", "of the instruction in that file"),
                    _column("symbol", "string", "the function, where known"),
                ),
            ),
            DerivedTable(
                "advisor",
                "the scan-time advisor's decisions, with what it computed them from",
                (
                    _column("ts_ns", "int64", _TS),
                    _column("scan", "int32", "the scan at whose end it decided"),
                    _column("scan_time_s", "int64", "duration it measured, whole seconds"),
                    _column("cpu_percent", "int64", "ksmd's CPU it measured, of one core"),
                    _column("pages_before", "Int64", "pages_to_scan until then; NA: not known"),
                    _column("pages_to_scan", "int64", "its decision"),
                    _column("target_scan_time_s", "Int64", "advisor_target_scan_time"),
                    _column("max_cpu_percent", "Int64", "advisor_max_cpu"),
                    _column("max_pages_to_scan", "Int64", "advisor_max_pages_to_scan"),
                    _column("computed", "Int64", "pages_to_scan by the formula; NA: the advisor's "
                            "state before is not known"),
                    _column("agrees", "boolean", "the formula computes the same; NA: not computed"),
                ),
            ),
            DerivedTable(
                "accounts",
                "at each sample of the counters: what the events say, what the kernel counts",
                (
                    _column("ts_ns", "int64", _TS),
                    _column("reason", "string", "start, scan, step, interval or end"),
                    _column("scan", "int32", "the scan under way or just ended"),
                    _column("shared_kernel", "Int64", "pages_shared"),
                    _column("shared_least", "int64", "KSM pages that must be in use, by events"),
                    _column("shared_most", "int64", "KSM pages that may be in use, by events"),
                    _column("merged_kernel", "Int64", "pages_shared + pages_sharing"),
                    _column("merged_least", "int64", "pages that must be merged, by events"),
                    _column("merged_most", "int64", "pages that may be merged, by events"),
                    _column("silent", "int64", "of the difference: ends without an event, noticed "
                            "later in the stream"),
                    _column("unnoticed", "int64", "broken or gone, but not yet met by ksmd"),
                    _column("open", "int64", "lives without an end that the kernel no longer "
                            "counts, or never did"),
                    _column("before", "int64", "merged before the recording and never named"),
                    _column("lost", "int64", "events lost until then"),
                    _column("residual", "Int64", "pages that none of this explains: 0 is right; "
                            "NA also where only some processes were recorded (--pid)"),
                    _column("zero_kernel", "Int64", "ksm_zero_pages"),
                    _column("zero_least", "int64", "zero pages that must be placed, by events"),
                    _column("zero_most", "int64", "zero pages that may be placed, by events"),
                    _column("zero_residual", "Int64", "zero pages outside these bounds"),
                ),
            ),
        )
    }
)  # fmt: skip


def frame(name: str, columns: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A DataFrame of a declared table. columns: arrays by name, or a row a mapping.

    Raises KeyError for a column that is missing or not declared.
    """
    import pandas as pd

    declared = TABLES[name].columns
    if not isinstance(columns, Mapping):
        columns = {c.name: [row[c.name] for row in columns] for c in declared}
    if unknown := set(columns) - {c.name for c in declared}:
        raise KeyError(f"{name} has no columns {sorted(unknown)}")
    return pd.DataFrame({c.name: _series(c, columns[c.name]) for c in declared}, copy=False)


def whole(numbers: npt.NDArray[np.float64]) -> pd.arrays.IntegerArray:
    """Whole numbers for a column that can be NA; NaN is NA."""
    import pandas as pd

    unknown = np.isnan(numbers)
    return pd.arrays.IntegerArray(np.where(unknown, 0, numbers).astype(np.int64), unknown)


def _series(column: DerivedColumn, values: Any) -> Any:
    import pandas as pd

    if isinstance(values, pd.api.extensions.ExtensionArray | pd.Categorical):
        return values
    if column.dtype == "category":
        return pd.Categorical(values)
    return (
        pd.array(values, dtype=column.dtype)
        if column.dtype[0].isupper()
        or column.dtype
        in (
            "string",
            "boolean",
        )
        else pd.Series(values, dtype=column.dtype, copy=False)
    )
