"""What is chosen and what doctor says on a kernel with UKSM in KSM's place."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_uksm import FakeUksm

from ksmtrace.capture import doctor
from ksmtrace.capture.choose import SOURCES, choose_source
from ksmtrace.capture.uksm import UksmSource, choose_uksm
from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel import host
from ksmtrace.kernel.diagnosis import Diagnosis, Finding


@pytest.fixture(name="fake")
def make_fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeUksm:
    fake = FakeUksm(tmp_path)
    fake.install(monkeypatch)
    return fake


def topics(diagnosis: Diagnosis) -> dict[str, Finding]:
    return {finding.topic: finding for finding in diagnosis.findings}


@pytest.mark.usefixtures("fake")
def test_auto_takes_uksm_and_says_why() -> None:
    choice = choose_uksm("auto")
    assert choice is not None
    assert choice.source.name == "uksm"
    assert "in place of KSM" in choice.why
    assert "no tracepoints" in choice.why
    asked = choose_uksm("uksm")
    assert asked is not None
    assert asked.why == "asked for"


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", SOURCES)
def test_no_other_backend_works_beside_uksm_and_the_error_says_so(name: str) -> None:
    assert choose_uksm(name) is None
    with pytest.raises(KsmtraceError, match="UKSM in place of KSM") as caught:
        choose_source(name)
    assert caught.value.exit_code == Exit.HOST_CANNOT


def test_with_ksm_nothing_is_chosen_even_if_uksms_folder_were_there(fake: FakeUksm) -> None:
    fake.ksm.mkdir()
    assert choose_uksm("auto") is None
    assert host.ksm_obstacles() == []


def test_a_kernel_without_either_is_told_as_before(fake: FakeUksm, tmp_path: Path) -> None:
    fake.uksm.rename(tmp_path / "gone")
    assert choose_uksm("auto") is None
    (obstacle,) = host.ksm_obstacles()
    assert obstacle.what.startswith("this kernel has no KSM")
    with pytest.raises(KsmtraceError, match="no UKSM") as caught:
        choose_uksm("uksm")
    assert caught.value.exit_code == Exit.HOST_CANNOT
    diagnosis = doctor.examine()
    assert (diagnosis.system, diagnosis.can_trace, diagnosis.can_record) == (None, False, False)


def test_the_stream_never_has_an_event_and_never_ends() -> None:
    with UksmSource().open(ring_bytes=4096) as stream:
        assert len(stream.read()) == 0
        assert not stream.exhausted
        assert stream.fileno() is None
        stream.stop()


def test_doctor_says_which_system_and_what_can_be_observed(
    fake: FakeUksm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "kernel_release", lambda: "6.6.30-uksm")
    diagnosis = doctor.examine()
    found = topics(diagnosis)
    assert (diagnosis.system, diagnosis.can_trace, diagnosis.can_record) == ("uksm", False, True)
    assert diagnosis.as_dict()["can_record"] is True
    assert "in KSM's place" in found["UKSM"].detail
    assert found["tracepoints"].state == "no"
    assert "0.1.2.6" in found["release"].detail
    assert "ports to Linux 6.6" in found["release"].detail
    assert found["uksmd"].detail == "running (run=1)"
    assert found["governor"].detail == "full, at most 95 % of one CPU"
    assert found["counters and knobs"].state == "yes"
    assert found["beside them"].detail == "zero_pages, cow_ksm, uksmd_cpu_ns"
    assert "vendor" not in found
    assert not any(topic.startswith("backend ") for topic in found if topic != "backend uksm")
    (fake.uksm / "sleep_times").unlink()
    assert "lacks sleep_times" in topics(doctor.examine())["counters and knobs"].detail


def test_doctor_knows_a_paused_daemon_a_vendor_and_a_kernel_without_a_port(
    fake: FakeUksm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "kernel_release", lambda: "6.13.1")
    fake.put(run="0", cpu_governor="full medium low quiet [android] ")
    found = topics(doctor.examine())
    assert found["uksmd"].state == "note"
    assert "run=0" in found["uksmd"].detail
    assert found["governor"].detail.startswith("android")
    assert found["vendor"].detail.startswith("android")
    assert "no port to Linux 6.13.1 is known" in found["release"].detail
