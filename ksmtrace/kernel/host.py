"""Facts about this host that decide what can be traced here."""

from __future__ import annotations

import functools
import gzip
import os
import platform
import re
from pathlib import Path

from ksmtrace.errors import KsmtraceError, Obstacle

KSM = Path("/sys/kernel/mm/ksm")
UKSM = Path("/sys/kernel/mm/uksm")
"""There on a kernel that was built with UKSM, which leaves KSM out."""
TRACEFS_PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
BTF = Path("/sys/kernel/btf/vmlinux")
_CAPABILITY_BITS = {"CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CPUS = os.sysconf("SC_NPROCESSORS_ONLN")


def kernel_release() -> str:
    """As `uname -r` prints it."""
    return platform.release()


def kernel_build() -> str:
    """As `uname -v` prints it: Debian's has the true version number."""
    return platform.version()


def machine() -> str:
    """The processor architecture, as `uname -m` prints it."""
    return platform.machine()


def cpu_model(cpuinfo: str | None = None) -> str:
    """The processor's name as /proc/cpuinfo has it, where it has one; else the architecture."""
    text = cpuinfo if cpuinfo is not None else read_text("/proc/cpuinfo") or ""
    found = re.search(r"^(?:model name|cpu model|Model)\s*:\s*(\S.*?)\s*$", text, re.MULTILINE)
    return found[1] if found else machine()


def cache_folder() -> Path:
    """Where ksmtrace keeps what it can make again. Raises KsmtraceError if there is no home."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "ksmtrace"
    except RuntimeError:
        raise KsmtraceError("your home folder isn't known", "set XDG_CACHE_HOME") from None


def memory_bytes() -> int:
    """Installed memory that the kernel manages."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES


def tick_ns() -> int:
    """The kernel's timer tick (CONFIG_HZ); 4 ms, as most distributions have it, where unknown."""
    try:
        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    except OSError:
        text = read_text(f"/boot/config-{kernel_release()}") or ""
    found = re.search(r"^CONFIG_HZ=(\d+)$", text, re.MULTILINE)
    return 1_000_000_000 // int(found[1]) if found else 4_000_000


def boot_id() -> str | None:
    """The kernel's random name of this boot, or None."""
    return read_text(Path("/proc/sys/kernel/random/boot_id"))


def read_text(path: Path | str) -> str | None:
    """A small kernel file without its last newline; None if it is absent or can't be read."""
    # The descriptor itself: Python's file objects cost more than the kernel's answer.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    except OSError:
        return None
    finally:
        os.close(fd)
    return b"".join(parts).decode(errors="replace").rstrip("\n")


def meminfo(text: str) -> dict[str, int]:
    """The sizes in /proc/meminfo, in bytes."""
    lines = re.findall(r"^(\w+):\s+(\d{1,15}) kB$", text, re.MULTILINE)
    return {name: int(number) * 1024 for name, number in lines}


def capabilities(status: str | None = None) -> frozenset[str]:
    """Which of the capabilities that tracing can need this process has in effect."""
    text = status if status is not None else read_text(Path("/proc/self/status")) or ""
    mask = next((int(s.split()[1], 16) for s in text.splitlines() if s.startswith("CapEff:")), 0)
    return frozenset(name for name, bit in _CAPABILITY_BITS.items() if mask >> bit & 1)


def tracefs() -> Path | None:
    """Where tracefs is mounted and may be read, or None."""
    return next((place for place in TRACEFS_PLACES if os.access(place / "events", os.R_OK)), None)


def tracefs_obstacle() -> Obstacle:
    """Why `tracefs` returned None."""
    if os.geteuid() != 0:
        return Obstacle("tracefs can't be read", "run with sudo")
    return Obstacle("tracefs is not mounted", "mount -t tracefs tracefs /sys/kernel/tracing")


@functools.cache
def _btf_bytes() -> bytes:
    try:
        return BTF.read_bytes()
    except OSError:
        return b""


def has_btf() -> bool:
    """Whether the kernel describes its types (CONFIG_DEBUG_INFO_BTF)."""
    return os.access(BTF, os.R_OK)


def ksm_tracepoints(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that the kernel has as ksm tracepoints, by tracefs or else by its BTF."""
    mounted = tracefs()
    if mounted is not None:
        return tuple(name for name in names if (mounted / "events" / "ksm" / name).is_dir())
    # Each tracepoint has a typedef of this name; its name stands in BTF's string section.
    return tuple(name for name in names if in_btf("btf_trace_" + name))


def in_btf(name: str) -> bool:
    """Whether the kernel's BTF names anything so: a function, a type, a member."""
    return b"\0" + name.encode() + b"\0" in _btf_bytes()


def in_initial_pid_namespace() -> bool:
    """False inside most containers: the kernel's process ids are then not the ones seen here."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def lockdown() -> str | None:
    """The kernel's lockdown mode (none, integrity, confidentiality), or None if it has no such."""
    text = read_text(Path("/sys/kernel/security/lockdown")) or ""
    return next((word[1:-1] for word in text.split() if word.startswith("[")), None)


def privilege_obstacles(needed: tuple[str, ...]) -> list[Obstacle]:
    """What is missing of the capabilities `needed`; CAP_SYS_ADMIN stands for all of them."""
    have = capabilities()
    missing = [name for name in needed if name not in have]
    if not missing or "CAP_SYS_ADMIN" in have:
        return []
    return [Obstacle(f"missing {' and '.join(missing)}", "run with sudo")]


def has_uksm() -> bool:
    """Whether UKSM stands in KSM's place: a kernel is built with one of the two."""
    return UKSM.is_dir() and not KSM.is_dir()


def ksm_obstacles() -> list[Obstacle]:
    """What keeps any tracer from seeing ksmd here: there is no KSM."""
    if KSM.is_dir():
        return []
    if has_uksm():
        return [
            Obstacle(
                f"this kernel has UKSM in place of KSM ({UKSM})",
                "record and report take UKSM's counters; for more boot a kernel with KSM",
            )
        ]
    return [
        Obstacle(
            f"this kernel has no KSM ({KSM} is missing)",
            "boot a kernel built with CONFIG_KSM=y",
        )
    ]


def bpf_obstacles() -> list[Obstacle]:
    """What keeps any BPF program that looks at KSM from running here."""
    obstacles = ksm_obstacles() + privilege_obstacles(("CAP_BPF", "CAP_PERFMON"))
    if not has_btf():
        obstacles.append(
            Obstacle(
                "the kernel has no BTF (/sys/kernel/btf/vmlinux is missing)",
                "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, or use --backend tracefs",
            )
        )
    return obstacles


def tracepoint_bpf_obstacles(tracepoints: tuple[str, ...]) -> list[Obstacle]:
    """What keeps a BPF program on any of `tracepoints` from running here."""
    obstacles = bpf_obstacles()
    if not obstacles and not ksm_tracepoints(tracepoints):
        obstacles.append(tracepoint_obstacle())
    return obstacles


def tracepoint_obstacle() -> Obstacle:
    """For a kernel whose KSM has no tracepoints."""
    return Obstacle(
        f"this kernel ({kernel_release()}) has no ksm tracepoints",
        "they came with Linux 6.4; boot a newer kernel",
    )
