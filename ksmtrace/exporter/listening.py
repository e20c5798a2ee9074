"""Where to listen: an address as a person types it, and what can be wrong with it."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any

from ksmtrace.errors import Exit, KsmtraceError

_FORM = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<name>[^:\[\]\s]+)):(?P<port>[0-9]{1,5})")
_EXAMPLE = "for example 127.0.0.1:9437 or [::1]:9437"


@dataclass(frozen=True)
class Address:
    """What to bind. sockaddr: as the socket module has it for the family."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach it."""
        return ipaddress.ip_address(str(self.sockaddr[0]).partition("%")[0]).is_loopback

    def __str__(self) -> str:
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if self.family == socket.AF_INET6 else f"{host}:{port}"


def parse_address(text: str) -> Address:
    """HOST:PORT, or [IPv6]:PORT. Raises KsmtraceError (USAGE) for anything else."""
    found = _FORM.fullmatch(text)
    if found is None or int(found["port"]) > 0xFFFF:
        raise KsmtraceError(f"{text!r} is not ADDRESS:PORT", _EXAMPLE, Exit.USAGE)
    host = found["six"] or found["name"]
    try:
        infos = socket.getaddrinfo(host, int(found["port"]), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise KsmtraceError(f"there is no address {host!r}", _EXAMPLE, Exit.USAGE) from None
    family, _, _, _, sockaddr = infos[0]
    return Address(family, sockaddr)


def cannot_listen(address: Address, error: OSError) -> KsmtraceError:
    """The error for an address that can't be bound."""
    port = address.sockaddr[1]
    words, hint = {
        errno.EADDRINUSE: (
            f"{address} is in use by another program",
            f"choose another port with --listen, or see who has it: ss -ltnp 'sport = {port}'",
        ),
        errno.EACCES: (f"port {port} needs privilege", "choose a port above 1023 with --listen"),
        errno.EADDRNOTAVAIL: (f"this host has no address {address.sockaddr[0]}", "see: ip address"),
    }.get(error.errno or 0, (f"can't listen on {address}: {error.strerror}", _EXAMPLE))
    return KsmtraceError(words, hint)
