from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.capture import bcc
from ksmtrace.capture.bcc import nearby_headers, program_text
from ksmtrace.events.registry import TRACEPOINTS

NAMES = tuple(kind.name for kind in TRACEPOINTS)


@given(st.sets(st.sampled_from(NAMES)))
def test_handlers_of_missing_tracepoints_are_dropped_and_no_others(present: set[str]) -> None:
    text = program_text(tuple(present))
    assert set(re.findall(r"^PROGRAM\((\w+)\)$", text, re.MULTILINE)) == present
    assert text.count("{") == text.count("}")


@given(st.sets(st.sampled_from(NAMES)))
def test_what_is_not_a_handler_stays(present: set[str]) -> None:
    every = program_text(NAMES)
    some = program_text(tuple(present))
    gone = every
    for name in set(NAMES) - present:
        gone = re.sub(rf"^PROGRAM\({name}\)\n.*?^}}\n", "", gone, flags=re.MULTILINE | re.DOTALL)
    assert some == gone


def test_the_text_needs_no_header_of_ours() -> None:
    text = program_text(NAMES)
    assert '#include "' not in text
    assert "KIND_LOST" in text
    assert len(re.findall(r"^struct event \{", text, re.MULTILINE)) == 1


def test_the_newest_headers_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bcc, "_MODULES", tmp_path)
    assert nearby_headers() is None
    for release in ("6.9.7-amd64", "6.12.117+deb12-amd64", "5.10.3"):
        (tmp_path / release / "build").mkdir(parents=True)
    (tmp_path / "6.18.2").mkdir()
    (tmp_path / "6.17.0").mkdir()
    (tmp_path / "6.17.0" / "build").symlink_to(tmp_path / "nowhere")
    found = nearby_headers()
    assert found is not None
    assert found.name == "6.12.117+deb12-amd64"


def test_two_header_trees_become_one(tmp_path: Path) -> None:
    for name in ("build/include/a.h", "source/include/b.h", "source/scripts/c", "build/Makefile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "source" / "Makefile").write_text("the second")
    (tmp_path / "joined").mkdir()
    bcc._join(tmp_path / "joined", [tmp_path / "build", tmp_path / "source", tmp_path / "none"])
    found = {
        str(place.relative_to(tmp_path / "joined")): place.read_text()
        for place in (tmp_path / "joined").rglob("*")
        if place.is_file()
    }
    assert found["include/a.h"] == "build/include/a.h"
    assert found["include/b.h"] == "source/include/b.h"
    assert found["Makefile"] == "build/Makefile"
    assert (tmp_path / "joined" / "scripts" / "c").read_text() == "source/scripts/c"
