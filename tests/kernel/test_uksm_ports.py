"""The ports of UKSM as their authors tell them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.uksm_ports import PORTS, SOURCES, known_port, port_of

BUILD = "Full kernel build (1+8 CPU's)"
README = [
    ("5.18", 15, "low", "Basic testing"),
    ("5.19", 10, "med", "Used for long-term perf testing"),
    ("6.0", 1, "easy", "Basic testing"),
    ("6.1", 15, "med-complex", BUILD),
    ("6.2", 4, "med", BUILD),
    ("6.3", 8, "med", BUILD),
    ("6.4", 11, "easy", BUILD),
    ("6.5", 2, "easy", BUILD),
    ("6.6", 9, "easy", BUILD),
    ("6.7", 0, "easy", BUILD),
    ("6.8", 20, "med-complex", BUILD),
    ("6.9", 5, "med", BUILD),
    ("6.10", 6, "med", BUILD),
    ("6.11", 2, "easy", BUILD),
    ("6.12", 6, "complex", BUILD),
]


def test_the_ports_are_those_of_the_readmes_table() -> None:
    ports = [(p.first, p.hunks, p.difficulty, p.testing) for p in PORTS if p.source == "B"]
    assert ports == README


def test_what_nobody_tells_is_none_and_not_zero() -> None:
    others = [port for port in PORTS if port.source != "B"]
    assert [(p.hunks, p.difficulty, p.testing) for p in others] == [(None, None, None)] * 3
    assert port_of("6.7.3") is PORTS[-6]
    assert PORTS[-6].hunks == 0


def test_the_first_repository_has_39_patches() -> None:
    counts = [port.patches for port in PORTS if port.source == "A"]
    # 4.0 to 4.7; 4.8 to 4.20 and 5.0 to 5.17.
    assert counts == [8, 13 + 18]
    assert PORTS[0].patches is None


def test_every_source_is_named() -> None:
    assert {port.source for port in PORTS} == set(SOURCES)
    assert all(port.observed for port in PORTS)


@pytest.mark.parametrize(
    ("release", "first"),
    [
        ("4.0", "4.0"), ("4.7.10", "4.0"), ("4.8", "4.8"), ("4.20.17-arch", "4.8"), ("5.17", "4.8"),
        ("5.18.0", "5.18"), ("6.6.30-vendor", "6.6"), ("6.12.99", "6.12"),
        ("6.13", None), ("3.10", None), ("no release", None),
    ],
)  # fmt: skip
def test_a_kernels_port_is_found_by_its_number(release: str, first: str | None) -> None:
    port = port_of(release)
    assert (port and port.first) == first


RELEASED = [(major, minor) for major, last in ((3, 19), (4, 20), (5, 19), (6, 18), (7, 3))
            for minor in range(last + 1)]  # fmt: skip


@given(st.sampled_from(RELEASED), st.integers(0, 400))
def test_every_kernel_from_4_0_to_6_12_has_a_port(release: tuple[int, int], patch: int) -> None:
    port = port_of(f"{release[0]}.{release[1]}.{patch}")
    assert (port is not None) == ((4, 0) <= release <= (6, 12))


def test_a_kernel_without_a_port_is_told_what_there_is() -> None:
    with pytest.raises(KsmtraceError, match=r"Linux 6\.14") as caught:
        known_port("6.14")
    assert caught.value.exit_code == Exit.USAGE
    assert "4.0 to 6.12" in str(caught.value.hint)
