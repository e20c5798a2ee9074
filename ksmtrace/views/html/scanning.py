"""What ksmd did scan by scan, and what its advisor decided."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ksmtrace.amounts import UNKNOWN, count, seconds
from ksmtrace.views.html.markup import Column, Part, joined, paragraph, table
from ksmtrace.views.html.material import Material
from ksmtrace.views.timeline_advisor import agreement_in_words
from ksmtrace.views.timeline_parts import known, known_float, total

_MOST_SCANS = 20
_MOST_DECISIONS = 12


def scans_part(material: Material) -> Part:
    """The section of the full scans."""
    scans, run = material.run.tables.scans, material.run
    if not len(scans):
        return Part("scans", "Scans", paragraph("No full scan was recorded."))
    chosen = _busiest(scans)
    columns = [
        Column("scan", meaning="number in this recording; 0 was under way at its start"),
        Column("began at"),
        Column("took"),
        Column("visited", meaning="pages_scanned: pages that ksmd looked at"),
        Column("skipped", meaning="pages that smart scan passed over"),
        Column("merges"),
        Column("by fork", meaning="of the merges those that a fork had shared already"),
        Column("zero", meaning="pages that came onto the kernel's page of zeroes"),
        Column("failed"),
        Column("new KSM pages"),
        Column("breaks", meaning="writes to merged pages seen (record --cow)"),
        Column("saved after", meaning="pages_sharing + ksm_zero_pages"),
        Column("ksmd's CPU"),
        Column("lost", meaning="events lost"),
    ]
    cow = bool(run.manifest.get("cow"))
    rows = [
        [
            str(row["scan"]),
            run.moment(row["start_ns"]),
            seconds(known_float(row["duration_s"])),
            count(known(row["pages_scanned"])),
            count(known(row["pages_skipped"])),
            count(row["merges"]),
            count(known(row["inherited"])),
            count(row["zero_merges"]),
            count(row["failed_merges"]),
            count(row["ksm_pages_new"]),
            count(row["breaks"]) if cow else UNKNOWN,
            count(known(row["pages_saved"])),
            seconds(known_float(row["ksmd_cpu_s"])),
            count(row["lost"]),
        ]
        for row in scans.iloc[chosen].to_dict("records")
    ]
    few = ""
    if len(chosen) < len(scans):
        few = f", the first, the last and the busiest {count(len(chosen))}"
    told = [table(f"Full scans ({count(len(scans))}{few})", columns, rows)]
    if total(scans["inherited"]) is None:
        told.append(
            paragraph("By fork: – where the recording can't tell it of every merge.", cls="muted")
        )
    return Part("scans", "Scans", joined(told))


def _busiest(scans: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Rows in time's order."""
    if len(scans) <= _MOST_SCANS:
        return np.arange(len(scans))
    work = (scans["merges"] + scans["zero_merges"] + scans["breaks"]).to_numpy(np.int64)
    ends = np.array([0, 1, len(scans) - 2, len(scans) - 1])
    busiest = np.setdiff1d(np.argsort(-work, kind="stable")[:_MOST_SCANS], ends)
    order = np.argsort(-work[busiest], kind="stable")[: _MOST_SCANS - len(ends)]
    return np.sort(np.concatenate((ends, busiest[order]))).astype(np.int64)


def advisor_part(material: Material) -> Part:
    """The section of the scan-time advisor."""
    advisor, run = material.run.tables.advisor, material.run
    what = paragraph(
        "The scan-time advisor (Linux 6.8) sets pages_to_scan after each full scan, so that a scan"
        " takes the time that advisor_target_scan_time asks for."
    )
    if not len(advisor):
        nothing = paragraph("It decided nothing while this was recorded.")
        return Part("advisor", "Advisor", joined([what, nothing]))
    shown = advisor.iloc[-_MOST_DECISIONS:]
    columns = [
        Column("at"),
        Column("scan"),
        Column("scan took", meaning="as the kernel measured it, in whole seconds"),
        Column("ksmd's CPU", meaning="percent of one core, as the kernel measured it"),
        Column("target", meaning="advisor_target_scan_time"),
        Column("pages a batch before"),
        Column("decided"),
        Column("formula", meaning="what the advisor's formula gives from the same numbers"),
    ]
    rows = [
        [
            run.moment(row["ts_ns"]),
            str(row["scan"]),
            f"{count(row['scan_time_s'])} s",
            f"{count(row['cpu_percent'])} %",
            _with(known(row["target_scan_time_s"]), "s"),
            count(known(row["pages_before"])),
            count(row["pages_to_scan"]),
            count(known(row["computed"])),
        ]
        for row in shown.to_dict("records")
    ]
    few = f", the last {count(len(shown))}" if len(shown) < len(advisor) else ""
    return Part(
        "advisor",
        "Advisor",
        joined(
            [
                what,
                paragraph(agreement_in_words(advisor)),
                table(f"Decisions ({count(len(advisor))}{few})", columns, rows),
            ]
        ),
    )


def _with(number: int | None, unit: str) -> str:
    return UNKNOWN if number is None else f"{count(number)} {unit}"
