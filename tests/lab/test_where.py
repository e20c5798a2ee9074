from __future__ import annotations

from contextlib import suppress
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.lab.where import UksmModel, parse_all, parse_where
from ksmtrace.model.uksm.quirks import AS_INTENDED, AS_SHIPPED, Quirks


def test_a_virtual_machine_is_a_real_kernel_of_a_series() -> None:
    place = parse_where("vm:6.1")
    assert place.real
    assert place.series == "6.1"
    assert place.profile.version[:2] == (6, 1)


def test_simulate_takes_no_virtual_machine() -> None:
    with pytest.raises(KsmtraceError, match="models only"):
        parse_all(["vm:6.12"], models_only=True)


@pytest.mark.parametrize("word", ["vm", "vm:", "vm:x", "qemu:6.1"])
def test_what_is_no_place_is_refused(word: str) -> None:
    with pytest.raises(KsmtraceError) as caught:
        parse_where(word)
    assert caught.value.exit_code == Exit.USAGE


@pytest.mark.parametrize("governor", ["full", "medium", "low", "quiet"])
def test_a_uksm_has_a_governor_and_is_as_released(governor: str) -> None:
    place = parse_where(f"uksm:{governor}")
    assert place.uksm == UksmModel(governor, AS_SHIPPED)
    assert (place.scanner, place.real) == ("uksm", False)
    assert parse_where("ksm:6.12").scanner == "ksm"


def test_quirks_are_switched_off_by_name() -> None:
    assert parse_where("uksm:low-ghost-freeze").uksm == UksmModel(
        "low", Quirks(ghost=False, freeze=False)
    )
    assert parse_where("uksm:full-quirks").uksm == UksmModel("full", AS_INTENDED)
    every = "-".join(field.name for field in fields(Quirks))
    assert parse_where(f"uksm:full-{every}").uksm == UksmModel("full", AS_INTENDED)


@pytest.mark.parametrize(
    ("word", "named"),
    [("uksm", "uksm:full"), ("uksm:", "uksm:quiet"), ("uksm:max", "uksm:medium"),
     ("uksm:full-x", "ghost"), ("uksm:full-", "uksm:full-quirks"),
     ("uksm:full-ghost-quirks", "dense_entry")],
)  # fmt: skip
def test_an_unknown_governor_or_quirk_is_told_what_there_is(word: str, named: str) -> None:
    with pytest.raises(KsmtraceError) as caught:
        parse_where(word)
    assert caught.value.exit_code == Exit.USAGE
    assert named in str(caught.value.hint)


@given(st.text(st.sampled_from("uksm:full-ghosteczy.1"), max_size=25))
def test_any_word_is_a_place_or_refused(word: str) -> None:
    with suppress(KsmtraceError):
        assert parse_where(word).name == word
