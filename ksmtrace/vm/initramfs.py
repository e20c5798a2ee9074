"""A guest's root file system: this machine's own Python and ksmtrace, in an archive.

The guest runs the same interpreter, libraries and code as this machine, so nothing has to be
built or fetched for it, and what is tested there is what is here.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import ksmtrace
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.vm.cpio import CpioWriter

SITE = "/site"
"""Where ksmtrace and the packages it needs are in a guest."""
PACKAGES = ("numpy", "pyarrow", "pyroute2", "rich", "xxhash")
_NOT_NEEDED = {
    "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages",
    "include", "pydoc_data", "f2py", "distutils", "static", "src",
}  # fmt: skip
_NOT_LIBRARIES = ("_s3", "_flight", "_tkinter")
_LIBBPF = "libbpf.so.1"


def write_initramfs(path: Path) -> None:
    """Write the archive. Raises KsmtraceError (host cannot) without libbpf."""
    with path.open("wb") as out:
        archive = CpioWriter(out)
        binaries = [*_interpreter(archive), *_packages(archive)]
        for library in _libraries(binaries):
            archive.copy(library)
        archive.copy(_libbpf(), f"/usr/lib/{_LIBBPF}")
        archive.device("/dev/console", 5, 1)
        for folder in ("/proc", "/sys", "/dev", "/tmp", "/run", "/root"):  # noqa: S108 the guest's
            archive.folder(folder)
        archive.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        archive.file("/init", _init(), mode=0o755)
        archive.end()


def _init() -> bytes:
    # The kernel starts this; it has no environment but what stands here.
    return (
        f"#!{_real_python()} -S\n"
        f"import sys; sys.path.insert(0, {SITE!r}); "
        "from ksmtrace.vm.agent import main; main()\n"
    ).encode()


def _real_python() -> Path:
    return Path(sys._base_executable).resolve()  # type: ignore[attr-defined]  # noqa: SLF001 the one below a venv has no public name


def _interpreter(archive: CpioWriter) -> Iterator[Path]:
    python = _real_python()
    archive.copy(python)
    yield python
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
    for place in {library, Path(sysconfig.get_path("platstdlib", vars={"base": sys.base_prefix}))}:
        yield from _tree(archive, place, str(place))


def _packages(archive: CpioWriter) -> Iterator[Path]:
    yield from _tree(archive, Path(ksmtrace.__file__).parent, f"{SITE}/ksmtrace")
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(spec.submodule_search_locations[0])
        yield from _tree(archive, folder, f"{SITE}/{name}")
        for beside in (
            folder.with_name(f"{name}.libs"),
            *folder.parent.glob(f"{name}-*.dist-info"),
        ):
            if beside.is_dir():
                yield from _tree(archive, beside, f"{SITE}/{beside.name}")


def _tree(archive: CpioWriter, folder: Path, name: str) -> Iterator[Path]:
    """Copy a folder; yields what is a binary there, for its libraries."""
    for entry in sorted(folder.iterdir()):
        inside = f"{name}/{entry.name}"
        if entry.is_dir():
            if entry.name not in _NOT_NEEDED and not entry.name.startswith("config-"):
                yield from _tree(archive, entry, inside)
        elif entry.suffix in (".pyx", ".pxd", ".pyi", ".h", ".a", ".exe"):
            continue
        elif ".so" in entry.suffixes:
            if not any(word in entry.name for word in _NOT_LIBRARIES):
                archive.copy(entry, inside)
                yield entry
        else:
            archive.copy(entry, inside)


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    """The shared libraries outside of Python's packages that some binaries need, by the loader."""
    done = subprocess.run(
        ["ldd", *map(str, binaries), str(_libbpf())], capture_output=True, text=True, check=False
    )
    found = set()
    for line in done.stdout.splitlines():
        if line.endswith(":"):
            continue
        words = line.split()
        place = words[2] if "=>" in words and len(words) > 2 else words[0] if words else ""
        if place.startswith("/") and "site-packages" not in place:
            found.add(Path(place))
    return found


def _libbpf() -> Path:
    """Where the loader finds libbpf."""
    told = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    for line in told.splitlines():
        name, _, place = line.strip().partition(" => ")
        if name.startswith(_LIBBPF):
            return Path(place)
    raise KsmtraceError(
        f"{_LIBBPF} is not installed, which a guest needs",
        "apt install libbpf1",
        Exit.HOST_CANNOT,
    )
