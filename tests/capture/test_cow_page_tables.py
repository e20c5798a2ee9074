from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import pytest

from ksmtrace.capture import cow
from ksmtrace.capture.libbpf import BpfObject
from ksmtrace.errors import Exit, KsmtraceError

ANONYMOUS = 0x1001


class Loaded:
    """BPF programs that find the page tables at the so many-th try."""

    def __init__(self, refusals: int) -> None:
        self.tries = 0
        self._refusals = refusals

    def run_raw(self, _name: str, _arguments: Sequence[int]) -> None:
        self.tries += 1

    def read_words(self, _name: str, _words: int) -> tuple[int, ...]:
        levels = 4 if self.tries > self._refusals else 0
        return (0, 0, 0, levels, 20, ANONYMOUS)


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def sampled() -> Iterator[tuple[int, int, int]]:
        yield 1, 2, 3

    monkeypatch.setattr(cow, "_sample_pages", sampled)
    monkeypatch.setattr(cow, "_pfn", lambda address: address * 10)
    monkeypatch.setattr(cow, "_PAUSE", 0)


@pytest.mark.parametrize("refusals", [0, 1, 7])
def test_a_kernel_that_is_busy_is_asked_again(refusals: int) -> None:
    loaded = Loaded(refusals)
    cow.find_page_tables(cast("BpfObject", loaded))
    assert loaded.tries == refusals + 1


def test_page_tables_that_are_never_found_are_an_obstacle() -> None:
    with pytest.raises(KsmtraceError, match="page tables were not found") as caught:
        cow.find_page_tables(cast("BpfObject", Loaded(1000)))
    assert caught.value.exit_code == Exit.HOST_CANNOT
