"""What merge events mean, as the table `pages` tells: which stood, and in what way each merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.events.batch import EventBatch
from ksmtrace.events.registry import (
    INTO_EXISTING,
    KSM_ENTER,
    KSM_MERGE_ONE_PAGE,
    KSM_MERGE_WITH_KSM_PAGE,
    VIA_SELF,
)
from ksmtrace.timeline.build import Timeline
from tests.support.batches import (
    Row,
    batch_of,
    borders,
    event,
    joins_ksm_page,
    loses,
    makes_ksm_page,
    split,
)
from tests.support.timelines import timeline_in_memory

EFAULT = -14
PAGE = 4096
TELLS, TELLS_NOT = "6.18.2", "6.10.3"
"""Releases by which inheritance can be told, and can't."""


def stream_of_rows(rows: Sequence[Row]) -> EventBatch:
    """A stream in which each event is about a page of its own; of one process if not told."""
    whose = {"mm": 0x11, "tgid": 11}
    return batch_of([{**whose, **r, "ts": n, "addr": n * PAGE} for n, r in enumerate(rows, 1)])


def timeline_of_rows(rows: Sequence[Row], kernel: str = TELLS) -> Timeline:
    return timeline_in_memory([stream_of_rows(rows)], facts={"kernel": kernel})


