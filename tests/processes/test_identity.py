from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ksmtrace.processes.identity import all_tgids, clean, guest_name, identify

HOSTILE = [
    b"\x1b]0;owned\x07",
    b"\x1b[31mred\x1b[0m",
    b"\xc2\x9b31m",
    b"a\nb\rc\td",
    b"\xff\xfe\x80",
    "\u202egnp.exe".encode(),
    "\u2028\u200b\ufeff".encode(),
    b"\0\x7f",
]


@pytest.mark.parametrize("raw", HOSTILE)
def test_what_could_steer_a_terminal_is_escaped(raw: bytes) -> None:
    assert clean(raw).isprintable()
    assert "\\" in clean(raw)


@given(st.binary() | st.text())
def test_any_words_become_printable(raw: bytes | str) -> None:
    assert clean(raw).isprintable()
    clean(raw).encode()


@example("\ud800")
@given(st.text(st.characters()))
def test_cleaning_what_is_clean_changes_nothing(raw: str) -> None:
    assert clean(clean(raw)) == clean(raw)


@given(st.text().filter(str.isprintable))
def test_printable_words_stay_as_they_are(raw: str) -> None:
    assert clean(raw) == clean(raw.encode()) == raw


QEMU = "/usr/bin/qemu-system-x86_64"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([QEMU, "-name", "web1"], "web1"),
        ([QEMU, "-m", "512", "--name", "web1,process=qemu-web1"], "web1"),
        ([QEMU, "-name", "guest=db7,debug-threads=on"], "db7"),
        ([QEMU, "-name", "debug-threads=on,guest=db7"], "db7"),
        (["qemu-kvm", "-name", "old"], "old"),
        (["/usr/libexec/qemu-kvm", "-name", "guest=rhel"], "rhel"),
        (["qemu-system-aarch64", "-name", "guest=arm"], "arm"),
        (["/usr/bin/kvm", "-name", "guest=a b", "-id", "100"], "a b"),
        ([QEMU, "-m", "512"], None),
        ([QEMU, "-name"], None),
        (["/usr/bin/python3", "-name", "snake"], None),
        (["find", ".", "-name", "qemu-system-x86_64"], None),
        (["notqemu-system-x86_64", "-name", "x"], None),
        ([], None),
        ([""], None),
    ],
)
def test_the_name_of_a_guest(arguments: list[str], name: str | None) -> None:
    assert guest_name(arguments) == name


def test_a_doubled_comma_is_a_comma_of_the_name() -> None:
    assert guest_name([QEMU, "-name", "guest=a,,b,debug-threads=on"]) == "a,b"


@given(st.lists(st.text() | st.sampled_from(["-name", "guest=", ",", QEMU, "kvm"])))
def test_any_arguments_are_a_guest_or_none(arguments: list[str]) -> None:
    assert isinstance(guest_name(arguments), str | None)


def process(
    proc: Path,
    tgid: int,
    *,
    comm: bytes = b"sleep",
    cmdline: bytes = b"",
    cgroup: str = "0::/\n",
) -> None:
    """A fake process: parent 7, started at tick 1009."""
    folder = proc / str(tgid)
    folder.mkdir()
    fields = [b"S", b"7", *(b"%d" % n for n in range(5, 22)), b"1009", b"23", b"24"]
    (folder / "stat").write_bytes(b"%d (%s) %s\n" % (tgid, comm, b" ".join(fields)))
    (folder / "comm").write_bytes(comm + b"\n")
    (folder / "cmdline").write_bytes(cmdline)
    (folder / "cgroup").write_text(cgroup)


def test_a_process_is_identified(tmp_path: Path) -> None:
    process(tmp_path, 11, cmdline=b"/bin/sleep\0007\0", cgroup="0::/user.slice/a.scope\n")
    found = identify(11, tmp_path)
    assert found is not None
    assert (found.tgid, found.parent_tgid, found.start_ticks) == (11, 7, 1009)
    assert (found.comm, found.cmdline, found.vm) == ("sleep", "/bin/sleep 7", None)
    assert found.cgroup == "/user.slice/a.scope"


@pytest.mark.parametrize(
    "comm", [b") S 1 2 3", b"((((", b"a) b (c", b"\x1b[31m) R 9", b"new\nline", b"\xff) Z 5", b""]
)
def test_no_name_can_forge_the_numbers_behind_it(tmp_path: Path, comm: bytes) -> None:
    process(tmp_path, 11, comm=comm)
    found = identify(11, tmp_path)
    assert found is not None
    assert (found.parent_tgid, found.start_ticks) == (7, 1009)
    assert found.comm.isprintable()
    assert found.comm == clean(comm)


@given(comm=st.binary(max_size=15), cmdline=st.binary(max_size=31), cgroup=st.binary(max_size=31))
def test_whatever_a_process_calls_itself_it_is_identified_in_harmless_words(
    tmp_path_factory: pytest.TempPathFactory, comm: bytes, cmdline: bytes, cgroup: bytes
) -> None:
    proc = tmp_path_factory.mktemp("proc")
    process(proc, 11, comm=comm, cmdline=cmdline)
    (proc / "11" / "cgroup").write_bytes(cgroup)
    found = identify(11, proc)
    assert found is not None
    assert (found.parent_tgid, found.start_ticks) == (7, 1009)
    for words in (found.comm, found.cmdline or "", found.cgroup or "", found.vm or ""):
        assert words.isprintable()


def test_a_guest_with_a_hostile_name_is_harmless(tmp_path: Path) -> None:
    process(tmp_path, 11, cmdline=b"qemu-system-x86_64\0-name\0guest=\x1b[2Jx\0")
    found = identify(11, tmp_path)
    assert found is not None
    assert found.vm == "\\x1b[2Jx"


def test_a_kernel_thread_or_zombie_has_no_command_line(tmp_path: Path) -> None:
    process(tmp_path, 11)
    found = identify(11, tmp_path)
    assert found is not None
    assert found.cmdline is None


def test_a_process_that_is_gone_is_none(tmp_path: Path) -> None:
    assert identify(11, tmp_path) is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/user.slice\n", "/user.slice"),
        ("0::/\n", "/"),
        ("5:memory:/docker/abc\n1:name=systemd:/init.scope\n0::/\n", "/docker/abc"),
        ("5:cpu,memory:/docker/abc\n1:name=systemd:/init\n", "/docker/abc"),
        ("5:memory:/docker/abc\n0::/user.slice\n", "/user.slice"),
        ("1:name=systemd:/init.scope\n", None),
        ("0::/a:b\n", "/a:b"),
        ("", None),
        ("no colon at all\n", None),
    ],
)
def test_the_cgroup_is_version_2s_or_the_memory_controllers(
    tmp_path: Path, text: str, path: str | None
) -> None:
    process(tmp_path, 11, cgroup=text)
    found = identify(11, tmp_path)
    assert found is not None
    assert found.cgroup == path


def test_every_process_is_listed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("11", "7", "self", "4194303", "sys", "1a"):
        (tmp_path / name).mkdir()
    assert sorted(all_tgids(tmp_path)) == [7, 11, 4194303]
