"""The live source on a host of files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ksmtrace.capture import pump
from ksmtrace.errors import Exit, KsmtraceError, Obstacle, host_cannot
from ksmtrace.events.batch import empty
from ksmtrace.top.host import Paths
from ksmtrace.top.live import LiveSource, Wanted
from ksmtrace.top.state import WHATS, TopState
from ksmtrace.top.sums import TopSums
from ksmtrace.top.table import listed
from ksmtrace.top.ui import Ui
from ksmtrace.views.top_json import top_dict
from tests.support.fake_host import FakeHost

S = 1_000_000_000


class Looked:
    """A live source on a fake host, looked at in a time of its own."""

    def __init__(self, root: Path, backend: str | None = None) -> None:
        self.host = FakeHost(root)
        (self.host.proc / "self").mkdir()
        (self.host.proc / "self" / "ksm_stat").write_text("")
        paths = Paths(self.host.ksm, self.host.vmstat, self.host.proc)
        self.source = LiveSource(Wanted(interval_s=5.0, backend=backend, paths=paths))
        self.ns = 100 * S

    def at(self, second: int, **counters: int) -> TopState:
        for name, value in counters.items():
            (self.host.ksm / name).write_text(f"{value}\n")
        return self.source.state(self.ns + second * S)


@pytest.fixture
def looked(tmp_path: Path) -> Iterator[Looked]:
    one = Looked(tmp_path)
    yield one
    one.source.close()


def test_the_first_look_has_the_counters_and_says_that_more_is_to_come(looked: Looked) -> None:
    state = looked.at(0)
    assert state.loading == "attaching"
    assert state.figures["saved_bytes"] == (101 + 11) * 4096
    assert state.figures["profit_bytes"] == -8192
    assert state.figures["sharing_per_shared"] == 101 / 3
    assert state.figures["ksmd_percent_of_one_core"] is None
    assert state.rows is None


def test_rates_are_of_the_last_five_seconds(looked: Looked) -> None:
    looked.source.start()
    for second in range(11):
        (looked.host.vmstat).write_text(f"cow_ksm {23 + second * second}\n")
        state = looked.at(second, pages_scanned=1009 + 7 * second, pages_sharing=101 + 3 * second)
    assert state.figures["visits_per_s"] == 7
    assert state.figures["merged_net_per_s"] == 3
    assert state.figures["breaks_per_s"] == (100 - 25) / 5
    assert state.figures["merges_per_s"] is None
    assert state.series is not None
    assert list(state.series.values["breaks_per_s"]) == [2 * n + 1 for n in range(10)]
    assert list(state.series.values["saved_bytes"])[-1] == (131 + 11) * 4096


def test_ksmds_cpu_is_told_of_one_core_and_of_the_host(looked: Looked) -> None:
    looked.at(0)
    (looked.host.proc / "37" / "schedstat").write_text("2000000000 5 5\n")
    state = looked.at(1)
    assert state.figures["ksmd_percent_of_one_core"] == pytest.approx(50)
    assert state.place.cpus is not None
    assert state.figures["ksmd_percent_of_host"] == pytest.approx(50 / state.place.cpus)


def test_counters_that_the_kernel_lacks_are_unknown_and_never_0(looked: Looked) -> None:
    for name in ("general_profit", "ksm_zero_pages", "pages_scanned", "pages_skipped"):
        (looked.host.ksm / name).unlink()
    looked.source.close()
    paths = Paths(looked.host.ksm, looked.host.vmstat, looked.host.proc)
    looked.source = LiveSource(Wanted(backend=None, paths=paths))
    looked.at(0)
    figures = looked.at(1).figures
    for name in ("profit_bytes", "ksm_zero_pages", "visits_per_s", "skipped_percent"):
        assert figures[name] is None
    assert figures["saved_bytes"] == 101 * 4096


def test_processes_are_read_and_grouped(looked: Looked) -> None:
    looked.host.process(101, merging=13, items=31, profit=-5, cgroup="/a", comm=b"one")
    looked.host.process(103, merging=17, items=37, profit=7, cgroup="/a", comm=b"\x1b[31mtwo")
    looked.source.start()
    state = looked.at(0)
    assert state.rows is not None
    lines = listed(state.rows, "process", "merged_pages", 7).lines
    assert [(line.tgid, line.name) for line in lines] == [(103, "\\x1b[31mtwo"), (101, "one")]
    assert lines[0].values["saved_bytes"] == (17 + 2) * 4096
    assert lines[0].values["merges"] is None
    together = listed(state.rows, "cgroup", "saved_bytes", 7).lines
    assert [(line.name, line.processes) for line in together] == [("/a", 2)]
    assert together[0].values["profit_bytes"] == 2


def test_from_counters_alone_it_says_so(looked: Looked) -> None:
    looked.source.start()
    state = looked.at(0)
    assert state.place.origin == "counters"
    assert state.notes == ["from counters alone, as asked for: no events"]
    assert state.lost is None
    assert not state.recent


@pytest.fixture
def no_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise host_cannot([Obstacle("missing CAP_BPF", "run with sudo")], "trace KSM")

    monkeypatch.setattr(pump, "choose_source", refuse)


def test_what_cannot_capture_goes_on_with_counters_and_says_why(
    tmp_path: Path, no_privilege: None
) -> None:
    one = Looked(tmp_path, "auto")
    one.source.start()
    notes = one.at(0).notes
    one.source.close()
    assert notes == ["from counters alone: missing CAP_BPF: run with sudo"]


def test_a_backend_that_was_asked_for_and_cannot_is_an_error(
    tmp_path: Path, no_privilege: None
) -> None:
    one = Looked(tmp_path, "core")
    with pytest.raises(KsmtraceError) as told:
        one.source.start()
    one.source.close()
    assert told.value.exit_code == Exit.HOST_CANNOT


def test_how_fast_a_process_merges_is_told_from_two_readings(looked: Looked) -> None:
    looked.host.process(101, merging=13)
    looked.source.start()
    looked.at(0)
    looked.host.process(101, merging=27)
    looked.host.process(103, merging=5)
    for second in range(1, 5):
        state = looked.at(second)
        time.sleep(0.2)
    assert state.rows is not None
    net = dict(zip(state.rows.tgid.tolist(), state.rows.columns["net_per_s"].tolist(), strict=True))
    assert net[101] > 0
    assert np.isnan(net[103]) or net[103] == 0


def test_a_process_that_cannot_be_read_is_counted_in_a_note(looked: Looked) -> None:
    looked.host.process(101, stat=None)
    (looked.host.proc / "101" / "ksm_stat").mkdir()
    looked.source.start()
    state = looked.at(0)
    assert any(note.startswith("1 process can't be read, so it is") for note in state.notes)
    assert state.rows is not None
    assert state.rows.unreadable == 1
    assert top_dict(state, Ui())["process"] is None


class _Breaking:
    """A capture's stream that ends in an error."""

    def read(self) -> np.ndarray[Any, Any]:
        raise OSError("gone")


def test_a_capture_that_died_leaves_unknown_rates_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def breaking(
        backend: str, sums: TopSums, *, say: Callable[[str], None], **_more: object
    ) -> Iterator[pump.Capture[TopSums]]:
        assert backend == "core"
        yield pump.Capture(backend, _Breaking(), sums, say)  # type: ignore[arg-type]

    monkeypatch.setattr(pump, "capturing", breaking)
    one = Looked(tmp_path, "core")
    one.source.start()
    time.sleep(0.2)
    one.at(0)
    state = one.at(5)
    one.source.close()
    assert state.figures["merges_per_s"] is None
    assert state.lost is None
    assert (state.place.origin, state.place.backend) == ("counters", None)
    assert any("the capture ended" in note for note in state.notes)


def test_a_kind_of_event_that_is_not_known_is_counted_as_nothing() -> None:
    batch = np.zeros(7, empty().dtype)
    batch["kind"] = 200
    sums = TopSums()
    sums.take(batch)
    totals = sums.totals()
    assert all(totals.of(what) == 0 for what in WHATS)
