from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batches import (
    Row,
    batch_of,
    borders,
    event,
    joins_ksm_page,
    makes_ksm_page,
    split,
)

from ksmtrace.events.batch import EventBatch, concatenate
from ksmtrace.events.registry import KSM_ENTER, KSM_MERGE_ONE_PAGE, KSM_MERGE_WITH_KSM_PAGE
from ksmtrace.timeline.merges import ClassifiedMerges, MergeClassifier

EFAULT = -14
NOTHING_BEFORE = np.empty(0, np.uint64)
Names = list[set[str]]
MASKS = [field.name for field in fields(ClassifiedMerges) if field.name != "events"]


def classified(
    *batches: EventBatch, first_sight_known: bool = True, preexisting: Any = NOTHING_BEFORE
) -> tuple[list[int], Names]:
    """The pfn of each merge event, and which of the masks hold for it."""
    classifier = MergeClassifier(first_sight_known=first_sight_known, preexisting=preexisting)
    parts = [*(classifier.feed(batch) for batch in batches), classifier.finish()]
    names: Names = []
    pfns: list[int] = []
    for part in parts:
        pfns += part.events["pfn"].tolist()
        columns = {name: getattr(part, name).tolist() for name in MASKS}
        assert all(len(column) == len(part.events) for column in columns.values())
        names += [{n for n in MASKS if columns[n][row]} for row in range(len(part.events))]
    return pfns, names


def names_of(rows: list[Row], **options: Any) -> Names:
    return classified(batch_of(rows), **options)[1]


CREATED, STOOD, FAILED = {"stood", "created"}, {"stood"}, {"failed"}
INHERITED, UNTOLD = {"stood", "inherited"}, {"stood", "untold"}


def test_a_new_ksm_page_is_two_merges_one_of_which_creates_it() -> None:
    assert names_of([makes_ksm_page(7), joins_ksm_page(7, mapcount=2)]) == [CREATED, STOOD]


def test_a_first_half_is_undone_where_its_second_fails() -> None:
    rows = [makes_ksm_page(7), joins_ksm_page(7, err=EFAULT)]
    assert names_of(rows) == [{"undone"}, FAILED]


def test_a_failure_on_another_ksm_page_undoes_nothing() -> None:
    rows = [makes_ksm_page(7), joins_ksm_page(11, err=EFAULT)]
    assert names_of(rows) == [CREATED, FAILED]


def test_a_first_half_that_failed_itself_has_no_second() -> None:
    rows = [makes_ksm_page(7, err=EFAULT), joins_ksm_page(7, err=EFAULT), joins_ksm_page(7)]
    assert names_of(rows) == [FAILED, FAILED, STOOD]


def test_only_the_next_merge_can_undo() -> None:
    rows = [makes_ksm_page(7), joins_ksm_page(7, mapcount=2), joins_ksm_page(7, err=EFAULT)]
    assert names_of(rows) == [CREATED, STOOD, FAILED]


def test_events_of_other_kinds_between_the_halves_do_not_part_them() -> None:
    rows = [
        makes_ksm_page(7),
        event(KSM_ENTER),
        event(KSM_MERGE_ONE_PAGE, err=EFAULT),
        joins_ksm_page(7, err=EFAULT),
    ]
    assert names_of(rows) == [{"undone"}, FAILED]


def test_a_first_half_at_the_very_end_counts_as_having_stood() -> None:
    assert names_of([makes_ksm_page(7)]) == [CREATED]


def test_a_first_half_waits_for_the_next_batch() -> None:
    first, second = batch_of([makes_ksm_page(7)]), batch_of([joins_ksm_page(7, err=EFAULT)])
    classifier = MergeClassifier(first_sight_known=True, preexisting=None)
    assert len(classifier.feed(first).events) == 0
    assert len(classifier.feed(batch_of([])).events) == 0
    assert classifier.feed(second).undone.tolist() == [True, False]
    assert len(classifier.finish().events) == 0


def test_a_page_attached_at_first_sight_is_inherited() -> None:
    rows = [joins_ksm_page(7, mapcount=3, first_sight=True), joins_ksm_page(7, mapcount=4)]
    assert names_of(rows) == [INHERITED, STOOD]


def test_first_sight_means_nothing_where_the_source_or_kernel_does_not_say() -> None:
    rows = [
        makes_ksm_page(7),
        joins_ksm_page(7, mapcount=2),
        joins_ksm_page(7, mapcount=3, first_sight=True),
        joins_ksm_page(7, mapcount=4),
    ]
    told = names_of(rows, first_sight_known=False)
    assert told == [CREATED, STOOD, UNTOLD, UNTOLD]


def test_a_failed_attachment_is_neither_inherited_nor_untold() -> None:
    rows = [joins_ksm_page(7, first_sight=True, err=EFAULT), joins_ksm_page(11, err=EFAULT)]
    for known in (True, False):
        assert names_of(rows, first_sight_known=known, preexisting=None) == [FAILED, FAILED]


def test_attachments_to_ksm_pages_from_before_the_recording_cannot_be_told() -> None:
    rows = [joins_ksm_page(7), joins_ksm_page(11), joins_ksm_page(7, first_sight=True)]
    before = np.array([3, 7], np.uint64)
    assert names_of(rows, preexisting=before) == [UNTOLD, STOOD, INHERITED]
    assert names_of(rows, preexisting=None) == [UNTOLD, UNTOLD, INHERITED]


def test_a_second_half_is_never_inherited() -> None:
    rows = [makes_ksm_page(7), joins_ksm_page(7, mapcount=2, first_sight=True)]
    assert names_of(rows) == [CREATED, STOOD]


