from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ksmtrace.processes.identity import clean
from ksmtrace.processes.regions import Region, all_regions, concerns_ksm, parse_smaps


@dataclass(frozen=True)
class Mapping:
    """A mapping as the kernel prints it; name as the kernel escapes it."""

    start: int
    pages: int
    permissions: str
    name: bytes
    flags: tuple[str, ...]
    ksm_kib: int | None

    @property
    def text(self) -> bytes:
        head = f"{self.start:08x}-{self.start + self.pages * 4096:08x} {self.permissions} 00000000"
        lines = [f"{head} 00:00 0 ".encode().ljust(73) + self.name if self.name else head.encode()]
        if not self.name:
            lines[0] += b" 00:00 0 "
        lines += [b"Size:               7 kB", f"Rss:                {self.pages % 97} kB".encode()]
        lines += [b"Anonymous:          2 kB", b"AnonHugePages:     11 kB", b"SwapPss:     13 kB"]
        if self.ksm_kib is not None:
            lines.append(f"KSM:            {self.ksm_kib:8} kB".encode())
        lines += [b"THPeligible:           0", f"VmFlags: {' '.join(self.flags)} ".encode()]
        return b"\n".join(lines) + b"\n"

    @property
    def region(self) -> Region:
        return Region(
            start=self.start,
            end=self.start + self.pages * 4096,
            permissions=self.permissions,
            name=clean(self.name),
            mergeable="mg" in self.flags,
            ksm_bytes=None if self.ksm_kib is None else self.ksm_kib * 1024,
            flags=self.flags,
            present_bytes=self.pages % 97 * 1024,
            anonymous_bytes=2048,
        )


# The kernel escapes a newline in a name as \012 and nothing else.
NAMES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"[heap]",
            b"[anon:my heap]",
            b"/tmp/a file (deleted)",
            b"/tmp/two\\012lines",
            b"/tmp/VmFlags: mg",
            b"/tmp/\xff\x1b[31m",
            b"KSM: 5 kB",
        ]
    ),
    st.binary(min_size=1, max_size=13).map(lambda raw: b"/" + raw.replace(b"\n", b"\\012") + b"."),
)
MAPPINGS = st.builds(
    Mapping,
    st.integers(1, (1 << 47) >> 12).map(lambda page: page << 12),
    st.integers(1, 1 << 20),
    st.sampled_from(["rw-p", "r--s", "---p", "r-xp"]),
    NAMES.filter(lambda raw: b"\r" not in raw),
    st.lists(st.sampled_from(["rd", "wr", "mr", "mg", "ac", "mm"]), unique=True).map(tuple),
    st.none() | st.integers(0, 1 << 20),
)


@given(st.lists(MAPPINGS, max_size=7))
def test_what_the_kernel_prints_is_read(mappings: list[Mapping]) -> None:
    text = b"".join(mapping.text for mapping in mappings)
    assert list(parse_smaps(io.BytesIO(text))) == [mapping.region for mapping in mappings]


@example(b"/tmp/carriage\rreturn")
@example(b"/tmp/form\x0cfeed")
@example(b"/tmp/record\x1eseparator\x85")
@given(NAMES)
def test_no_file_name_can_break_the_lines(name: bytes) -> None:
    mapping = Mapping(1 << 20, 3, "rw-p", name, ("rd", "mg"), 7)
    following = Mapping(1 << 30, 5, "rw-p", b"[heap]", ("rd",), 0)
    assert list(parse_smaps(io.BytesIO(mapping.text + following.text))) == [
        mapping.region,
        following.region,
    ]


@pytest.mark.parametrize("flags", [("rd", "mg"), ()])
def test_a_text_that_ends_early_is_read_as_far_as_it_goes(flags: tuple[str, ...]) -> None:
    whole = Mapping(1 << 20, 3, "rw-p", b"[heap]", flags, 7).text * 2
    for length in range(len(whole)):
        assert len(list(parse_smaps(io.BytesIO(whole[:length])))) <= 2


def test_the_ksm_line_of_one_mapping_is_not_the_next_ones() -> None:
    told = Mapping(4096, 1, "rw-p", b"", ("mg",), 8)
    untold = Mapping(1 << 20, 1, "rw-p", b"", ("mg",), None)
    assert [region.ksm_bytes for region in parse_smaps(io.BytesIO(told.text + untold.text))] == [
        8192,
        None,
    ]


def test_regions_that_ksmd_scans_or_that_hold_ksm_pages_are_kept(tmp_path: Path) -> None:
    mappings = [
        Mapping(1 << 20, 1, "rw-p", b"scanned", ("mg",), 0),
        Mapping(2 << 20, 1, "rw-p", b"neither", ("rd",), 0),
        Mapping(3 << 20, 1, "rw-p", b"holding", ("rd",), 4),
        Mapping(4 << 20, 1, "rw-p", b"old kernel", ("mg",), None),
        Mapping(5 << 20, 1, "rw-p", b"old kernel, no", ("rd",), None),
    ]
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "smaps").write_bytes(b"".join(m.text for m in mappings))
    regions = [region for region in all_regions(11, tmp_path) if concerns_ksm(region)]
    assert [region.name for region in regions] == ["scanned", "holding", "old kernel"]
    assert [region.may_hold_ksm_pages for region in regions] == [False, True, True]


def test_a_process_that_is_gone_has_no_regions(tmp_path: Path) -> None:
    assert list(all_regions(11, tmp_path)) == []
