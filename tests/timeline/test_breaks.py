from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batches import (
    Row,
    batch_of,
    borders,
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    scan_starts,
    scan_stops,
    split,
)
from support.recordings import host_sample, make_recording
from support.timelines import timeline_in_memory

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    COW_BREAK,
    INTO_EXISTING,
    KERNEL_MODE,
    KSM_ENTER,
    KSM_EXIT,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    KSM_REMOVE_RMAP_ITEM,
    LEFT_DISCARD,
    LEFT_MREMAP,
    LEFT_PRCTL,
    LEFT_UNMERGEABLE,
    RANGE_LEFT,
    UNCHECKED,
    VIA_FORK,
    WHOLE_ADDRESS_SPACE,
    ZERO_PAGE,
)
from ksmtrace.recording.reader import StoredRecording
from ksmtrace.timeline.breaks import break_accounts, break_tables, top_writers
from ksmtrace.timeline.build import timeline_of

PAGE = 4096
MM, TGID = 0x700, 7


def samples(*rows: tuple[int, int | None], **columns: list[Any]) -> list[dict[str, Any]]:
    """Samples of the host: when, and cow_ksm."""
    known = {"knob_run": "1", "pages_shared": 0, "pages_sharing": 0, "ksm_zero_pages": 0}
    return [
        host_sample(ts, cow_ksm=cow, full_scans=number, **known)
        | {name: values[number] for name, values in columns.items()}
        for number, (ts, cow) in enumerate(rows)
    ]


def accounts_of(
    batches: Sequence[EventBatch], counters: list[dict[str, Any]], **tables: list[dict[str, Any]]
) -> pd.DataFrame:
    """The accounts of a recording in memory."""
    timeline = timeline_in_memory(batches, tables={"counters": counters, **tables})
    return break_accounts(timeline, batches)


def writers_of(batches: Sequence[EventBatch], **tables: list[dict[str, Any]]) -> pd.DataFrame:
    return top_writers(timeline_in_memory(batches, tables=tables))


def merges(count: int, ts: int = 1, mm: int = MM, tgid: int = TGID, first: int = 0) -> list[Row]:
    """Attachments of `count` pages from page `first` on."""
    return [
        joins_ksm_page(101, ts + n, mm=mm, tgid=tgid, addr=(first + n) * PAGE) for n in range(count)
    ]


def breaks(number: int, ts: int, *, mm: int = MM, tgid: int = TGID, arg: int = 0) -> Row:
    return event(COW_BREAK, ts, mm=mm, tgid=tgid, addr=number * PAGE, item=0x1234, arg=arg)


def leaves(how: int, ts: int, first: int = 0, pages: int = 0, **whose: int) -> Row:
    owner = {"mm": MM, "tgid": TGID, **whose}
    return event(RANGE_LEFT, ts, addr=first * PAGE, arg=pages, err=how, **owner)


