from __future__ import annotations

from pathlib import Path

import pytest

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.vm.qemu import Machine, Qemu, command_line


def told(machine: Machine, swap: Path | None = None) -> str:
    return " ".join(command_line(machine, Path("/k"), Path("/i"), ["file:a"], swap))


def test_a_guest_is_emulated_and_out_of_this_machine_s_ksm() -> None:
    words = told(Machine())
    assert "-accel tcg" in words
    assert "mem-merge=off" in words
    assert "kvm" not in words


def test_a_guest_that_shall_be_merged_says_so() -> None:
    assert "mem-merge=on" in told(Machine(mergeable=True, name="guest-a"))
    assert "-name guest-a" in told(Machine(mergeable=True, name="guest-a"))


def test_two_nodes_share_the_memory_and_stay_out_of_ksm_too() -> None:
    words = told(Machine(memory_mib=1024, nodes=2))
    for node in (0, 1):
        assert f"id=m{node},size=512M,merge=off" in words
        assert f"nodeid={node},memdev=m{node}" in words


def test_a_swap_disk_is_one_that_every_kernel_has_a_driver_for() -> None:
    assert "nvme,drive=swap" in told(Machine(swap_mib=64), Path("/s"))


def test_without_qemu_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KsmtraceError, match="apt install qemu-system-x86") as caught:
        Qemu(Machine(), Path("/k"), Path("/i"), tmp_path)
    assert caught.value.exit_code == Exit.HOST_CANNOT


def test_a_qemu_that_ends_at_once_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "qemu-system-x86_64"
    fake.write_text("#!/bin/sh\necho 'no such machine' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    qemu = Qemu(Machine(), Path("/k"), Path("/i"), tmp_path)
    with pytest.raises(KsmtraceError, match="did not start: no such machine"):
        qemu.connect()
