from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ksmtrace.exporter.docs import metrics_table
from ksmtrace.exporter.grouping import label
from ksmtrace.exporter.metrics import HOST, METRICS, NODE_EXPORTERS, PROCESS
from ksmtrace.kernel.sysfs import COUNTERS, KNOBS
from ksmtrace.processes.identity import clean

# As the collector of node_exporter 1.9 exports them; its tests' expected page has them so.
NODE_EXPORTER_NAMES = {
    "node_ksmd_full_scans_total": "counter",
    "node_ksmd_general_profit_bytes": "gauge",
    "node_ksmd_merge_across_nodes": "gauge",
    "node_ksmd_pages_shared": "gauge",
    "node_ksmd_pages_sharing": "gauge",
    "node_ksmd_pages_to_scan": "gauge",
    "node_ksmd_pages_unshared": "gauge",
    "node_ksmd_pages_volatile": "gauge",
    "node_ksmd_run": "gauge",
    "node_ksmd_sleep_seconds": "gauge",
}


class _Fixed(Collector):
    def __init__(self, *families: Family) -> None:
        self.families = families

    def collect(self) -> tuple[Family, ...]:
        return self.families


def page(*families: Family) -> str:
    registry = CollectorRegistry()
    registry.register(_Fixed(*families))
    text: str = generate_latest(registry).decode()
    return text


def test_node_exporters_names_and_types_are_kept() -> None:
    ours = {metric.name: metric.kind for metric in HOST if metric.name.startswith("node_")}
    assert ours == NODE_EXPORTER_NAMES
    assert len(NODE_EXPORTERS) == len(NODE_EXPORTER_NAMES)


def test_every_counter_and_knob_of_the_host_has_one_metric() -> None:
    wanted = [c.name for c in COUNTERS if c.where != "process"] + [k.name for k in KNOBS]
    assert [metric.source for metric in HOST] == wanted


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_name_tells_type_and_unit(metric: object) -> None:
    assert metric in METRICS
    one = next(m for m in METRICS if m is metric)
    assert re.fullmatch(r"(node_ksmd|ksmtrace)(_[a-z0-9]+)+", one.name)
    assert one.name.endswith("_total") == (one.kind == "counter")
    assert one.name.endswith("_info") == (one.kind == "info")
    base = one.name.removesuffix("_total")
    if one.unit:
        assert base.endswith(f"_{one.unit}")
    assert not re.search(r"_(ns|ms|millisecs|milliseconds)(_|$)", one.name)
    assert one.meaning
    assert f"| `{one.name}` |" in metrics_table()


def test_no_name_is_declared_twice() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)


@given(st.binary(max_size=600))
def test_any_name_of_a_process_survives_the_page(raw: bytes) -> None:
    comm = label(clean(raw)) or ""
    family = PROCESS[0].family()
    PROCESS[0].add(family, -7, "1009", comm)
    parsed = list(text_string_to_metric_families(page(family)))
    assert [sample.labels for sample in parsed[0].samples] == [{"tgid": "1009", "comm": comm}]
    assert parsed[0].samples[0].value == -7


def test_the_whole_page_is_openmetrics(scrape: Callable[..., dict[str, Family]]) -> None:
    found = scrape()
    text = page(*found.values())
    assert text.endswith("# EOF\n")
    parsed = {family.name: family for family in text_string_to_metric_families(text)}
    assert parsed.keys() == found.keys()
    declared = {metric.family().name: metric for metric in METRICS}
    for name, family in parsed.items():
        assert family.type == declared[name].kind
        assert family.documentation == declared[name].meaning
        assert family.unit == declared[name].unit
