"""One QEMU process: a kernel, a first root file system, a console in a file and a channel.

Always software emulation: where /dev/kvm exists inside a virtual machine it may not be able to
run a stock kernel, and a lab wants the same machine everywhere.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ksmtrace.errors import KsmtraceError, Obstacle, host_cannot
from ksmtrace.vm.agent import ENDED

_QEMU = "qemu-system-x86_64"
_BOOT_PATIENCE = 90.0
_END_PATIENCE = 20.0
_WITH_US = ("setpriv", "--pdeathsig", "KILL", "nice", "-n", "5")
"""However the thread that started it ends, QEMU ends with it; others have the processor first."""


@dataclass(frozen=True)
class Machine:
    """What to emulate. nodes: NUMA nodes, memory split evenly. swap_mib: a swap disk.

    mergeable: whether QEMU registers the guest's memory with this machine's KSM.
    """

    memory_mib: int = 1024
    cpus: int = 1
    nodes: int = 1
    swap_mib: int = 0
    mergeable: bool = False
    name: str = "ksmtrace-lab"


LAB_MACHINE = Machine(nodes=2, swap_mib=128)
"""A guest that can perform every scenario."""


def qemu_obstacles() -> list[Obstacle]:
    """What keeps guests from being started here."""
    if shutil.which(_QEMU):
        return []
    return [Obstacle(f"{_QEMU} is not installed", "apt install qemu-system-x86")]


def command_line(
    machine: Machine, kernel: Path, initramfs: Path, serials: Sequence[str], swap: Path | None
) -> list[str]:
    """QEMU's command. serials: where the serial ports go, in QEMU's words."""
    merge = "on" if machine.mergeable else "off"
    command = [
        _QEMU, "-name", machine.name, "-machine", f"pc,mem-merge={merge}",
        # With QEMU's emulation of AVX2 numpy sorts wrongly (np.argsort, seen with 7.2).
        "-accel", "tcg,thread=multi", "-cpu", "max,la57=off,avx2=off",
        "-m", str(machine.memory_mib), "-smp", str(machine.cpus),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", str(kernel), "-initrd", str(initramfs),
        "-append", "console=ttyS0 panic=-1 quiet rdinit=/init",
    ]  # fmt: skip
    for serial in serials:
        command += ["-serial", serial]
    if machine.nodes > 1:
        each = machine.memory_mib // machine.nodes
        for node in range(machine.nodes):
            command += [
                "-object", f"memory-backend-ram,id=m{node},size={each}M,merge={merge}",
                "-numa", f"node,nodeid={node},memdev=m{node}",
            ]  # fmt: skip
    if swap is not None:
        command += [
            "-drive", f"file={swap},format=raw,if=none,id=swap,cache=unsafe",
            "-device", "nvme,drive=swap,serial=swap",
        ]  # fmt: skip
    return command


class Qemu:
    """A running guest. folder: its own, for the console, the socket and the swap disk.

    Raises KsmtraceError (host cannot) where QEMU is missing.
    """

    def __init__(self, machine: Machine, kernel: Path, initramfs: Path, folder: Path) -> None:
        if obstacles := qemu_obstacles():
            raise host_cannot(obstacles, "boot another kernel")
        self.console = folder / "console.txt"
        self._words = folder / "qemu.txt"
        self._socket = folder / "channel"
        swap = None
        if machine.swap_mib:
            swap = folder / "swap.img"
            with swap.open("wb") as disk:
                disk.truncate(machine.swap_mib << 20)
        serials = (f"file:{self.console}", f"unix:{self._socket},server=on,wait=off")
        with self._words.open("wb") as words:
            self.process = subprocess.Popen(
                [*_WITH_US, *command_line(machine, kernel, initramfs, serials, swap)],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
            )

    def connect(self) -> socket.socket:
        """The other end of the second serial port. Raises KsmtraceError."""
        deadline = time.monotonic() + _BOOT_PATIENCE
        end = socket.socket(socket.AF_UNIX)
        while True:
            try:
                end.connect(str(self._socket))
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    end.close()
                    raise self.lost("did not start") from None
                time.sleep(0.02)
            else:
                return end

    def lost(self, what: str) -> KsmtraceError:
        """The error for a guest that is gone, with the last it said."""
        words = [_last_line(self._words), _last_line(self.console)]
        told = "; ".join(word for word in words if word)
        hint = "is there enough free memory?" if "memory" in told.lower() else None
        return KsmtraceError(f"the guest {what}" + (f": {told}" if told else ""), hint)

    def wait(self) -> None:
        """Wait for the guest to switch itself off. Raises KsmtraceError if it ended badly."""
        try:
            status = self.process.wait(_END_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self.lost("did not switch itself off") from None
        text = self.console.read_text(errors="replace")
        if status or f"{ENDED} 0" not in text:
            raise self.lost("ended badly")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


def _last_line(path: Path) -> str:
    if not path.is_file():
        return ""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[:200]
