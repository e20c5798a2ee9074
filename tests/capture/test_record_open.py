from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from ksmtrace.capture.choose import Choice, open_first
from ksmtrace.errors import Exit, KsmtraceError, Obstacle


class Fake:
    summary = "a source of these tests"
    fields_unknown = ()

    def __init__(self, name: str, refusal: KsmtraceError | None = None) -> None:
        self.name = name
        self._refusal = refusal

    def check(self) -> list[Obstacle]:
        return []

    @contextmanager
    def open(self, *, ring_bytes: int) -> Iterator[Any]:
        if self._refusal:
            raise self._refusal
        yield self.name


def refused(code: Exit = Exit.HOST_CANNOT) -> KsmtraceError:
    return KsmtraceError("the verifier says no", exit_code=code)


def test_auto_steps_on_when_a_source_is_refused_after_all() -> None:
    fakes: Any = (Fake("core", refused()), Fake("tracefs"))
    said: list[str] = []
    with ExitStack() as stack:
        choice, stream, _ = open_first(stack, Choice(fakes), 1, said.append)
    assert stream == "tracefs"
    assert choice.why == "the best that works here (core: the verifier says no)"
    assert said == [f"backend tracefs: {choice.why}"]


@pytest.mark.parametrize("code", [Exit.HOST_CANNOT, Exit.FAILED])
def test_the_last_refusal_is_told(code: Exit) -> None:
    fakes: Any = (Fake("core", refused(code)),)
    with ExitStack() as stack, pytest.raises(KsmtraceError, match="the verifier says no"):
        open_first(stack, Choice(fakes), 1, print)
