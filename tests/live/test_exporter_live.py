from __future__ import annotations

import ctypes
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.prometheus import tool

from ksmtrace.exporter.files import dashboard
from ksmtrace.kernel.stepper import Stepper
from ksmtrace.kernel.sysfs import KSM, read_ksm_stat, read_number
from ksmtrace.processes.following import Processes
from tests.live.conftest import KSMTRACE, Actor

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Exporter:
    """A running `ksmtrace exporter` on a free port of loopback."""

    def __init__(self, words: Path, *options: str, before: tuple[str, ...] = ()) -> None:
        self._words = words
        command = [*before, str(KSMTRACE), "exporter", "--listen", "127.0.0.1:0", *options]
        with words.open("w") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr)
        deadline = time.monotonic() + 30
        while (found := re.search(r"http://127\.0\.0\.1:(\d+)/", self.words())) is None:
            assert self.process.poll() is None, self.words()
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.01)
        self.port = int(found[1])

    def words(self) -> str:
        return self._words.read_text()

    def page(self, accept: str = OPENMETRICS) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", "/metrics", headers={"Accept": accept})
        answer = connection.getresponse()
        page = answer.read().decode()
        connection.close()
        assert answer.status == 200, page
        return page

    def values(self) -> Values:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.values().get((name, frozenset(labels.items())))

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Callable[..., Exporter]]:
    started: list[Exporter] = []

    def start(*options: str, before: tuple[str, ...] = ()) -> Exporter:
        started.append(Exporter(tmp_path / f"words{len(started)}", *options, before=before))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[int], Callable[[str], list[Any]]]]:
    """Start a Prometheus that scrapes a port each second; returns how to query it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(target: int) -> Callable[[str], list[Any]]:
        port = free_port()
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            "scrape_configs: [{job_name: ksm, static_configs: "
            f"[{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        with (tmp_path / "prometheus.log").open("w") as log:
            started.append(
                subprocess.Popen(
                    [
                        tool("prometheus"), f"--config.file={config}",
                        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                        f"--web.listen-address=127.0.0.1:{port}",
                    ],
                    stdout=log, stderr=log,
                )
            )  # fmt: skip

        def query(expression: str) -> list[Any]:
            asked = urllib.parse.urlencode({"query": expression})
            url = f"http://127.0.0.1:{port}/api/v1/query?{asked}"
            with urllib.request.urlopen(url, timeout=20) as answer:
                found: list[Any] = json.load(answer)["data"]["result"]
                return found

        deadline = time.monotonic() + 60
        while True:
            try:
                if query("up == 1"):
                    return query
            except OSError:
                pass
            assert time.monotonic() < deadline, (tmp_path / "prometheus.log").read_text()
            time.sleep(0.1)

    yield start
    for one in started:
        one.terminate()
        one.wait(30)


def number(found: list[Any]) -> float:
    (series,) = found
    return float(series["value"][1])


def test_promtool_has_nothing_to_say_of_the_metrics(
    ksmd: Stepper, actor: Callable[[list[int]], Actor], exporter: Callable[..., Exporter]
) -> None:
    actor([1] * 13)
    ksmd.scan(3)
    page = exporter("--capture", "--cow").page(accept="text/plain; version=0.0.4")
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=page, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_real_prometheus_has_what_sysfs_and_ksm_stat_say(
    ksmd: Stepper,
    actor: Callable[[list[int]], Actor],
    exporter: Callable[..., Exporter],
    prometheus: Callable[[int], Callable[[str], list[Any]]],
) -> None:
    one, two = actor([1] * 101 + list(range(2, 9))), actor([1] * 31)
    ksmd.scan(3)
    query = prometheus(exporter("--capture").port)
    sharing = read_number(KSM / "pages_sharing")
    assert sharing == 131
    deadline = time.monotonic() + 30
    while not query("node_ksmd_pages_sharing") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert number(query("node_ksmd_pages_sharing")) == sharing
    assert number(query("node_ksmd_general_profit_bytes")) == read_number(KSM / "general_profit")
    assert number(query("sum(ksmtrace_cgroup_merging_pages)")) == 132
    for who in (one, two):
        stat = read_ksm_stat(who.pid)
        assert stat
        for metric, name in (
            ("merging_pages", "ksm_merging_pages"),
            ("rmap_items", "ksm_rmap_items"),
            ("profit_bytes", "ksm_process_profit"),
        ):
            asked = f'ksmtrace_process_{metric}{{tgid="{who.pid}"}}'
            assert number(query(asked)) == stat[name], asked
    for panel in json.loads(dashboard())["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "1m").replace("$instance", "x")
            assert query(text) == []


def test_a_capture_counts_what_ksmd_does(
    ksmd: Stepper, actor: Callable[[list[int]], Actor], exporter: Callable[..., Exporter]
) -> None:
    running = exporter("--capture", "--cow")
    assert "backend core: " in running.words()
    one = actor([1] * 101)
    ksmd.scan(3)
    one.do("write", 2, *range(7))
    deadline = time.monotonic() + 20
    while running.value("ksmtrace_cow_breaks_total") != 7:
        assert time.monotonic() < deadline, running.page()
        time.sleep(0.05)
    assert running.value("ksmtrace_merges_total") == 101
    assert running.value("ksmtrace_scan_duration_seconds_count") == 3
    assert running.value("ksmtrace_events_lost_total") == 0
    comm = Path(f"/proc/{one.pid}/comm").read_text().strip()
    breaks = running.value("ksmtrace_process_cow_breaks_total", tgid=str(one.pid), comm=comm)
    assert breaks == 7
    assert running.end(signal.SIGINT) == 0


def test_each_signal_ends_it_at_once_with_success(exporter: Callable[..., Exporter]) -> None:
    for options in ((), ("--capture",)):
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            running = exporter(*options)
            begin = time.monotonic()
            assert running.end(signal_number) == 0
            assert time.monotonic() - begin < 2
            assert "Traceback" not in running.words()


def test_without_privilege_it_serves_the_host_and_says_what_it_cannot_read(
    actor: Callable[[list[int]], Actor], exporter: Callable[..., Exporter]
) -> None:
    actor([1])
    plain = ("setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "--")
    try:
        running = exporter(before=plain)
    except AssertionError as error:
        if "Permission denied" in str(error) or "No such file" in str(error):
            pytest.skip("another user can't reach this checkout")
        raise
    assert running.value("node_ksmd_run") is not None
    unreadable = running.value("ksmtrace_processes_unreadable")
    assert unreadable
    assert "CAP_DAC_READ_SEARCH" in running.words()
    assert running.value("ksmtrace_processes_registered") == 0
    enough = (
        "setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search", "--",
    )  # fmt: skip
    able = exporter(before=enough)
    assert able.value("ksmtrace_processes_unreadable") == 0
    assert able.value("ksmtrace_processes_registered") == 1


def test_an_address_in_use_ends_with_1_and_no_ksm_with_3(
    exporter: Callable[..., Exporter],
) -> None:
    port = exporter().port
    command = [str(KSMTRACE), "exporter", "--listen"]
    done = subprocess.run(
        [*command, f"127.0.0.1:{port}"], capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 1
    assert "in use" in done.stderr
    hidden = f"mount -t tmpfs none /sys/kernel/mm && exec {KSMTRACE} exporter --listen 127.0.0.1:0"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", hidden],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "CONFIG_KSM" in done.stderr


def test_an_id_used_again_is_another_process() -> None:
    def child(name: bytes) -> int:
        pid = os.fork()
        if pid == 0:
            libc = ctypes.CDLL(None)
            libc.prctl(15, name, 0, 0, 0)
            libc.prctl(67, 1, 0, 0, 0)
            signal.pause()
        return pid

    def ended(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    processes = Processes(50, 10_000)
    first = child(b"first")
    time.sleep(0.1)
    assert (first, "first") in {(r.identity.tgid, r.identity.comm) for r in processes.take().rows}
    ended(first)
    for _ in range(101):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(first - 1))
        second = child(b"second")
        if second == first:
            break
        ended(second)
    else:
        processes.close()
        pytest.skip("the process id was always taken by another")
    time.sleep(0.1)
    names = [r.identity.comm for r in processes.take().rows if r.identity.tgid == first]
    ended(second)
    assert names == ["second"]
    assert first not in [r.identity.tgid for r in processes.take().rows]
    processes.close()
