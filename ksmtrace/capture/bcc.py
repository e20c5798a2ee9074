"""The `bcc` backend: the same programs, compiled on this host by bcc.

bcc's Python package is the distribution's (python3-bpfcc); the `bcc` on PyPI is something else. It
lies outside virtual environments, so it is loaded from the distribution's folder, it alone.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from types import ModuleType
from typing import Any, ClassVar, TextIO

from ksmtrace.capture.bpf_stream import BpfStream
from ksmtrace.capture.ring import Ring
from ksmtrace.errors import Exit, KsmtraceError, Obstacle
from ksmtrace.events.registry import TRACEPOINTS
from ksmtrace.kernel import host
from ksmtrace.kernel.btf import BtfError, struct_layouts
from ksmtrace.kernel.releases import parse_release

SOURCES = Path(__file__).parent.parent / "bpf"
_DISTRIBUTION_PACKAGES = (
    Path("/usr/lib/python3/dist-packages"),
    *sorted(Path("/usr/lib").glob("python3.*/site-packages")),
)
_HEADERS_VARIABLE = "BCC_KERNEL_SOURCE"
_MODULES = Path("/lib/modules")
_NAMES = tuple(kind.name for kind in TRACEPOINTS)
_HANDLER = re.compile(r"^PROGRAM\((\w+)\)\n\{.*?^\}\n", re.MULTILINE | re.DOTALL)

_OFFSETS = {
    "OFFSET_ITEM_ADDRESS": ("ksm_rmap_item", "address"),
    "OFFSET_ITEM_OLDCHECKSUM": ("ksm_rmap_item", "oldchecksum"),
    "OFFSET_TASK_TGID": ("task_struct", "tgid"),
    "OFFSET_TASK_MM": ("task_struct", "mm"),
    "OFFSET_MM_OWNER": ("mm_struct", "owner"),
    "OFFSET_PAGE_MAPCOUNT": ("page", "_mapcount"),
}
_OPTIONAL = ("OFFSET_MM_OWNER", "OFFSET_PAGE_MAPCOUNT")


def bcc_packages() -> list[Path]:
    """Where bcc's Python package is installed by the distribution."""
    folders = [folder / "bcc" for folder in _DISTRIBUTION_PACKAGES]
    return [folder for folder in folders if (folder / "__init__.py").is_file()]


