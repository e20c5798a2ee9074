"""Archives that a kernel unpacks as its first root file system: cpio, format newc.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath
from typing import IO

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"


class CpioWriter:
    """Writes an archive into `out`. Folders above what is added are made; nothing is added twice.

    Names are absolute paths. Times are kept, because Python compares a compiled file's with its
    source's. Close it by `end`.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._number = 0
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def file(self, name: str, content: bytes, *, mode: int = 0o644, mtime: int = 0) -> None:
        """A regular file with this content."""
        self._add(name, stat.S_IFREG | mode, content, mtime=mtime)

    def copy(self, source: Path, name: str | None = None) -> None:
        """A file of this machine, by default under its own name; links are followed."""
        found = source.stat()
        self.file(
            name or str(source),
            source.read_bytes(),
            mode=stat.S_IMODE(found.st_mode),
            mtime=int(found.st_mtime),
        )

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def folder(self, name: str) -> None:
        """An empty folder."""
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def device(self, name: str, major: int, minor: int) -> None:
        """A character device."""
        self._add(name, stat.S_IFCHR | 0o600, b"", device=(major, minor))

    def end(self) -> None:
        """Write what ends an archive."""
        self._member(_TRAILER, 0, b"")

    def _add(
        self,
        name: str,
        mode: int,
        content: bytes,
        *,
        mtime: int = 0,
        device: tuple[int, int] = (0, 0),
    ) -> None:
        if name in self._names:
            return
        for above in reversed(PurePosixPath(name).parents[:-1]):
            if str(above) not in self._names:
                self._names.add(str(above))
                self._member(str(above), stat.S_IFDIR | 0o755, b"")
        self._names.add(name)
        self._member(name, mode, content, mtime=mtime, device=device)

    def _member(
        self,
        name: str,
        mode: int,
        content: bytes,
        *,
        mtime: int = 0,
        device: tuple[int, int] = (0, 0),
    ) -> None:
        self._number += 1
        path = name.lstrip("/").encode() + b"\0"
        numbers = (
            self._number, mode, 0, 0, 1, mtime & 0xFFFFFFFF, len(content), 0, 0, *device,
            len(path), 0,
        )  # fmt: skip
        head = _MAGIC + "".join(f"{number:08X}" for number in numbers)
        self._out.write(_padded(head.encode() + path))
        self._out.write(_padded(content))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