def test_further_mappings_of_a_page_that_a_fork_shared_at_its_birth_are_inherited() -> None:
    # Born with five mappings: the pair's two, and three that a fork made before.
    rows = [
        makes_ksm_page(7),
        joins_ksm_page(7, mapcount=5),
        joins_ksm_page(7, mapcount=5),
        joins_ksm_page(7, mapcount=6),
        joins_ksm_page(7, mapcount=6),
    ]
    assert names_of(rows) == [CREATED, STOOD, INHERITED, STOOD, INHERITED]


def test_one_mapping_more_than_the_pair_is_enough_to_be_shared_at_birth() -> None:
    rows = [makes_ksm_page(7), joins_ksm_page(7, mapcount=3), joins_ksm_page(7, mapcount=3)]
    assert names_of(rows) == [CREATED, STOOD, INHERITED]
    rows = [makes_ksm_page(7), joins_ksm_page(7, mapcount=2), joins_ksm_page(7, mapcount=3)]
    assert names_of(rows) == [CREATED, STOOD, STOOD]


def test_a_mapcount_that_jumps_cannot_be_told() -> None:
    rows = [
        makes_ksm_page(7),
        joins_ksm_page(7, mapcount=5),
        joins_ksm_page(7, mapcount=3),
        joins_ksm_page(7, mapcount=4),
        joins_ksm_page(7, mapcount=11),
    ]
    assert names_of(rows) == [CREATED, STOOD, UNTOLD, STOOD, UNTOLD]


def test_a_frame_born_again_without_sharing_is_no_shared_birth_any_more() -> None:
    rows = [
        makes_ksm_page(7),
        joins_ksm_page(7, mapcount=5),
        makes_ksm_page(7),
        joins_ksm_page(7, mapcount=2),
        joins_ksm_page(7, mapcount=2),
    ]
    assert names_of(rows) == [CREATED, STOOD, CREATED, STOOD, STOOD]


def test_a_birth_that_failed_is_no_birth() -> None:
    rows = [
        makes_ksm_page(7),
        joins_ksm_page(7, mapcount=5, err=EFAULT),
        joins_ksm_page(7, mapcount=5),
    ]
    assert names_of(rows) == [{"undone"}, FAILED, STOOD]


PFNS = st.sampled_from([3, 5, 7])
MERGES = st.one_of(
    st.builds(makes_ksm_page, PFNS, err=st.sampled_from([0, 0, 0, EFAULT])),
    st.builds(
        joins_ksm_page,
        PFNS,
        mapcount=st.integers(0, 5),
        first_sight=st.booleans(),
        err=st.sampled_from([0, 0, 0, EFAULT]),
    ),
    st.just(event(KSM_MERGE_ONE_PAGE, err=EFAULT)),
    st.just(event(KSM_ENTER)),
)
STREAMS = st.lists(MERGES, max_size=41).map(batch_of)
BEFORE = st.sampled_from([None, NOTHING_BEFORE, np.array([3, 5], np.uint64)])


@given(STREAMS, borders(), st.booleans(), BEFORE)
def test_any_split_of_a_stream_gives_the_same(
    stream: EventBatch, where: list[int], known: bool, before: Any
) -> None:
    options = {"first_sight_known": known, "preexisting": before}
    assert classified(*split(stream, where), **options) == classified(stream, **options)


@given(STREAMS, borders(), st.booleans(), BEFORE)
def test_every_merge_is_classified_once_in_order_and_without_contradiction(
    stream: EventBatch, where: list[int], known: bool, before: Any
) -> None:
    pfns, names = classified(*split(stream, where), first_sight_known=known, preexisting=before)
    merges = stream[stream["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
    assert pfns == merges["pfn"].tolist()
    for found in names:
        assert len(found & {"stood", "failed", "undone"}) == 1
        assert len(found & {"inherited", "untold", "created"}) <= 1
        assert found & {"inherited", "untold", "created"} <= (
            {"x"} if "stood" not in found else found
        )


@given(STREAMS, BEFORE)
def test_what_stood_is_what_a_walk_by_hand_finds(stream: EventBatch, before: Any) -> None:
    merges = stream[stream["kind"] == KSM_MERGE_WITH_KSM_PAGE.id]
    expected = []
    for number, merge in enumerate(merges):
        stood = merge["err"] == 0
        if stood and not merge["arg"] & 1 and number + 1 < len(merges):
            following = merges[number + 1]
            second = following["arg"] & 1 and following["pfn"] == merge["pfn"]
            stood = not (second and following["err"] < 0)
        expected.append(bool(stood))
    _, names = classified(stream, first_sight_known=True, preexisting=before)
    assert ["stood" in found for found in names] == expected


@given(STREAMS, BEFORE)
def test_nothing_is_inherited_where_first_sight_is_not_known(
    stream: EventBatch, before: Any
) -> None:
    _, names = classified(stream, first_sight_known=False, preexisting=before)
    assert not any("inherited" in found for found in names)


def test_an_empty_stream_has_no_merges() -> None:
    assert classified() == ([], [])
    assert classified(batch_of([])) == ([], [])
    assert len(concatenate([])) == 0


@pytest.mark.parametrize("known", [True, False])
def test_a_classifier_starts_anew_after_its_end(known: bool) -> None:
    classifier = MergeClassifier(first_sight_known=known, preexisting=None)
    classifier.feed(batch_of([makes_ksm_page(7)]))
    assert classifier.finish().created.tolist() == [True]
    assert classifier.feed(batch_of([joins_ksm_page(7, err=EFAULT)])).failed.tolist() == [True]
    assert len(classifier.finish().events) == 0
