from __future__ import annotations

import errno
import socket
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.exporter.listening import cannot_listen, parse_address


@pytest.mark.parametrize(
    ("text", "family", "host", "port", "loopback"),
    [
        ("127.0.0.1:9437", socket.AF_INET, "127.0.0.1", 9437, True),
        ("0.0.0.0:1", socket.AF_INET, "0.0.0.0", 1, False),
        ("[::1]:9437", socket.AF_INET6, "::1", 9437, True),
        ("[::]:0", socket.AF_INET6, "::", 0, False),
        ("192.0.2.7:65535", socket.AF_INET, "192.0.2.7", 65535, False),
    ],
)
def test_addresses(text: str, family: int, host: str, port: int, loopback: bool) -> None:
    address = parse_address(text)
    assert (address.family, *address.sockaddr[:2]) == (family, host, port)
    assert address.loopback == loopback
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "9437", ":9437", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:9437",
     "[::1]", "[]:1", "1.2.3.4:1 ", "http://127.0.0.1:9437", "a b:1", "256.0.0.1:1", "[zz]:1",
     "1.2.3.4:٣", "a" * 300 + ":1", "no-such-host.invalid:1"],
)  # fmt: skip
def test_what_is_no_address_is_a_usage_error_with_an_example(text: str) -> None:
    with pytest.raises(KsmtraceError) as caught:
        parse_address(text)
    assert caught.value.exit_code == Exit.USAGE
    assert "127.0.0.1:9437" in (caught.value.hint or "")


@given(st.text(alphabet="0123456789.:[]%x-\x00", max_size=40))
def test_no_text_crashes_it(text: str) -> None:
    with suppress(KsmtraceError):
        parse_address(text)


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, errno.EIO])
def test_what_can_not_be_bound_is_told_with_a_way_out(number: int) -> None:
    error = cannot_listen(parse_address("127.0.0.1:80"), OSError(number, "whatever"))
    assert error.exit_code == Exit.FAILED
    assert error.hint