def ways(rows: Sequence[Row], kernel: str = TELLS) -> dict[int, str]:
    """How each event that stood merged its page, by the event's number from 1."""
    pages = timeline_of_rows(rows, kernel).pages
    return dict(zip((pages["addr"] // PAGE).tolist(), pages["how"].tolist(), strict=True))


def failures(rows: Sequence[Row], kernel: str = TELLS) -> int:
    return int(timeline_of_rows(rows, kernel).processes["failed_merges"].sum())


BORN = [makes_ksm_page(7), joins_ksm_page(7, mapcount=2)]
SHARED = [makes_ksm_page(7), joins_ksm_page(7, mapcount=5)]
"""Born with five mappings: the pair's two, and three that a fork made before."""
OTHER = {"mm": 0x13, "tgid": 13}
EITHER = "joined_or_inherited"
UNDONE = [makes_ksm_page(7), joins_ksm_page(7, err=EFAULT)]


def test_a_new_ksm_page_is_two_merges_one_of_which_creates_it() -> None:
    assert ways(BORN) == {1: "created", 2: "partner"}
    assert timeline_of_rows(BORN).stable_pages["pfn"].tolist() == [7]


def test_a_first_half_is_undone_where_its_second_fails() -> None:
    assert ways(UNDONE) == {}
    assert failures(UNDONE) == 1
    assert len(timeline_of_rows(UNDONE).stable_pages) == 0


def test_a_failure_on_another_ksm_page_undoes_nothing() -> None:
    rows = [makes_ksm_page(7), joins_ksm_page(11, err=EFAULT)]
    assert ways(rows) == {1: "created"}
    assert failures(rows) == 1


def test_a_first_half_that_failed_itself_has_no_second() -> None:
    rows = [makes_ksm_page(7, err=EFAULT), joins_ksm_page(7, err=EFAULT), joins_ksm_page(7)]
    assert ways(rows).keys() == {3}
    assert failures(rows) == 2


def test_only_the_next_merge_can_undo() -> None:
    assert ways([*BORN, joins_ksm_page(7, err=EFAULT)]) == {1: "created", 2: "partner"}


def test_events_of_other_kinds_between_the_halves_do_not_part_them() -> None:
    between = [event(KSM_ENTER, arg=VIA_SELF), event(KSM_MERGE_ONE_PAGE, err=EFAULT)]
    rows = [makes_ksm_page(7), *between, joins_ksm_page(7, err=EFAULT)]
    assert ways(rows) == {}
    assert failures(rows) == 2


def test_a_second_half_that_may_have_been_lost_undoes_nothing() -> None:
    rows = [makes_ksm_page(7), loses(3), joins_ksm_page(7, err=EFAULT)]
    assert ways(rows) == {1: "created"}


def test_a_first_half_at_the_very_end_counts_as_having_stood() -> None:
    assert ways([makes_ksm_page(7)]) == {1: "created"}


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_no_end_of_a_chunk_comes_between_the_halves(chunk: int) -> None:
    rows = [*UNDONE, event(KSM_MERGE_ONE_PAGE), *BORN, *UNDONE]
    timeline = timeline_in_memory([stream_of_rows(rows)], chunk=chunk)
    assert timeline.pages["how"].tolist() == ["zero_page", "created", "partner"]


def test_a_page_attached_at_first_sight_is_inherited() -> None:
    rows = [*BORN, joins_ksm_page(7, mapcount=3, first_sight=True), joins_ksm_page(7, mapcount=4)]
    assert ways(rows) == {1: "created", 2: "partner", 3: "inherited", 4: "joined"}


def test_first_sight_means_nothing_where_the_kernel_does_not_compare_checksums_first() -> None:
    rows = [*BORN, joins_ksm_page(7, mapcount=3, first_sight=True), joins_ksm_page(7, mapcount=4)]
    assert ways(rows, TELLS_NOT) == {1: "created", 2: "partner", 3: EITHER, 4: EITHER}


@pytest.mark.parametrize("kernel", [TELLS, TELLS_NOT])
def test_a_failed_attachment_merges_nothing(kernel: str) -> None:
    rows = [joins_ksm_page(7, first_sight=True, err=EFAULT), joins_ksm_page(11, err=EFAULT)]
    assert ways(rows, kernel) == {}
    assert failures(rows, kernel) == 2


def test_attachments_to_ksm_pages_from_before_the_recording_cannot_be_told() -> None:
    rows = [*BORN, joins_ksm_page(11), joins_ksm_page(11, first_sight=True)]
    assert ways(rows) | {1: "", 2: ""} == {1: "", 2: "", 3: EITHER, 4: "inherited"}


def test_a_second_half_is_never_inherited() -> None:
    rows = [makes_ksm_page(7), joins_ksm_page(7, mapcount=2, first_sight=True)]
    assert ways(rows)[2] == "partner"


@pytest.mark.parametrize("mapcount", [3, 4, 5, 6, 11])
def test_where_a_fork_shared_a_page_at_its_birth_no_mapcount_tells_who_joined(
    mapcount: int,
) -> None:
    # One more than before may be another fork's, an equal one this merge's while another went.
    rows = [*SHARED, joins_ksm_page(7, mapcount=mapcount, **OTHER)]
    assert ways(rows) == {1: "created", 2: "partner", 3: EITHER}


@pytest.mark.parametrize(("mapcount", "how"), [(2, "joined"), (3, EITHER), (0, EITHER)])
def test_a_page_was_shared_at_birth_unless_the_pair_was_known_to_be_all(
    mapcount: int, how: str
) -> None:
    born = [makes_ksm_page(7), joins_ksm_page(7, mapcount=mapcount)]
    assert ways([*born, joins_ksm_page(7, mapcount=3, **OTHER)])[3] == how


def test_whether_a_page_was_shared_at_birth_is_lost_with_its_second_half() -> None:
    rows = [makes_ksm_page(7), loses(1), joins_ksm_page(7, mapcount=3, **OTHER)]
    assert ways(rows) == {1: "created", 3: EITHER}


def test_no_process_has_a_frame_twice_so_the_makers_other_pages_join() -> None:
    rows = [*SHARED, joins_ksm_page(7, mapcount=5), joins_ksm_page(7, mapcount=7)]
    assert ways(rows) == {1: "created", 2: "partner", 3: "joined", 4: "joined"}


def test_the_partners_process_may_share_the_makers_frame() -> None:
    born = [makes_ksm_page(7, **OTHER), joins_ksm_page(7, mapcount=3)]
    assert ways([*born, joins_ksm_page(7, mapcount=4)])[3] == EITHER


def test_who_begins_after_a_birth_has_no_share_in_it() -> None:
    enters, joins = event(KSM_ENTER, arg=VIA_SELF, **OTHER), joins_ksm_page(7, mapcount=6, **OTHER)
    assert ways([*SHARED, enters, joins])[4] == "joined"
    assert ways([enters, *SHARED, joins])[4] == EITHER


def test_what_is_forked_after_a_birth_is_inherited_at_first_sight_all_the_same() -> None:
    enters = event(KSM_ENTER, arg=VIA_SELF, **OTHER)
    rows = [*SHARED, enters, joins_ksm_page(7, mapcount=6, first_sight=True, **OTHER)]
    assert ways(rows)[4] == "inherited"


def test_a_frame_born_again_without_sharing_is_no_shared_birth_any_more() -> None:
    assert ways([*SHARED, *BORN, joins_ksm_page(7, mapcount=2, **OTHER)])[5] == "joined"


def test_a_birth_that_failed_is_no_birth() -> None:
    rows = [
        makes_ksm_page(7),
        joins_ksm_page(7, mapcount=5, err=EFAULT),
        joins_ksm_page(7, mapcount=5),
    ]
    # So the KSM page must have been there before.
    assert ways(rows) == {3: EITHER}


PFNS = st.sampled_from([3, 5, 7])
ROWS = st.lists(
    st.one_of(
        st.builds(makes_ksm_page, PFNS, err=st.sampled_from([0, 0, 0, EFAULT])),
        st.builds(
            joins_ksm_page,
            PFNS,
            mapcount=st.integers(0, 5),
            first_sight=st.booleans(),
            err=st.sampled_from([0, 0, 0, EFAULT]),
        ),
        st.just(event(KSM_MERGE_ONE_PAGE, err=EFAULT)),
        st.just(event(KSM_ENTER, arg=VIA_SELF)),
    ),
    max_size=41,
)


@given(ROWS, borders(), st.integers(1, 11))
def test_what_stood_is_what_a_walk_by_hand_finds(
    rows: list[Row], where: list[int], chunk: int
) -> None:
    stream = stream_of_rows(rows)
    expected, failed = [], 0
    merges = stream[stream["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
    for number, merge in enumerate(merges):
        stood = merge["err"] == 0
        failed += not stood
        if stood and not merge["arg"] & INTO_EXISTING and number + 1 < len(merges):
            following = merges[number + 1]
            second = following["arg"] & INTO_EXISTING and following["pfn"] == merge["pfn"]
            stood = not (second and following["err"] < 0)
        if stood:
            expected.append(int(merge["addr"]))
    failed += int((stream["kind"] == KSM_MERGE_ONE_PAGE.id).sum())
    timeline = timeline_in_memory(split(stream, where), chunk=chunk)
    assert timeline.pages["addr"].tolist() == expected
    assert timeline.processes["failed_merges"].sum() == failed


@given(ROWS)
def test_nothing_is_told_to_be_inherited_or_joined_where_that_is_not_known(rows: list[Row]) -> None:
    found = Counter(ways(rows, TELLS_NOT).values())
    assert not found["inherited"]
    assert not found["joined"]


def test_lives_end_with_an_address_space_whose_mm_is_anothers_now() -> None:
    rows = [
        event(KSM_ENTER, 1, mm=7, tgid=70, arg=VIA_SELF),
        makes_ksm_page(9, 2, item=1, mm=7, tgid=70, addr=0x1000),
        joins_ksm_page(9, 3, item=2, mm=7, tgid=70, addr=0x2000),
        joins_ksm_page(9, 5, item=3, mm=7, tgid=71, addr=0x1000),
    ]
    told = timeline_in_memory([batch_of(rows)])
    assert told.pages["end"].tolist() == ["exit", "exit", "still_merged"]
    assert told.pages["ended_before_ns"].tolist()[:2] == [4, 4]
    assert told.processes["exited_ns"].tolist()[0] == 4
    assert told.stable_pages["sharers_peak"].tolist() == [2]
