from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from prometheus_client.metrics_core import Metric as Family
from support.fake_host import FakeHost

Scrape = Callable[..., dict[str, Family]]


def by_labels(family: Family) -> dict[tuple[str, ...], float]:
    return {tuple(s.labels.values()): s.value for s in family.samples}


def value(found: dict[str, Family], name: str) -> float:
    (sample,) = found[name].samples
    return float(sample.value)


def test_the_hosts_figures_are_the_kernels_in_base_units(host: FakeHost, scrape: Scrape) -> None:
    found = scrape()
    assert value(found, "node_ksmd_full_scans") == 17
    assert value(found, "node_ksmd_pages_sharing") == 101
    assert value(found, "node_ksmd_sleep_seconds") == pytest.approx(0.02)
    assert value(found, "ksmtrace_stable_node_chains_prune_seconds") == 2
    assert value(found, "ksmtrace_ksmd_cpu_seconds") == pytest.approx(1.5)
    assert value(found, "ksmtrace_cow_ksm") == 23
    assert value(found, "ksmtrace_saved_bytes") == (101 + 11) * os.sysconf("SC_PAGE_SIZE")
    assert by_labels(found["ksmtrace_advisor_mode"]) == {("scan-time",): 1}


def test_profit_keeps_its_sign(host: FakeHost, scrape: Scrape) -> None:
    host.process(101, profit=-4096)
    found = scrape()
    assert value(found, "node_ksmd_general_profit_bytes") == -8192
    assert value(found, "ksmtrace_process_profit_bytes") == -4096


def test_what_this_kernel_lacks_is_absent_not_zero(host: FakeHost, scrape: Scrape) -> None:
    for name in ("general_profit", "smart_scan", "ksm_zero_pages", "advisor_mode"):
        (host.ksm / name).unlink()
    host.vmstat.unlink()
    host.remove(37)
    found = scrape()
    for name in (
        "node_ksmd_general_profit_bytes", "ksmtrace_smart_scan", "ksmtrace_zero_pages",
        "ksmtrace_advisor_mode", "ksmtrace_cow_ksm", "ksmtrace_ksmd_cpu_seconds",
    ):  # fmt: skip
        assert name not in found
    assert value(found, "ksmtrace_saved_bytes") == 101 * os.sysconf("SC_PAGE_SIZE")


def test_without_any_file_only_its_own_figures_are_left(host: FakeHost, scrape: Scrape) -> None:
    for file in host.ksm.iterdir():
        file.unlink()
    host.remove(37)
    host.vmstat.unlink()
    assert not any(name.startswith("node_") or "saved" in name for name in scrape())


def test_only_registered_processes_are_listed(host: FakeHost, scrape: Scrape) -> None:
    host.process(101, merging=3, comm=b"one")
    host.process(103, registered=False, comm=b"two")
    found = scrape()
    assert by_labels(found["ksmtrace_process_merging_pages"]) == {("101", "one"): 3}
    assert value(found, "ksmtrace_processes_registered") == 1


def test_the_rest_is_summed_and_counted(host: FakeHost, scrape: Scrape) -> None:
    for number in range(11):
        host.process(
            101 + number, merging=number, items=2, profit=-10, comm=b"p%d" % number,
            cgroup=f"/c{number % 3}",
        )  # fmt: skip
    found = scrape(processes=2, groups=1)
    merging = by_labels(found["ksmtrace_process_merging_pages"])
    assert merging == {("111", "p10"): 10, ("110", "p9"): 9, ("other", "other"): 36}
    assert by_labels(found["ksmtrace_process_profit_bytes"])["other", "other"] == -90
    assert value(found, "ksmtrace_processes_left_out") == 9
    assert by_labels(found["ksmtrace_cgroup_merging_pages"]) == {("/c1",): 22, ("other",): 33}
    assert by_labels(found["ksmtrace_cgroup_processes"]) == {("/c1",): 4, ("other",): 7}
    assert value(found, "ksmtrace_cgroups_left_out") == 2


def test_guests_are_named_and_those_of_one_name_are_one(host: FakeHost, scrape: Scrape) -> None:
    for tgid, name in ((101, b"web"), (103, b"web"), (107, b"db"), (109, b"other")):
        host.process(tgid, merging=tgid, arguments=b"qemu-system-x86_64\0-name\0%s\0" % name)
    found = scrape()
    merging = by_labels(found["ksmtrace_vm_merging_pages"])
    assert merging == {("web",): 204, ("db",): 107, ("other",): 109}
    assert value(found, "ksmtrace_vms_left_out") == 1


def test_a_name_that_steers_a_terminal_is_escaped_and_a_long_one_cut(
    host: FakeHost, scrape: Scrape
) -> None:
    host.process(101, merging=1, comm=b'a"\n\x1b[2J\xff', cgroup="/" + "x" * 999)
    found = scrape()
    (names,) = by_labels(found["ksmtrace_process_merging_pages"])
    assert names == ("101", 'a"\\n\\x1b[2J\\xff')
    (cgroup,) = by_labels(found["ksmtrace_cgroup_merging_pages"])
    assert cgroup == ("/" + "x" * 255,)
