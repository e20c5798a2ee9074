"""The shipped BPF objects are what `bpf/` says."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLANG_MAJOR = "14"


def clang() -> str:
    """The compiler that the shipped object was made with."""
    for name in (f"clang-{CLANG_MAJOR}", "clang"):
        if shutil.which(name):
            version = subprocess.check_output([name, "--version"], text=True)
            if f"version {CLANG_MAJOR}." in version:
                return name
    pytest.fail(f"clang {CLANG_MAJOR} is needed to rebuild the BPF object: scripts/setup dev")


@pytest.mark.parametrize("name", ["ksm", "ksm.fentry"])
def test_the_shipped_object_is_built_from_the_sources(name: str, tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    found = re.search(r"^BPF_CFLAGS := (.*)$", makefile, re.MULTILINE)
    assert found
    flags = found[1].replace("$(shell uname -m)", platform.machine())
    flags = flags.replace("$(CURDIR)", str(ROOT))
    built = tmp_path / f"{name}.bpf.o"
    compiler = clang()
    subprocess.run(
        [compiler, *flags.split(), "-c", f"bpf/{name}.bpf.c", "-o", built], check=True, cwd=ROOT
    )
    subprocess.run(["llvm-strip", "-g", built], check=True)
    same = built.read_bytes() == (ROOT / "bpf" / f"{name}.bpf.o").read_bytes()
    assert same, "bpf/ has changed: run make bpf"
