from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.foreign_texts import header, lines_of, printable_events, text_of

from ksmtrace.errors import KsmtraceError
from ksmtrace.events.registry import KSM_REMOVE_KSM_PAGE, LOST
from ksmtrace.replay.foreign.detect import detect, refuse_binary
from ksmtrace.replay.foreign.formats import FORMATS

SAMPLES = Path(__file__).parent / "samples"


def name_of(sample: bytes) -> str | None:
    found = detect(sample)
    return found.name if found else None


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("perf.txt", "perf"),
        ("trace-cmd.txt", "trace-cmd"),
        ("trace-cmd-dropped.txt", "trace-cmd"),
        ("tracefs.txt", "tracefs"),
        ("tracefs-raw-pointers.txt", "tracefs"),
        ("tracefs-overwritten.txt", "tracefs"),
        ("trace-pipe.txt", "tracefs"),
    ],
)
def test_what_the_real_tools_print_is_recognised(name: str, form: str) -> None:
    text = (SAMPLES / name).read_bytes()
    assert name_of(text) == form
    # What is left of it after `grep ksm_`, too.
    lines = text.splitlines(keepends=True)
    assert name_of(b"".join(line for line in lines if b": " in line and b"#" not in line)) == form


@given(printable_events(), st.sampled_from(sorted(FORMATS)))
def test_every_text_with_a_header_or_a_pointer_is_recognised(batch: object, form: str) -> None:
    assert name_of(text_of(batch, form)) == form  # type: ignore[arg-type]
    events = batch[batch["kind"] != LOST.id]  # type: ignore[index]
    events = events[events["kind"] != KSM_REMOVE_KSM_PAGE.id]
    if (events["mm"] != 0).any():
        assert name_of(b"".join(lines_of(events[events["mm"] != 0], form))) == form


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_header_alone_is_recognised(form: str) -> None:
    assert name_of(header(form, 0)) == form


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n\n",
        b"# a comment\n",
        b"the quick brown fox: jumps\n" * 31,
        b"Nov 22 14:06:08 host kernel: [12345.678901] ksm: something\n",
        b"[12345.678901] ksm: something\n",
        b'{"a": 1}\n',
        b"1,2,3\n",
        b'10:20:30.123456 openat(AT_FDCWD, "x") = 3\n',
    ],
)
def test_other_texts_are_none(text: bytes) -> None:
    assert name_of(text) is None


@given(st.binary(max_size=199))
def test_random_bytes_never_raise(some: bytes) -> None:
    detect(some + b"\n")


@pytest.mark.parametrize(
    ("start", "hint"),
    [
        (b"PERFILE2h\0\0\0\0\0\0\0", "perf script -i x.data"),
        (b"\x17\x08Dtracing6\0", "trace-cmd report x.data"),
        (b"\x1f\x8b\x08", "zcat x.data | ksmtrace import -"),
        (b"PAR1", "ksmtrace report"),
    ],
)
def test_a_binary_file_is_refused_with_what_to_type(start: bytes, hint: str) -> None:
    with pytest.raises(KsmtraceError) as caught:
        refuse_binary(start, "x.data")
    assert caught.value.exit_code == 4
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_a_text_is_not_refused() -> None:
    refuse_binary(b"# tracer: nop\n", "x")
    refuse_binary(b"", "x")
