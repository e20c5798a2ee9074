"""A headless Chromium, driven by Selenium: pages from disk, and Chrome's trace viewer.

The viewer is Catapult's, which chrome://tracing was until Chromium dropped that page: Go carries a
copy for `go tool trace`, and Debian's golang-1.19-src installs it.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

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
_READY = "return document.documentElement.dataset.ready === 'yes'"
_SHOW_ALL = "Emulation.setDeviceMetricsOverride"


def browser_obstacle() -> str | None:
    """Why no page can be opened in a browser here, or None."""
    for program, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver")):
        if shutil.which(program) is None:
            return f"there is no {program}: apt install {package}"
    if importlib.util.find_spec("selenium") is None:
        return "there is no selenium: pip install selenium"
    return None


@contextmanager
def browser(
    *,
    width: int = 1280,
    height: int = 1000,
    theme: Literal["light", "dark"] = "light",
    scripts: bool = True,
) -> Iterator[Chrome]:
    """A browser of its own; it keeps nothing. width, height: of the page, in CSS pixels."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With a driver named, Selenium looks for none, in the network least of all.
    driver = Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        driver.set_script_timeout(110)
        driver.set_page_load_timeout(60)
        resized(driver, width, height)
        colours = [{"name": "prefers-color-scheme", "value": theme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        if not scripts:
            driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        yield driver
    finally:
        driver.quit()


def resized(driver: Chrome, width: int, height: int) -> None:
    """Give the page another size."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd(_SHOW_ALL, size)


def opened(driver: Chrome, page: Path) -> float:
    """Open a page from disk and wait until its scripts have drawn it; the seconds that took."""
    begin = time.monotonic()
    driver.get(page.resolve().as_uri())
    while not driver.execute_script(_READY):
        assert time.monotonic() - begin < 30, driver.get_log("browser")
        time.sleep(0.01)
    return time.monotonic() - begin


def complaints(driver: Chrome) -> list[str]:
    """What the console has: errors, warnings, whatever the page's policy forbade."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: Chrome) -> list[str]:
    """Every address that pages asked for since the last call."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return found


def viewer_folder() -> Path | None:
    """Where the trace viewer is installed."""
    for folder in sorted(Path("/usr/share").glob("go-*/src/cmd/trace/static")):
        if all((folder / name).is_file() for name in _VIEWER_FILES):
            return folder
    return None


def viewer_obstacle() -> str | None:
    """Why no trace can be opened in a browser here, or None."""
    if viewer_folder() is None:
        return "there is no trace viewer: apt install golang-1.19-src"
    return browser_obstacle()


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


def opened_in_viewer(trace: Path, folder: Path, picture: Path | None = None) -> dict[str, Any]:
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
    with _served(site) as address, browser(width=1600) as driver:
        driver.get(address)
        told = driver.execute_async_script(_LOAD)
        if picture is not None:
            time.sleep(1)
            assert driver.save_screenshot(str(picture))
    assert "error" not in told, told["error"]
    return dict(told)
