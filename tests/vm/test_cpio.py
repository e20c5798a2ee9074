"""Archives for a kernel, read back by a reader of our own; a guest that boots has read one too."""

from __future__ import annotations

import io
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.vm.cpio import CpioWriter

NAMES = st.lists(
    st.text("abcdef.-_0123", min_size=1, max_size=9).filter(lambda n: n.strip(".")),
    min_size=1, max_size=4,
).map(lambda parts: "/" + "/".join(parts))  # fmt: skip


def members(data: bytes) -> dict[str, tuple[int, int, bytes]]:
    """name -> (mode, mtime, content), as the format's text describes it."""
    found = {}
    at = 0
    while True:
        head = data[at : at + 110]
        assert head[:6] == b"070701"
        fields = [int(head[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        size, length = fields[6], fields[11]
        name = data[at + 110 : at + 110 + length - 1].decode()
        at = (at + 110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        assert name not in found, "a member is there twice"
        found[name] = (fields[1], fields[5], data[at : at + size])
        at = (at + size + 3) // 4 * 4


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=8))
def test_every_file_is_there_with_its_content_below_its_folders(files: dict[str, bytes]) -> None:
    kept = {
        name: content
        for name, content in files.items()
        if not any(other != name and other.startswith(f"{name}/") for other in files)
    }
    out = io.BytesIO()
    archive = CpioWriter(out)
    for name, content in kept.items():
        archive.file(name, content, mode=0o640, mtime=1234)
    archive.end()
    found = members(out.getvalue())
    for name, content in kept.items():
        assert found[name[1:]] == (stat.S_IFREG | 0o640, 1234, content)
        order = list(found)
        parts = name[1:].split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            assert stat.S_ISDIR(found[above][0])
            assert order.index(above) < order.index(name[1:])


def test_what_is_added_twice_is_there_once(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"first")
    out = io.BytesIO()
    archive = CpioWriter(out)
    archive.copy(source, "/x/a")
    archive.file("/x/a", b"second")
    archive.end()
    assert members(out.getvalue())["x/a"][2] == b"first"
