"""The HTTP server: two pages, a thread for each connection, and no client that holds up others."""

from __future__ import annotations

import html
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ksmtrace import __version__
from ksmtrace.exporter.collect import KsmCollector
from ksmtrace.exporter.listening import Address, cannot_listen

_MOST_CONNECTIONS = 100
_PATIENCE = 30.0
"""Seconds that a client may take to send or receive something."""

_FRONT = f"""<!DOCTYPE html>
<title>ksmtrace exporter</title>
<h1>ksmtrace exporter {html.escape(__version__)}</h1>
<p><a href="/metrics">Metrics</a> of Kernel Samepage Merging on this host, for Prometheus.
<p>What each means: <code>docs/exporter.md</code>, or the HELP lines there.
""".encode()


class Server(ThreadingHTTPServer):
    """Listening from the start. Raises KsmtraceError where it can't.

    say: told of a scrape that failed.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, address: Address, collector: KsmCollector, say: Callable[[str], None]
    ) -> None:
        self.address_family = address.family
        self.collector = collector
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(collector)
        self.say = say
        self._clients: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        try:
            super().__init__(address.sockaddr[:2], _Handler, bind_and_activate=False)
            self.server_address = address.sockaddr  # IPv6's has four parts
            self.server_bind()
            self.server_activate()
        except OSError as error:
            if hasattr(self, "socket"):  # not where even that is refused, as without IPv6
                self.server_close()
            raise cannot_listen(address, error) from None

    def server_bind(self) -> None:
        """Bind; the standard one looks up the host's name as well, which may take long."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client; if there are too many, the one that is here longest has to go."""
        with self._lock:
            self._clients[id(request)] = request
            oldest = next(iter(self._clients.values()))
            crowded = len(self._clients) > _MOST_CONNECTIONS
            if crowded:
                del self._clients[id(oldest)]
                _hang_up(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The client is done."""
        with self._lock:
            self._clients.pop(id(request), None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is nothing to tell of."""


def _hang_up(client: socket.socket) -> None:
    try:
        client.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"ksmtrace/{__version__}"
    sys_version = ""
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """Both pages."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", _FRONT)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"There are / and /metrics.\n")

    def do_HEAD(self) -> None:
        """The same without the page itself."""
        self.do_GET()

    def _metrics(self) -> None:
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        try:
            body = encode(self.server.registry)
        except Exception as error:  # noqa: BLE001 a scrape that fails must not end the others
            self.server.collector.errors += 1
            self.server.say(f"a scrape failed: {error!r}")
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"The scrape failed.\n")
        else:
            self._answer(HTTPStatus.OK, content_type, body)

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base's name
        """Scrapes are not worth a line each."""
