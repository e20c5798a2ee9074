from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.recording.share_names import Names


def test_equal_names_get_equal_pseudonyms_of_their_kind() -> None:
    names = Names()
    told = [names.of("process", n) for n in ("db", "web", "db")] + [names.of("vm", "db")]
    assert told == ["process-1", "process-2", "process-1", "vm-1"]
    assert names.of("process", "") == ""
    assert names.of_cgroup("/") == "/"
    assert names.of_cgroup("/a/b") == "cgroup-1"


def test_mappings_keep_their_kind() -> None:
    names = Names()
    told = {
        text: names.of_mapping(text)
        for text in ("[heap]", "[stack]", "", "/lib/libc.so.6", "[anon:cache]", "[anon_shmem:x]",
                     "[stack:1234]", "[odd]", "/memfd:guest ram (deleted)")
    }  # fmt: skip
    assert told == {
        "[heap]": "[heap]", "[stack]": "[stack]", "": "", "/lib/libc.so.6": "file-1",
        "[anon:cache]": "[anon:name-1]", "[anon_shmem:x]": "[anon_shmem:name-2]",
        "[stack:1234]": "[stack:name-3]", "[odd]": "file-2",
        "/memfd:guest ram (deleted)": "file-3",
    }  # fmt: skip


def test_sentences_lose_names_and_paths() -> None:
    names = Names()
    names.of("process", "db")
    names.of("process", "db worker")
    assert names.scrub("db worker, db (mdb) at /srv/x/y: /proc is searched") == (
        "process-2, process-1 (mdb) at file-1: /proc is searched"
    )
    assert Names().scrub("no names, 1/2 of it") == "no names, 1/2 of it"


@given(st.lists(st.text(min_size=1, max_size=7), unique=True))
def test_different_names_stay_different(texts: list[str]) -> None:
    names = Names()
    assert len({names.of("file", text) for text in texts}) == len(texts)
