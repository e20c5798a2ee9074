"""Small guests that boot a stock kernel and then work a little, to be merged with one another."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ksmtrace.errors import KsmtraceError
from ksmtrace.vm.cpio import CpioWriter
from ksmtrace.vm.packages import KernelPackage, kernel_package
from ksmtrace.vm.qemu import Machine, Qemu

READY = "GUEST READY"
_MEMORY_MIB = 128
_PATIENCE = 60.0
_TOOLS = ("sh", "seq", "sleep", "mkdir", "mount")
_INIT = f"""#!/bin/sh
mkdir /dev /data
mount -t devtmpfs devtmpfs /dev
exec >/dev/console 2>&1
seq -w 1 499979 >/data/same
seq {{own}}00001 {{own}}99979 >/data/own
echo {READY}
while sleep 1; do seq -w 1 $((turn += 1)) 99991 >/data/log; done
"""
"""A file that all guests have, one of each one's own, and one that changes."""


@dataclass
class Guest:
    """A guest to be. folder: its own; its name is the folder's."""

    kernel: KernelPackage
    folder: Path
    qemu: Qemu | None = field(default=None)

    def boot(self) -> None:
        """Start it, and wait until its program runs. Raises KsmtraceError."""
        initramfs = self.folder / "initramfs.cpio"
        _write_initramfs(initramfs, own=self.folder.name)
        machine = Machine(memory_mib=_MEMORY_MIB, mergeable=True, name=self.folder.name)
        self.qemu = Qemu(machine, self.kernel.image, initramfs, self.folder)
        deadline = time.monotonic() + _PATIENCE
        while READY not in _text(self.qemu.console):
            if self.qemu.process.poll() is not None or time.monotonic() > deadline:
                raise self.qemu.lost("did not boot")
            time.sleep(0.1)


@contextmanager
def running(series: str, folder: Path) -> Iterator[Guest]:
    """A guest that ends with the block; it is not booted yet. Raises KsmtraceError."""
    folder.mkdir()
    guest = Guest(kernel_package(series), folder)
    try:
        yield guest
    finally:
        if guest.qemu is not None:
            guest.qemu.kill()


def _write_initramfs(path: Path, own: str) -> None:
    """A shell and a few tools. own: what makes this guest's own file differ from others'."""
    number = 10 + sum(own.encode()) % 89
    with path.open("wb") as out:
        archive = CpioWriter(out)
        tools = [Path(_found(tool)) for tool in _TOOLS]
        for tool in tools:
            archive.copy(tool.resolve(), f"/bin/{tool.name}")
        for library in _libraries(tools):
            archive.copy(library)
        archive.device("/dev/console", 5, 1)
        archive.file("/init", _INIT.format(own=number).encode(), mode=0o755)
        archive.end()


def _found(tool: str) -> str:
    for folder in ("/bin", "/usr/bin"):
        if (Path(folder) / tool).is_file():
            return f"{folder}/{tool}"
    raise KsmtraceError(f"there is no {tool} here, which a guest needs")


def _libraries(binaries: list[Path]) -> set[Path]:
    done = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False)
    words = [word for line in done.stdout.splitlines() for word in line.split()]
    return {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