def account(
    rows: list[Row], table: list[dict[str, Any]], census: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The account of a recording with one interval."""
    (found,) = accounts_of([batch_of(rows)], table, census=census or []).to_dict("records")
    if not pd.isna(found["cow_ksm"]):
        explained = found["seen"] + found["undone"] + found["unshared"] + found["unseen"]
        assert explained - found["surplus"] == found["cow_ksm"]
    return {str(name): value for name, value in found.items()}


def test_what_was_not_seen_is_what_remains() -> None:
    rows = [breaks(n, 20 + n) for n in range(13)]
    found = account(rows, samples((10, 1000), (99, 1031)))
    assert (found["cow_ksm"], found["seen"], found["unseen"]) == (31, 13, 18)


def test_flags_and_zero_pages_are_counted_apart() -> None:
    rows = [breaks(n, 20, arg=KERNEL_MODE) for n in range(5)]
    rows += [breaks(n, 20, arg=UNCHECKED) for n in range(3)]
    rows += [breaks(n, 20, arg=ZERO_PAGE | KERNEL_MODE) for n in range(11)]
    rows += [event(KSM_MERGE_ONE_PAGE, 15, err=err) for err in [0] * 17 + [-14]]
    table = samples((10, 0), (99, 8), ksm_zero_pages=[0, 4])
    found = account(rows, table)
    assert (found["seen"], found["seen_kernel_mode"], found["unchecked"]) == (8, 5, 3)
    assert (found["zero_merges"], found["zero_seen"], found["zero_left"]) == (17, 11, 2)


def test_each_event_falls_between_two_samples_or_into_none() -> None:
    rows = [breaks(n, ts) for n, ts in enumerate((5, 10, 11, 20, 21, 30, 31))]
    table = accounts_of([batch_of(rows)], samples((10, 0), (20, 2), (30, 5)))
    assert table["seen"].tolist() == [2, 2]
    assert table["unseen"].tolist() == [0, 1]
    assert table["start_ns"].tolist() == [10, 20]


def test_more_seen_than_counted_is_a_surplus_and_not_a_negative_number() -> None:
    found = account([breaks(1, 20), breaks(1, 20), breaks(2, 30)], samples((10, 0), (99, 2)))
    assert (found["unseen"], found["surplus"]) == (0, 1)


def test_a_new_ksm_page_that_is_taken_back_is_a_copy_that_nobody_wrote_for() -> None:
    rows = [
        makes_ksm_page(101, 20, mm=MM, tgid=TGID, addr=PAGE),
        event(KSM_MERGE_WITH_KSM_PAGE, 21, pfn=101, arg=INTO_EXISTING, err=-14),
        makes_ksm_page(103, 30, mm=MM, tgid=TGID, addr=2 * PAGE),
        joins_ksm_page(103, 31, mm=MM, tgid=TGID, addr=3 * PAGE),
    ]
    found = account(rows, samples((10, 0), (99, 1)))
    assert (found["undone"], found["unseen"], found["merges"]) == (1, 0, 2)


def test_clocks_that_differ_between_cpus_part_no_pair_from_its_count() -> None:
    rows = [
        scan_starts(1, 20),
        makes_ksm_page(101, 8, mm=MM, tgid=TGID, addr=PAGE),
        joins_ksm_page(101, 9, mm=MM, tgid=TGID, addr=2 * PAGE),
    ]
    for batches in ([batch_of(rows)], [batch_of(rows[:1]), batch_of(rows[1:])]):
        table = accounts_of(batches, samples((5, 0), (10, 0), (99, 0)))
        assert table["undone"].tolist() == [0, 0]


@pytest.mark.parametrize("missing", [0, 1])
def test_without_a_count_nothing_is_claimed(missing: int) -> None:
    numbers: list[int | None] = [3, 5]
    numbers[missing] = None
    found = account([breaks(1, 20)], samples((10, numbers[0]), (99, numbers[1])))
    assert found["seen"] == 1
    assert pd.isna(found["unseen"])
    assert pd.isna(found["unshared"])


@pytest.mark.parametrize("how", [LEFT_UNMERGEABLE, LEFT_MREMAP, LEFT_PRCTL])
def test_what_lay_merged_in_an_unshared_range_is_no_unseen_copy(how: int) -> None:
    rows = [*merges(31), breaks(3, 40), breaks(29, 41)]
    whole = how == LEFT_PRCTL
    rows.append(leaves(how, 50, 0, WHOLE_ADDRESS_SPACE if whole else 13))
    merged = 29 if whole else 12
    found = account(rows, samples((0, 0), (99, 2 + merged + 5)))
    assert (found["unshared"], found["unseen"]) == (merged, 5)


def test_no_more_is_unshared_than_remains() -> None:
    rows = [*merges(31), leaves(LEFT_UNMERGEABLE, 50, 0, 31)]
    found = account(rows, samples((0, 0), (99, 19)))
    assert (found["unshared"], found["unseen"]) == (19, 0)


def test_what_was_discarded_before_is_not_unshared() -> None:
    rows = [*merges(31), leaves(LEFT_DISCARD, 40, 0, 13), *merges(2, 45, first=5)]
    rows.append(leaves(LEFT_UNMERGEABLE, 50, 0, 31))
    assert account(rows, samples((0, 0), (99, 97)))["unshared"] == 31 - 13 + 2


def test_pages_are_unshared_once() -> None:
    rows = [*merges(31), leaves(LEFT_UNMERGEABLE, 50, 0, 13), leaves(LEFT_UNMERGEABLE, 51, 7, 13)]
    assert account(rows, samples((0, 0), (99, 97)))["unshared"] == 20


def test_a_child_unshares_what_it_inherited() -> None:
    rows = [*merges(31), breaks(0, 40)]
    rows += [forks(50, 0x900, TGID)]
    rows += [breaks(1, 60), breaks(2, 61, mm=0x900, tgid=9)]
    rows += [leaves(LEFT_UNMERGEABLE, 70, 0, 31, mm=0x900, tgid=9)]
    assert account(rows, samples((0, 0), (99, 97)))["unshared"] == 29


def forks(ts: int, mm: int, parent: int) -> Row:
    return event(KSM_ENTER, ts, mm=mm, addr=parent, arg=VIA_FORK)


def test_a_grandchild_unshares_what_is_left_of_its_inheritance() -> None:
    rows = [*merges(31), forks(40, 0x900, TGID), breaks(0, 50, mm=0x900, tgid=9)]
    rows += [leaves(LEFT_DISCARD, 51, 1, 3, mm=0x900, tgid=9), forks(60, 0xB00, 9)]
    rows += [breaks(5, 61, mm=0xB00, tgid=11), breaks(6, 61, mm=0x900, tgid=9)]
    # ksmd meets what the grandchild inherited: that is the same page once more, and no new one.
    rows += merges(13, 62, mm=0xB00, tgid=11, first=7)
    rows += [leaves(LEFT_UNMERGEABLE, 90, 0, 31, mm=0xB00, tgid=11)]
    assert account(rows, samples((0, 0), (99, 97)))["unshared"] == 31 - 1 - 3 - 1


def test_what_ksmd_met_at_a_child_and_found_dead_is_no_longer_inherited() -> None:
    rows = [*merges(31), forks(40, 0x900, TGID), *merges(3, 50, mm=0x900, tgid=9)]
    rows += [event(KSM_REMOVE_RMAP_ITEM, 60 + n, mm=0x900, tgid=9, addr=n * PAGE) for n in range(2)]
    rows += [leaves(LEFT_UNMERGEABLE, 90, 0, 31, mm=0x900, tgid=9)]
    assert account(rows, samples((0, 0), (99, 97)))["unshared"] == 29


def test_a_child_inherits_what_was_merged_before_the_recording() -> None:
    census = [
        {"ts": 5, "reason": "start", "tgid": TGID, "addr": n * PAGE, "pfn": 101} for n in range(17)
    ]
    rows = [
        forks(40, 0x900, TGID),
        leaves(LEFT_PRCTL, 50, 0, WHOLE_ADDRESS_SPACE, mm=0x900, tgid=9),
    ]
    assert account(rows, samples((0, 0), (99, 97)), census)["unshared"] == 17


def test_copies_of_the_zero_page_are_not_counted_where_it_is_unshared() -> None:
    rows = [event(KSM_MERGE_ONE_PAGE, 5 + n, mm=MM, tgid=TGID, addr=n * PAGE) for n in range(11)]
    rows += [*merges(13, 20, first=11), leaves(LEFT_UNMERGEABLE, 50, 0, 24)]
    assert account(rows, samples((0, 0), (99, 97)))["unshared"] == 13


def test_an_address_space_at_a_dead_ones_place_has_nothing_merged() -> None:
    rows = [*merges(31), event(KSM_EXIT, 45, mm=MM, tgid=TGID)]
    rows += [event(KSM_ENTER, 50, mm=MM, tgid=TGID, arg=1)]
    rows += [leaves(LEFT_UNMERGEABLE, 70, 0, 31)]
    assert account(rows, samples((0, 0), (99, 97)))["unshared"] == 0


def test_what_was_merged_before_the_recording_counts() -> None:
    census = [
        {"ts": 5, "reason": "start", "tgid": TGID, "addr": n * PAGE, "pfn": 101} for n in range(17)
    ]
    rows = [breaks(3, 20), leaves(LEFT_UNMERGEABLE, 50, 0, 13)]
    assert account(rows, samples((0, 0), (99, 97)), census)["unshared"] == 12


def test_unmerging_everything_explains_as_much_as_was_merged() -> None:
    table = samples(
        (10, 0), (99, 100), full_scans=[7, 0], pages_shared=[2, 0], pages_sharing=[60, 0]
    )
    found = account([*merges(7, 20), breaks(1, 40)], table)
    assert found["run_2"]
    assert (found["unshared"], found["unseen"]) == (69, 30)


def test_where_children_inherited_nobody_knows_how_much_was_merged() -> None:
    table = samples((10, 0), (99, 100), full_scans=[7, 0])
    assert account([forks(20, 0x900, TGID)], table)["unshared"] == 100


def test_scans_that_begin_again_show_that_everything_was_unmerged() -> None:
    rows = [scan_starts(5, 20), scan_starts(6, 30), scan_starts(0, 40)]
    assert account(rows, samples((10, 0), (99, 0), full_scans=[5, 9]))["run_2"]
    assert not account(rows[:2], samples((10, 0), (99, 0), full_scans=[5, 9]))["run_2"]


def test_a_sample_in_the_midst_of_unmerging_everything_leaves_copies_to_the_next() -> None:
    rows = [scan_starts(0, 5), scan_stops(0, 8), scan_starts(0, 50)]
    table = samples((10, 0), (20, 3), (99, 7), knob_run=["1", "2", "1"], full_scans=[1, 1, 1])
    assert accounts_of([batch_of(rows)], table)["run_2"].tolist() == [True, True]


def test_losses_are_told() -> None:
    assert account([loses(13, 20)], samples((10, 0), (99, 5)))["lost"] == 13


@pytest.mark.parametrize("rows", [[], [(10, 5)]])
def test_without_an_interval_there_is_no_account(rows: list[tuple[int, int | None]]) -> None:
    assert len(accounts_of([batch_of([breaks(1, 5)])], samples(*rows))) == 0


ROWS = st.lists(
    st.one_of(
        st.builds(
            breaks, st.integers(0, 13), st.integers(1, 99), arg=st.sampled_from([0, 1, 2, 3, 4])
        ),
        st.builds(lambda n, ts: merges(1, ts, first=n)[0], st.integers(0, 13), st.integers(1, 99)),
        st.builds(
            leaves,
            st.integers(1, 7),
            st.integers(1, 99),
            st.integers(0, 13),
            st.integers(1, 7),
        ),
        st.builds(loses, st.integers(1, 5), st.integers(1, 99)),
    ),
    max_size=41,
).map(lambda rows: batch_of(sorted(rows, key=lambda row: int(row["ts"]))))


@given(batch=ROWS, places=borders(), counts=st.lists(st.integers(0, 31), min_size=3, max_size=3))
def test_any_split_gives_the_same_tables_and_every_account_closes(
    batch: EventBatch, places: list[int], counts: list[int]
) -> None:
    cow = np.cumsum(counts).tolist()
    table = samples((0, 0), (30, cow[0]), (60, cow[1]), (99, cow[2]))
    whole = accounts_of([batch], table)
    parts = accounts_of(split(batch, places), table)
    pd.testing.assert_frame_equal(whole, parts)
    closed = whole["seen"] + whole["undone"] + whole["unshared"] + whole["unseen"]
    assert (closed - whole["surplus"] == whole["cow_ksm"]).all()
    assert (whole[["unshared", "unseen", "surplus"]] >= 0).all(axis=None)
    pd.testing.assert_frame_equal(writers_of([batch]), writers_of(split(batch, places)))


@pytest.mark.parametrize("only", [None, [TGID]])
def test_of_some_processes_alone_nobody_knows_what_was_not_seen(
    tmp_path: Path, only: list[int] | None
) -> None:
    rows = [host_sample(ts, cow_ksm=ts, full_scans=3, pages_shared=0) for ts in (10, 99)]
    path = make_recording(
        tmp_path / "a.ksm",
        [batch_of([breaks(n, 20) for n in range(13)])],
        tables={"counters": rows},
        facts={"only_pids": only},
    )
    recording = StoredRecording(path)
    totals = break_tables(recording, timeline_of(recording)).totals
    assert (totals["seen"], totals["cow_ksm"]) == (13, 89)
    if only is None:
        assert totals["unseen"] == 76
    else:
        assert pd.isna(totals["unseen"])


def test_writers_come_most_first_with_their_places() -> None:
    rows = [event(COW_BREAK, 20 + n, tgid=7, item=0x1234) for n in range(13)]
    rows += [event(COW_BREAK, 40 + n, tgid=9, item=0x1234, arg=KERNEL_MODE) for n in range(17)]
    rows += [event(COW_BREAK, 5, tgid=7, item=0x9999, arg=ZERO_PAGE)]
    code = [
        {"ts": 1, "tgid": 7, "ip": 0x1234, "file": "/bin/x", "offset": 0x34},
        {"ts": 2, "tgid": 9, "ip": 0x1234, "file": "[kernel]", "offset": 5, "symbol": "copy"},
    ]
    table = writers_of([batch_of(rows)], code=code)
    assert table["tgid"].tolist() == [9, 7, 7]
    assert table["breaks"].tolist() == [17, 13, 1]
    assert table["kernel_mode"].tolist() == [17, 0, 0]
    assert table["zero_page"].tolist() == [0, 0, 1]
    assert table["file"].tolist()[:2] == ["[kernel]", "/bin/x"]
    assert table["offset"].tolist()[:2] == [5, 0x34]
    assert table.loc[2, ["file", "offset", "symbol"]].isna().all()
    assert table.loc[1, ["first_ns", "last_ns"]].tolist() == [20, 32]


def test_without_breaks_there_are_no_writers() -> None:
    for batches in ([], [batch_of([])], [batch_of(merges(3))]):
        table = writers_of(batches)
        assert len(table) == 0
        assert list(table)[:5] == ["tgid", "ip", "file", "offset", "symbol"]
