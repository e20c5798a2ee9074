"""Who an address space is, where a process id is used again."""

from __future__ import annotations

from typing import Any

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.events.registry import KSM_ENTER, KSM_EXIT, VIA_EXEC, VIA_SELF
from ksmtrace.timeline.build import Timeline
from tests.support.batches import Row, batch_of, event, joins_ksm_page, makes_ksm_page
from tests.support.recordings import BEGIN, SECOND
from tests.support.timelines import timeline_in_memory

TGID = 70
PAGES = (0x1000, 0x2000)


def merges(mm: int, ts: int) -> list[Row]:
    """One address space's two pages become one KSM page."""
    return [
        makes_ksm_page(100 + mm, ts, item=2 * mm, mm=mm, tgid=TGID, addr=PAGES[0]),
        joins_ksm_page(100 + mm, ts + 1, item=2 * mm + 1, mm=mm, tgid=TGID, addr=PAGES[1]),
    ]


def lives(mm: int, begin: int, end: int | None, via: int = VIA_SELF) -> list[Row]:
    """An address space enters, has its pages merged, and exits (or not yet)."""
    rows = [event(KSM_ENTER, begin, mm=mm, tgid=TGID, arg=via), *merges(mm, begin + 1000)]
    return rows + ([] if end is None else [event(KSM_EXIT, end, mm=mm, tgid=TGID)])


def looked_up(what: str, ts: int, comm: str | None, parent: int = 1) -> Row:
    """A row of the identities."""
    return {"ts": ts, "what": what, "tgid": TGID, "comm": comm, "parent_tgid": parent,
            "cgroup": None if comm is None else f"/{comm}"}  # fmt: skip


def timeline_of_rows(rows: list[Row], identities: list[Row]) -> Timeline:
    return timeline_in_memory([batch_of(rows)], tables={"identities": identities})


def told(processes: pd.DataFrame) -> list[tuple[Any, ...]]:
    """What tells the processes apart."""
    columns = ["tgid", "comm", "cgroup", "merges", "merged_last"]
    return [tuple(row) for row in processes[columns].itertuples(index=False)]


@given(
    names=st.lists(st.sampled_from(["bash", "job", "vm"]), min_size=2, max_size=5),
    gap=st.sampled_from([1_000_000, SECOND // 7, 3 * SECOND]),
    reuses_mm=st.booleans(),
)
def test_short_lived_processes_of_one_pid_are_rows_of_their_own(
    names: list[str], gap: int, *, reuses_mm: bool
) -> None:
    rows: list[Row] = []
    identities: list[Row] = []
    for number, name in enumerate(names):
        begin = BEGIN + number * (gap + 100_000)
        rows += lives(7 if reuses_mm else 7 + number, begin, begin + 50_000)
        identities += [
            looked_up("enter", begin + 20_000, name),
            looked_up("exit", begin + 50_000, name),
        ]
    timeline = timeline_of_rows(rows, identities)
    assert told(timeline.processes) == [(TGID, name, f"/{name}", 2, 0) for name in names]
    assert timeline.pages["process"].tolist() == [n for n in range(len(names)) for _ in PAGES]
    assert (timeline.pages["end"] == "exit").all()
    assert timeline.stable_pages["processes"].tolist() == [1] * len(names)


def test_an_exec_begins_a_row_with_the_new_name() -> None:
    rows = lives(7, BEGIN, BEGIN + 2 * SECOND) + lives(8, BEGIN + 3 * SECOND, None, VIA_EXEC)
    identities = [
        looked_up("enter", BEGIN + SECOND, "shell"),
        looked_up("exec", BEGIN + 2 * SECOND, "shell"),
        looked_up("enter", BEGIN + 4 * SECOND, "job"),
    ]
    assert told(timeline_of_rows(rows, identities).processes) == [
        (TGID, "shell", "/shell", 2, 0),
        (TGID, "job", "/job", 2, 2),
    ]
