from __future__ import annotations

import pytest

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.lab.where import parse_all, parse_where


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
