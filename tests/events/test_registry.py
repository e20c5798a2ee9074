from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import ksmtrace
from ksmtrace.events import registry
from ksmtrace.events.c_header import c_header
from ksmtrace.events.registry import BY_ID, KINDS, SLOTS, EventKind, role_of

EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def test_ids_and_names_are_unique_and_no_id_is_zero() -> None:
    assert max(Counter(kind.id for kind in KINDS).values()) == 1
    assert max(Counter(kind.name for kind in KINDS).values()) == 1
    assert min(kind.id for kind in KINDS) == 1
    assert len(BY_ID) == len({kind.name for kind in KINDS}) == len(KINDS)


@EVERY_KIND
def test_every_field_sits_in_a_slot_that_exists(kind: EventKind) -> None:
    assert {field.slot for field in kind.fields.values()} <= {slot.name for slot in SLOTS}


@EVERY_KIND
def test_no_field_takes_the_place_of_time_kind_or_cpu(kind: EventKind) -> None:
    assert not {field.slot for field in kind.fields.values()} & {"ts", "kind", "cpu"}


@EVERY_KIND
def test_fields_that_share_a_slot_share_its_role(kind: EventKind) -> None:
    roles: dict[str, set[str]] = {}
    for field in kind.fields.values():
        roles.setdefault(field.slot, set()).add(field.role)
    assert all(len(found) == 1 for found in roles.values())


@EVERY_KIND
def test_only_addresses_and_frames_of_the_kernel_are_pointers(kind: EventKind) -> None:
    pointers = {field.slot for field in kind.fields.values() if field.role == "pointer"}
    assert pointers <= {"pfn", "item", "mm"}


@EVERY_KIND
def test_a_role_is_told_for_used_slots_alone(kind: EventKind) -> None:
    used = {"ts", "kind", "cpu", *(field.slot for field in kind.fields.values())}
    assert {slot.name for slot in SLOTS if role_of(kind, slot.name) is not None} == used


def test_all_nine_tracepoints_of_the_kernel_are_known() -> None:
    assert {kind.name for kind in registry.TRACEPOINTS} == {
        "ksm_enter",
        "ksm_exit",
        "ksm_start_scan",
        "ksm_stop_scan",
        "ksm_merge_one_page",
        "ksm_merge_with_ksm_page",
        "ksm_remove_rmap_item",
        "ksm_remove_ksm_page",
        "ksm_advisor",
    }
    assert all(kind.since for kind in registry.TRACEPOINTS)
    assert registry.LOST.since is None


def test_the_header_on_disk_is_the_one_the_registry_gives() -> None:
    stored = Path(ksmtrace.__file__).parent / "bpf" / "event.h"
    assert stored.read_text() == c_header()


def test_flags_and_mapcount_do_not_overlap() -> None:
    assert registry.INTO_EXISTING & registry.FIRST_SIGHT == 0
    assert (registry.INTO_EXISTING | registry.FIRST_SIGHT) < 1 << registry.MAPCOUNT_SHIFT
