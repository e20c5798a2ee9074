"""The distribution's own kernels: which there are, fetched by apt and kept.

Names are found through the distribution's meta-packages, since a kernel package's own name
changes with every update. What was fetched before serves where nothing can be fetched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.host import cache_folder
from ksmtrace.kernel.releases import parse_release

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_PATIENCE = 300


@dataclass(frozen=True)
class KernelPackage:
    """A kernel of the distribution, unpacked. series: as 6.12. version: the true one, 6.12.117.

    package: its name. folder: where it is unpacked. image: what QEMU boots.
    """

    series: str
    version: str
    package: str
    folder: Path

    @property
    def image(self) -> Path:
        """The kernel's image."""
        for image in sorted(self.folder.glob("boot/vmlinuz-*")):
            return image
        raise KsmtraceError(
            f"{self.folder} holds no kernel image", f"rm -r {self.folder}, and try again"
        )


def cache() -> Path:
    """Where packages are kept: KSMTRACE_CACHE, or ksmtrace in the user's cache folder."""
    named = os.environ.get("KSMTRACE_CACHE")
    if named:
        return Path(named)
    return cache_folder()


def kernel_package(series: str) -> KernelPackage:
    """The distribution's present kernel of a series, as 6.1, fetched if it isn't here yet.

    Raises KsmtraceError (host cannot) if it can't be had.
    """
    if not re.fullmatch(r"\d{1,3}\.\d{1,3}", series):
        raise KsmtraceError(
            f"{series!r} is no kernel series", "write two numbers, as in vm:6.12", Exit.USAGE
        )
    folder = cache() / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = _resolve(series)
        target = folder / f"{name}_{_candidate(name)}"
        if not target.is_dir():
            _fetch(name, target)
        return _unpacked(series, target)
    except KsmtraceError as error:
        kept = max(_kept(folder, series), key=lambda one: parse_release(one.version), default=None)
        if kept is None:
            raise
        print(
            f"ksmtrace: Linux {kept.version} is used, which was fetched before: {error.message}",
            file=sys.stderr,
        )
        return kept
    except OSError as error:
        raise KsmtraceError(
            f"kernels can't be kept in {folder}: {error.strerror}",
            "set KSMTRACE_CACHE to a folder with 300 MB free",
            Exit.HOST_CANNOT,
        ) from None


def _resolve(series: str) -> str:
    """The package of a series' kernel for virtual machines, by a meta-package that needs it."""
    arch = _ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    for meta in (f"linux-image-{series}-cloud-{arch}", f"linux-image-cloud-{arch}"):
        told = _apt("apt-cache", "depends", meta, may_fail=True)
        for line in told.splitlines():
            _, _, package = line.strip().partition("Depends: ")
            if package.startswith((f"linux-image-{series}.", f"linux-image-{series}+")):
                return package
    raise KsmtraceError(
        f"the distribution has no kernel of the series {series} for virtual machines",
        f"there are {', '.join(_all_series(arch)) or 'none: run apt-get update'}",
        Exit.HOST_CANNOT,
    )


def _all_series(arch: str) -> list[str]:
    """The series that the distribution has kernels for virtual machines of."""
    names = _apt("apt-cache", "pkgnames", "linux-image-", may_fail=True).split()
    found = (re.fullmatch(rf"linux-image-(\d+\.\d+)[.+].*-cloud-{arch}", name) for name in names)
    return sorted({match[1] for match in found if match}, key=parse_release)


def _candidate(package: str) -> str:
    told = _apt("apt-cache", "policy", package)
    found = re.search(r"Candidate: (\S+)", told)
    if found is None or found[1] == "(none)":
        raise KsmtraceError(
            f"apt has no version of {package}", "run apt-get update", Exit.HOST_CANNOT
        )
    return found[1]


def _fetch(package: str, target: Path) -> None:
    """Download and unpack, so that what is there under its name is always whole."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _apt("apt-get", "download", "-q", package, cwd=part)
        for archive in part.glob("*.deb"):
            _apt("dpkg-deb", "-x", str(archive), str(part))
            archive.unlink()
        try:
            part.rename(target)
        except OSError:
            # Somebody else was first.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _kept(folder: Path, series: str) -> Iterator[KernelPackage]:
    for target in sorted(folder.glob(f"linux-image-{series}[.+]*_*")):
        if target.is_dir() and target.suffix != ".part":
            yield _unpacked(series, target)


def _unpacked(series: str, target: Path) -> KernelPackage:
    name, _, version = target.name.rpartition("_")
    return KernelPackage(series, version.partition("-")[0], name, target)


def _apt(*command: str, cwd: Path | None = None, may_fail: bool = False) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, "LC_ALL": "C"},
            capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise KsmtraceError(
            f"there is no {command[0]} here, which fetches other kernels",
            "use Debian",
            Exit.HOST_CANNOT,
        ) from None
    except subprocess.TimeoutExpired:
        raise KsmtraceError(
            f"{command[0]} took longer than {_PATIENCE} s",
            "is the network there?",
            Exit.HOST_CANNOT,
        ) from None
    if done.returncode and not may_fail:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise KsmtraceError(
            f"{' '.join(command[:2])} failed: {words[-1] if words else done.returncode}",
            "run apt-get update, and look whether the network is there",
            Exit.HOST_CANNOT,
        )
    return done.stdout
