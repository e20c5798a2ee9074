from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.vm.initramfs import SITE, write_initramfs


def names_of(path: Path) -> Iterator[tuple[str, int]]:
    """Every member's name and mode, without reading the contents."""
    with path.open("rb") as file:
        while True:
            head = file.read(110)
            mode, size, length = (int(head[at : at + 8], 16) for at in (14, 54, 94))
            name = file.read(length + -(110 + length) % 4)[: length - 1].decode()
            if name == "TRAILER!!!":
                return
            yield f"/{name}", mode
            file.seek(size + -size % 4, 1)


def test_a_guest_has_what_a_scenario_and_every_backend_without_a_compiler_need(
    tmp_path: Path,
) -> None:
    path = tmp_path / "initramfs.cpio"
    write_initramfs(path)
    modes = dict(names_of(path))
    assert modes["/init"] & 0o777 == 0o755
    python = str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]
    assert modes[python] & 0o111
    for name in (
        "ksmtrace/lab/puppet.py", "ksmtrace/bpf/ksm.bpf.o", "ksmtrace/bpf/ksm.fentry.bpf.o",
        "ksmtrace/bpf/event.h", "numpy/__init__.py", "pyarrow/__init__.py",
    ):  # fmt: skip
        assert f"{SITE}/{name}" in modes
    assert "/usr/lib/libbpf.so.1" in modes
    assert any(name.rpartition("/")[2].startswith("libc.so") for name in modes)
    assert any(name.rpartition("/")[2].startswith("ld-linux") for name in modes)
    assert "/dev/console" in modes


def test_without_the_loader_s_tools_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)
    with pytest.raises(KsmtraceError, match="there is no ld") as caught:
        write_initramfs(tmp_path / "initramfs.cpio")
    assert caught.value.exit_code == Exit.HOST_CANNOT
