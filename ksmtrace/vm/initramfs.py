"""A guest's root file system: this machine's own Python and ksmtrace, in an archive.

The guest runs the same interpreter, libraries and code as this machine, so nothing has to be
built or fetched for it, and what is tested there is what is here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import ksmtrace
from ksmtrace.capture.bcc import bcc_packages, nearby_headers
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
_LIBBPF, _LIBBCC = "libbpf.so.1", "libbcc.so.0"
_HEADER_FOLDERS = ("include", "arch/x86/include")


def write_initramfs(path: Path, *, bcc: bool = False) -> None:
    """Write the archive. bcc: with this machine's, if it has it: a compiler and kernel headers.

    Raises KsmtraceError (host cannot) without libbpf.
    """
    with path.open("wb") as out:
        archive = CpioWriter(out)
        binaries = [*_interpreter(archive), *_packages(archive)]
        if bcc:
            binaries += _bcc(archive)
        for library in _libraries(binaries):
            archive.copy(library)
        archive.copy(_libbpf(), f"/usr/lib/{_LIBBPF}")
        archive.device("/dev/console", 5, 1)
        for folder in ("/proc", "/sys", "/dev", "/tmp", "/run", "/root"):  # noqa: S108 the guest's
            archive.folder(folder)
        archive.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        archive.file("/init", _script("ksmtrace.vm.agent"), mode=0o755)
        archive.file("/bin/ksmtrace", _script("ksmtrace.cli.main"), mode=0o755)
        archive.end()


def _script(module: str) -> bytes:
    # The kernel starts one of them, with no environment but what stands here.
    return (
        f"#!{_real_python()} -S\n"
        f"import sys; sys.path.insert(0, {SITE!r}); from {module} import main; sys.exit(main())\n"
    ).encode()


def _real_python() -> Path:
    return Path(sys._base_executable).resolve()  # type: ignore[attr-defined]  # noqa: SLF001 the one below a venv has no public name


def _interpreter(archive: CpioWriter) -> Iterator[Path]:
    python = _real_python()
    archive.copy(python)
    archive.link("/bin/python3", str(python))
    yield python
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
    for place in {library, Path(sysconfig.get_path("platstdlib", vars={"base": sys.base_prefix}))}:
        yield from _tree(archive, place, str(place))


def _packages(archive: CpioWriter) -> Iterator[Path]:
    yield from _tree(archive, Path(ksmtrace.__file__).parent, f"{SITE}/ksmtrace")
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise KsmtraceError(f"the Python package {name} is not installed", "pip install it")
        folder = Path(spec.submodule_search_locations[0])
        yield from _tree(archive, folder, f"{SITE}/{name}")
        for beside in (
            folder.with_name(f"{name}.libs"),
            *folder.parent.glob(f"{name}-*.dist-info"),
        ):
            if beside.is_dir():
                yield from _tree(archive, beside, f"{SITE}/{beside.name}")


def _bcc(archive: CpioWriter) -> Iterator[Path]:
    """The bcc package, its library, and kernel headers, which may be of any version."""
    packages, headers, library = bcc_packages(), nearby_headers(), _library(_LIBBCC)
    if not packages or headers is None or library is None:
        return
    yield from _tree(archive, packages[0], str(packages[0]))
    archive.copy(library, f"/usr/lib/{_LIBBCC}")
    yield library
    for part in ("build", "source"):
        for folder in _HEADER_FOLDERS:
            for file in sorted((headers / part / folder).rglob("*")):
                if file.is_file():
                    archive.copy(file, f"{headers}/{part}/{file.relative_to(headers / part)}")


def _tree(archive: CpioWriter, folder: Path, name: str) -> Iterator[Path]:
    """Copy a folder; yields what is a binary there, for its libraries."""
    for entry in sorted(folder.iterdir()):
        inside = f"{name}/{entry.name}"
        if entry.is_dir():
            if entry.name not in _NOT_NEEDED and not entry.name.startswith("config-"):
                yield from _tree(archive, entry, inside)
        elif entry.suffix in (".pyx", ".pxd", ".pyi", ".a", ".exe"):
            continue
        elif ".so" in entry.suffixes:
            if not any(word in entry.name for word in _NOT_LIBRARIES):
                archive.copy(entry, inside)
                yield entry
        else:
            archive.copy(entry, inside)


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    """The shared libraries outside of Python's packages that some binaries need, by the loader."""
    found = set()
    for line in _told("ldd", *map(str, binaries), str(_libbpf())).splitlines():
        if line.endswith(":"):
            continue
        words = line.split()
        place = words[2] if "=>" in words and len(words) > 2 else words[0] if words else ""
        if place.startswith("/") and "site-packages" not in place:
            found.add(Path(place))
    return found


def _told(*command: str) -> str:
    """What one of the loader's tools prints. Raises KsmtraceError (host cannot)."""
    # The loader's own tools lie where only root looks by default.
    tool = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        raise KsmtraceError(
            f"there is no {command[0]} here, which a guest's files are found with",
            "apt install libc-bin",
            Exit.HOST_CANNOT,
        )
    return subprocess.run([tool, *command[1:]], capture_output=True, text=True, check=False).stdout


def _library(name: str) -> Path | None:
    """Where the loader finds a shared library."""
    for line in _told("ldconfig", "-p").splitlines():
        known, _, place = line.strip().partition(" => ")
        if known.startswith(f"{name} "):
            return Path(place)
    return None


def _libbpf() -> Path:
    found = _library(_LIBBPF)
    if found is not None:
        return found
    raise KsmtraceError(
        f"{_LIBBPF} is not installed, which a guest needs",
        "apt install libbpf1",
        Exit.HOST_CANNOT,
    )
