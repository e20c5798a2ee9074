"""What a reader of the figures must know beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ksmtrace.inspect.stat.request import StatRequest
from ksmtrace.inspect.stat.result import Comparison, Run
from ksmtrace.kernel.scanning import SCANS_TO_MERGE


def notes(
    request: StatRequest, runs: Sequence[Run], compared: Comparison | None, *, settled: int
) -> Iterator[str]:
    """Sentences, the gravest first. settled: how many runs were preceded by mere waiting."""
    if len(runs) < request.runs:
        yield f"Only {len(runs)} of {request.runs} runs were completed: what follows is of those."
    yield from _few_scans(request, runs)
    if runs and all(not run.known("saved_peak_pages") for run in runs):
        yield (
            "Nothing was saved. Is the memory opted in (madvise, or --merge for a command), and"
            " ksmd on (--run)?"
        )
    if request.command and any(run.known("saved_first_pages") for run in runs):
        yield (
            "Something was saved already at the start: by others, or counted still of processes"
            " that are gone, until ksmd comes by."
        )
    failed = [run.status for run in runs if run.status]
    if failed:
        one_of = "" if len(runs) == 1 else f" in {len(failed)} of {len(runs)} runs"
        yield f"The command ended with status {failed[0]}{one_of}."
    if settled:
        yield (
            f"Others are registered with KSM, so nothing was unmerged before {settled} of the runs:"
            f" {request.wait_scans} full scans were waited for instead. --unmerge makes runs equal."
        )
    if compared is not None:
        yield from _too_few(request, compared)
    yield from dict.fromkeys(note for run in runs for note in run.notes)


def _few_scans(request: StatRequest, runs: Sequence[Run]) -> Iterator[str]:
    counted = [run.known("full_scans") for run in runs]
    few = [scans for scans in counted if scans is not None and scans < SCANS_TO_MERGE]
    if not few or (request.pid is None and not request.command):
        return
    which = "The run" if len(runs) == 1 else f"{len(few)} of {len(runs)} runs"
    scans = "no full scan" if not max(few) else "one full scan"
    yield (
        f"{which} ended after {scans}: ksmd merges a page when it meets it a second time at the"
        " earliest. Let it last longer, or let ksmd scan faster (--set pages_to_scan=...)."
    )


def _too_few(request: StatRequest, compared: Comparison) -> Iterator[str]:
    if compared.repeats_needed <= request.repeats:
        return
    several = compared.judged > 1
    figures = f"{compared.judged} figures" if several else "one figure"
    hint = ", or judge one by --metric" if several else ""
    yield (
        f"With --repeat {request.repeats} nothing can be shown to be real: for {figures} it takes"
        f" --repeat {compared.repeats_needed} at least{hint}."
    )