def load_bcc() -> ModuleType | None:
    """Bcc's Python package, or None where it is not installed."""
    loaded = sys.modules.get("bcc")
    if loaded is not None and hasattr(loaded, "BPF"):
        return loaded
    for folder in bcc_packages():
        spec = importlib.util.spec_from_file_location(
            "bcc", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        sys.modules["bcc"] = module
        try:
            spec.loader.exec_module(module)
        except (ImportError, OSError):
            del sys.modules["bcc"]
            continue
        return module
    return None


def nearby_headers() -> Path | None:
    """The newest installed kernel headers, as /lib/modules/RELEASE, whatever their version.

    The programs use no kernel struct, only types that hardly ever change.
    """
    found = [folder.parent for folder in _MODULES.glob("*/build") if folder.exists()]
    return max(found, key=lambda folder: parse_release(folder.name), default=None)


def _has_headers() -> bool:
    return (
        nearby_headers() is not None
        or Path("/sys/kernel/kheaders.tar.xz").exists()
        or _HEADERS_VARIABLE in os.environ
    )


@contextmanager
def kernel_headers() -> Iterator[None]:
    """Let bcc find kernel headers while inside.

    It looks for itself where this kernel's own are. Others must be one tree, but distributions
    split them into `build` and `source`: a folder of links joins the two.
    """
    headers = nearby_headers()
    own = (_MODULES / host.kernel_release() / "build").exists()
    if own or headers is None or _HEADERS_VARIABLE in os.environ:
        yield
        return
    with TemporaryDirectory(prefix="ksmtrace-headers-") as folder:
        _join(Path(folder), [headers / "build", headers / "source"])
        os.environ[_HEADERS_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[_HEADERS_VARIABLE]


def _join(target: Path, parts: list[Path]) -> None:
    """Fill `target` with links to what is in `parts`; folders on the way to includes are joined."""
    for name in {entry.name for part in parts if part.is_dir() for entry in part.iterdir()}:
        having = [part / name for part in parts if (part / name).exists()]
        if len(having) > 1 and all(path.is_dir() for path in having):
            (target / name).mkdir()
            _join(target / name, having)
        else:
            (target / name).symlink_to(having[0].resolve())


@contextmanager
def _quiet_stderr() -> Iterator[TextIO]:
    """What is written to stderr inside, by C code too, goes to a file that is handed out."""
    sys.stderr.flush()
    kept = os.dup(2)
    with TemporaryFile("w+", errors="replace") as words:
        os.dup2(words.fileno(), 2)
        try:
            yield words
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class BccSource:
    """The same events as `core`, through bcc."""

    name: ClassVar[str] = "bcc"
    summary: ClassVar[str] = "BPF compiled on this host by bcc: every field"
    fields_unknown: ClassVar[tuple[str, ...]] = ()

    def check(self) -> list[Obstacle]:
        """See `Source.check`."""
        obstacles = host.tracepoint_bpf_obstacles(_NAMES)
        if load_bcc() is None:
            obstacles.append(
                Obstacle(
                    "bcc's Python package can't be imported",
                    "install the distribution's (Debian: apt install python3-bpfcc)",
                )
            )
        if not _has_headers():
            obstacles.append(
                Obstacle(
                    "bcc finds no kernel headers",
                    "apt install linux-headers-$(uname -r), or scripts/bcc-headers in the sources",
                )
            )
        return obstacles

    @contextmanager
    def open(self, *, ring_bytes: int) -> Iterator[BpfStream]:
        """See `Source.open`. Compiling takes seconds."""
        bcc = load_bcc()
        if bcc is None:
            raise KsmtraceError(
                "bcc's Python package can't be imported",
                "apt install python3-bpfcc",
                Exit.HOST_CANNOT,
            )
        programs = _compile(bcc, ring_bytes)
        try:
            table = programs["events"]
            with Ring(table.map_fd, ring_bytes) as ring:
                yield BpfStream(
                    ring,
                    table.map_fd,
                    detach=lambda: _detach(programs),
                    losses=lambda: _losses(programs),
                )
        finally:
            programs.cleanup()


def _detach(programs: Any) -> None:
    for tracepoint in list(programs.raw_tracepoint_fds):
        programs.detach_raw_tracepoint(tracepoint)


def _losses(programs: Any) -> dict[int, int]:
    states = programs["cpu_states"][ctypes.c_int(0)]
    return {cpu: int(states[cpu].words[0]) for cpu in range(len(states))}


def program_text(tracepoints: tuple[str, ...]) -> str:
    """The C text for bcc, headers put in place (bcc rewrites only its main file).

    Handlers of tracepoints that this kernel lacks are left out.
    """
    text = (SOURCES / "ksm.bcc.c").read_text()
    for header in ("event.h", "programs.h", "tracepoints.h"):
        text = text.replace(f'#include "{header}"\n', (SOURCES / header).read_text())
    return _HANDLER.sub(lambda m: m.group(0) if m.group(1) in tracepoints else "", text)


def offset_flags() -> list[str]:
    """-D flags with the struct offsets of the running kernel.

    Raises KsmtraceError where its BTF lacks one that is needed.
    """
    try:
        layouts = struct_layouts({struct for struct, _ in _OFFSETS.values()})
    except (OSError, BtfError) as error:
        raise KsmtraceError(
            f"the kernel's BTF can't be read: {error}",
            "use --backend tracefs",
            Exit.HOST_CANNOT,
        ) from None
    flags = []
    for flag, (struct, member) in _OFFSETS.items():
        layout = layouts.get(struct)
        offset = layout.offsets.get(member) if layout else None
        if offset is not None:
            flags.append(f"-D{flag}={offset}")
        elif flag not in _OPTIONAL:
            raise KsmtraceError(
                f"this kernel's struct {struct} has no {member}",
                "use --backend tracefs",
                Exit.HOST_CANNOT,
            )
    return flags


def _compile(bcc: ModuleType, ring_bytes: int) -> Any:
    flags = [
        *offset_flags(),
        f"-DRING_PAGES={ring_bytes // host.PAGE_BYTES}",
        "-Wno-everything",
    ]
    text = program_text(host.ksm_tracepoints(_NAMES))
    with kernel_headers(), _quiet_stderr() as words:
        try:
            return bcc.BPF(text=text, cflags=flags)
        except Exception as error:  # noqa: BLE001 bcc raises plain Exception for everything
            words.seek(0)
            reason = next((line for line in words if "error:" in line), str(error)).strip()
    raise KsmtraceError(
        f"bcc could not compile or attach its programs: {reason}",
        "check the kernel headers, or use --backend core",
        Exit.HOST_CANNOT,
    )
