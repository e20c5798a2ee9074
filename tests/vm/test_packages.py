"""Finding the distribution's kernels, with stand-ins for apt's commands."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.vm.packages import cache, kernel_package

APT_CACHE = """
case "$1 $2" in
"depends linux-image-6.12-cloud-amd64")
    echo linux-image-6.12-cloud-amd64; echo "  Depends: linux-image-6.12.117+deb12-cloud-amd64";;
"depends linux-image-cloud-amd64")
    echo linux-image-cloud-amd64; echo "  Depends: linux-image-6.1.0-56-cloud-amd64";;
"policy linux-image-6.12.117+deb12-cloud-amd64")
    printf 'x:\\n  Installed: (none)\\n  Candidate: 6.12.117-1~deb12u1\\n';;
"policy linux-image-6.1.0-56-cloud-amd64")
    printf 'x:\\n  Installed: (none)\\n  Candidate: 6.1.192-2\\n';;
*) echo "N: Unable to locate package $2" >&2; exit 100;;
esac
"""
APT_GET = 'echo "$@" >> "$LOG"; echo archive > "$3_1_amd64.deb"'
DPKG_DEB = 'mkdir -p "$3/boot"; echo kernel > "$3/boot/vmlinuz-x"'


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Replace apt's commands; returns the log of what was downloaded."""
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("KSMTRACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOG", str(log))

    def install(cache: str = APT_CACHE, get: str = APT_GET, deb: str = DPKG_DEB) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, script in (("apt-cache", cache), ("apt-get", get), ("dpkg-deb", deb)):
            (folder / name).write_text(f"#!/bin/sh\n{script}")
            (folder / name).chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return log

    return install


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the stand-ins answer for amd64")
@pytest.mark.parametrize(("series", "version"), [("6.12", "6.12.117"), ("6.1", "6.1.192")], ids=str)
def test_a_series_is_found_through_a_meta_package(
    apt: Callable[..., Path], series: str, version: str
) -> None:
    log = apt()
    found = kernel_package(series)
    assert (found.series, found.version) == (series, version)
    assert found.image.read_text() == "kernel\n"
    assert len(log.read_text().splitlines()) == 1
    assert kernel_package(series) == found
    assert len(log.read_text().splitlines()) == 1, "it was downloaded again"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the stand-ins answer for amd64")
def test_without_a_network_what_was_fetched_before_serves(apt: Callable[..., Path]) -> None:
    apt()
    before = kernel_package("6.12")
    apt(cache="exit 100")
    assert kernel_package("6.12") == before


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the stand-ins answer for amd64")
def test_an_update_that_can_not_be_fetched_leaves_the_newest_kept_one(
    apt: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for patch in (9, 117, 20):
        apt(cache=APT_CACHE.replace("6.12.117", f"6.12.{patch}"))
        kernel_package("6.12")
    apt(cache=APT_CACHE.replace("6.12.117", "6.12.118"), get="exit 100")
    assert kernel_package("6.12").version == "6.12.117"
    assert "Linux 6.12.117 is used, which was fetched before" in capsys.readouterr().err


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the stand-ins answer for amd64")
@pytest.mark.parametrize("broken", ["get", "deb"])
def test_a_failed_download_says_so_and_leaves_nothing(
    apt: Callable[..., Path], broken: str
) -> None:
    apt(**{broken: "echo 'E: Could not connect' >&2; exit 100"})
    with pytest.raises(KsmtraceError, match="failed: E: Could not connect") as caught:
        kernel_package("6.12")
    assert caught.value.exit_code == Exit.HOST_CANNOT
    assert not list((cache() / "kernels").iterdir())


def test_a_series_that_the_distribution_lacks_is_named(apt: Callable[..., Path]) -> None:
    apt()
    with pytest.raises(KsmtraceError, match=r"no kernel of the series 6\.7") as caught:
        kernel_package("6.7")
    assert caught.value.exit_code == Exit.HOST_CANNOT


@pytest.mark.parametrize("word", ["6", "6.12.1", "six", "../6.1", ""])
def test_what_is_no_series_is_refused(word: str) -> None:
    with pytest.raises(KsmtraceError, match="no kernel series") as caught:
        kernel_package(word)
    assert caught.value.exit_code == Exit.USAGE
