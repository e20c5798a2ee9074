"""Chrome's trace viewer in a headless Chromium, driven by WebDriver.

The viewer is Catapult's, which chrome://tracing was until Chromium dropped that page: Go carries a
copy for `go tool trace`, and Debian's golang-1.19-src installs it.
"""

from __future__ import annotations

import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_VIEWER_FILES = ("trace_viewer_full.html", "webcomponents.min.js")
_PAGE = """<!doctype html><meta charset="utf-8">
<script src="webcomponents.min.js"></script>
<link rel="import" href="trace_viewer_full.html">
<style>html, body, #viewer { width: 100%; height: 100%; margin: 0 }</style>
<body></body>
"""
_LOAD = """
const done = arguments[arguments.length - 1];
const show = async () => {
  const text = await (await fetch("trace.json")).text();
  const model = new tr.Model();
  await new tr.importer.Import(model).importTracesWithProgressDialog([text]);
  const container = document.createElement("track-view-container");
  container.id = "track_view_container";
  const viewer = document.createElement("tr-ui-timeline-view");
  viewer.track_view_container = container;
  Polymer.dom(viewer).appendChild(container);
  viewer.id = "viewer";
  Polymer.dom(document.body).appendChild(viewer);
  viewer.globalMode = true;
  viewer.model = model;
  viewer.viewTitle = "ksmtrace";
  const told = {warnings: model.importWarnings.map(w => w.message), processes: {}};
  told.seconds = model.bounds.max / 1000;
  for (const process of model.getAllProcesses()) {
    const rows = {labels: process.labels, counters: {}, threads: {}};
    told.processes[process.name] = rows;
    for (const counter of Object.values(process.counters))
      rows.counters[counter.name] = counter.series.map(s => s.samples.map(x => x.value));
    for (const thread of Object.values(process.threads))
      rows.threads[thread.name] = thread.sliceGroup.slices.map(
        s => [s.title, s.start, s.duration, s.args]);
  }
  return told;
};
const begin = () => show().then(done, error => done({error: String(error.stack || error)}));
if (window.tr && window.Polymer) begin();
else document.addEventListener("WebComponentsReady", begin);
"""


def viewer_folder() -> Path | None:
    """Where the viewer is installed."""
    for folder in sorted(Path("/usr/share").glob("go-*/src/cmd/trace/static")):
        if all((folder / name).is_file() for name in _VIEWER_FILES):
            return folder
    return None


def browser_obstacle() -> str | None:
    """Why no trace can be opened in a browser here, or None."""
    for program, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver")):
        if shutil.which(program) is None:
            return f"there is no {program}: apt install {package}"
    if viewer_folder() is None:
        return "there is no trace viewer: apt install golang-1.19-src"
    return None


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _driver(profile: Path) -> Iterator[str]:
    with socket_free() as port:
        pass
    driver = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                _call("GET", f"{base}/status")
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        options = {
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000",
                f"--user-data-dir={profile}",
            ]
        }  # fmt: skip
        wanted = {"alwaysMatch": {"goog:chromeOptions": options}}
        session = _call("POST", f"{base}/session", {"capabilities": wanted})
        here = f"{base}/session/{session['sessionId']}"
        _call("POST", f"{here}/timeouts", {"script": 110_000, "pageLoad": 60_000})
        try:
            yield here
        finally:
            _call("DELETE", here)
    finally:
        driver.terminate()
        driver.wait(20)


@contextmanager
def socket_free() -> Iterator[int]:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


def _call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(error.read().decode()) from None


def opened_in_browser(trace: Path, folder: Path, picture: Path | None = None) -> dict[str, Any]:
    """What the viewer made of a trace: warnings, and each process's counters and threads.

    folder: an empty one to work in. picture: where a screenshot goes.
    """
    viewer = viewer_folder()
    assert viewer is not None
    site = folder / "site"
    site.mkdir()
    for name in _VIEWER_FILES:
        (site / name).symlink_to(viewer / name)
    (site / "trace.json").symlink_to(trace.resolve())
    (site / "index.html").write_text(_PAGE)
    with _served(site) as address, _driver(folder / "profile") as session:
        _call("POST", f"{session}/url", {"url": address})
        told = _call("POST", f"{session}/execute/async", {"script": _LOAD, "args": []})
        if picture is not None:
            time.sleep(1)
            picture.write_bytes(base64.b64decode(_call("GET", f"{session}/screenshot")))
    assert "error" not in told, told["error"]
    return dict(told)
