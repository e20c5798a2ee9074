"""What a scrape of a fake host gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric as Family
from support.fake_host import FakeHost

from ksmtrace.exporter.collect import KsmCollector
from ksmtrace.kernel.sysfs import HostSampler
from ksmtrace.processes.background import Background
from ksmtrace.processes.following import Processes


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


@pytest.fixture
def scrape(host: FakeHost) -> Iterator[Callable[..., dict[str, Family]]]:
    """Families by name, of a collector over the fake host."""
    samplers: list[HostSampler] = []
    readers: list[Processes] = []

    def take(processes: int = 50, groups: int = 50) -> dict[str, Family]:
        samplers.append(HostSampler(host.ksm, host.vmstat, host.proc))
        readers.append(Processes(processes, 100, host.proc))
        background = Background(readers[-1].take, print)
        collector = KsmCollector(samplers[-1], background, None, (processes, groups))
        return {family.name: family for family in collector.collect()}

    yield take
    for sampler in samplers:
        sampler.close()
    for reader in readers:
        reader.close()
