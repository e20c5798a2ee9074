"""Messages over a byte stream: what this machine and a guest say to each other.

Both ends run the same code, and the guest is ours, so values travel as Python pickles them.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable
from typing import Any

_LENGTH = 8
_LONGEST = 1 << 30
_QUICK = 1
"""Serial ports are slow, an emulated processor is slower."""


class ChannelClosed(Exception):
    """The other end is gone, or what it says is no message."""


class Channel:
    """Sends and receives values. read: some bytes, at most so many, b"" at the end; write: all."""

    def __init__(self, read: Callable[[int], bytes], write: Callable[[bytes], None]) -> None:
        self._read = read
        self._write = write

    def send(self, value: Any) -> None:
        """Send a value."""
        body = zlib.compress(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), _QUICK)
        self._write(len(body).to_bytes(_LENGTH, "little") + body)

    def receive(self) -> Any:
        """The next value. Raises ChannelClosed."""
        length = int.from_bytes(self._exactly(_LENGTH), "little")
        if length > _LONGEST:
            raise ChannelClosed
        try:
            return pickle.loads(zlib.decompress(self._exactly(length)))  # noqa: S301 both ends are ours
        except (zlib.error, pickle.UnpicklingError, EOFError):
            raise ChannelClosed from None

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self._read(min(length - len(data), 1 << 16))
            if not part:
                raise ChannelClosed
            data += part
        return bytes(data)
