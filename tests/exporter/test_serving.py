from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.fake_host import FakeHost

from ksmtrace.errors import KsmtraceError
from ksmtrace.exporter import serving
from ksmtrace.exporter.collect import KsmCollector
from ksmtrace.exporter.listening import parse_address
from ksmtrace.exporter.serving import Server
from ksmtrace.kernel.sysfs import HostSampler
from ksmtrace.processes.background import Background
from ksmtrace.processes.following import Processes

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Running:
    """A server on a free port of loopback, in a thread."""

    def __init__(self, host: FakeHost, address: str = "127.0.0.1:0") -> None:
        self.said: list[str] = []
        self.sampler = HostSampler(host.ksm, host.vmstat, host.proc)
        self.processes = Processes(50, 100, host.proc)
        background = Background(self.processes.take, self.said.append)
        self.collector = KsmCollector(self.sampler, background, None, (50, 50))
        self.server = Server(parse_address(address), self.collector, self.said.append)
        self.where = self.server.server_address
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def ask(self, path: str, method: str = "GET", accept: str = "") -> tuple[int, str, bytes]:
        with closing(
            http.client.HTTPConnection(str(self.where[0]), self.where[1], timeout=20)
        ) as c:
            c.request(method, path, headers={"Accept": accept})
            answer = c.getresponse()
            return answer.status, answer.headers["Content-Type"] or "", answer.read()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(20)
        self.sampler.close()
        self.processes.close()


@pytest.fixture
def running(host: FakeHost) -> Iterator[Running]:
    one = Running(host)
    yield one
    one.close()


def test_openmetrics_and_text_by_what_is_asked_for(running: Running) -> None:
    status, kind, page = running.ask("/metrics", accept=OPENMETRICS)
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    ours = {family.name for family in text_string_to_metric_families(page.decode())}
    status, kind, page = running.ask("/metrics", accept="text/plain;version=0.0.4")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert b"# EOF" not in page
    plain = {family.name for family in parse_text(page.decode())}
    assert {name.removesuffix("_info") for name in plain} >= ours


def test_the_front_page_points_to_the_metrics_and_all_else_is_not_found(running: Running) -> None:
    status, kind, page = running.ask("/")
    assert (status, kind.partition(";")[0]) == (200, "text/html")
    assert b'href="/metrics"' in page
    for path in ("/metricss", "/metrics/", "/../etc/passwd"):
        assert running.ask(path)[0] == 404
    assert running.ask("/metrics?name[]=x")[0] == 200


def test_head_has_no_page_and_other_methods_are_refused(running: Running) -> None:
    for path in ("/", "/metrics"):
        status, kind, page = running.ask(path, "HEAD")
        assert (status, page) == (200, b"")
        assert kind
    for method in ("POST", "PUT", "DELETE", "TRACE"):
        assert running.ask("/metrics", method)[0] == 501


def test_many_at_once_get_a_whole_page_each(running: Running) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(running.ask("/metrics", accept=OPENMETRICS)[2])
        )
        for _ in range(13)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 13
    assert all(page.endswith(b"# EOF\n") for page in found)


def test_clients_that_say_nothing_and_never_leave_hold_up_nobody(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_MOST_CONNECTIONS", 11)
    stuck = []
    for number in range(31):
        client = socket.create_connection((str(running.where[0]), running.where[1]), timeout=20)
        if number % 2:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/pl")
        stuck.append(client)
    begin = time.monotonic()
    assert running.ask("/metrics")[0] == 200
    assert time.monotonic() - begin < 5
    assert stuck[0].recv(1) == b""
    for client in stuck:
        client.close()


def test_garbage_is_answered_or_dropped_and_the_next_client_served(running: Running) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"X" * 70_000 + b"\r\n\r\n", b""):
        with socket.create_connection((str(running.where[0]), running.where[1]), timeout=20) as one:
            one.sendall(garbage)
            one.shutdown(socket.SHUT_WR)
    assert running.ask("/metrics")[0] == 200


def test_a_scrape_that_fails_is_an_error_500_counted_and_told(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> dict[str, int]:
        raise ValueError("nonsense in sysfs")

    with monkeypatch.context() as patch:
        patch.setattr(running.sampler, "counters", fails)
        assert running.ask("/metrics")[0] == 500
    assert "nonsense in sysfs" in running.said[-1]
    page = running.ask("/metrics")[2]
    assert b"ksmtrace_scrape_errors_total 1.0" in page


def test_an_address_in_use_is_told(running: Running) -> None:
    address = parse_address(f"127.0.0.1:{running.where[1]}")
    with pytest.raises(KsmtraceError, match="in use"):
        Server(address, running.collector, print)


def test_ipv6(host: FakeHost) -> None:
    try:
        one = Running(host, "[::1]:0")
    except KsmtraceError as error:
        pytest.skip(f"no IPv6 here: {error.message}")
    assert one.ask("/metrics")[0] == 200
    one.close()
