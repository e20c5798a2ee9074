"""The recordings that come with ksmtrace: each can be read whole, and holds nothing private."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from library.declared import LIBRARY, Declared
from library.makers import InGuest, Lab, recorded_facts
from library.readme import RECORDINGS, commands, path_of, present, readme

import ksmtrace
from ksmtrace.cli.main import main
from ksmtrace.recording.schema import TABLES as STORED
from ksmtrace.timeline.tables import TABLES as DERIVED

ROOT = RECORDINGS.parent
HERE = sorted(RECORDINGS.glob("*.ksm"))
MOST_BYTES, MOST_IN_ALL = 1 << 20, 8 << 20
HIGHEST_USER_ADDRESS = 1 << 47
TOP, TOP_OF_THE_KERNEL = np.uint64(48), np.uint64(0xFFFF)
ANYWHERE = ("/usr/", "/lib", "/bin/", "/etc/", "/dev/", "/memfd:", "[")
"""Where a file may lie that a recording names: on any host, not in a home or a checkout."""
CGROUPS = {"/", "/lab", "/ksm-demo", "/shop", "/reports"}


def each(recordings: list[Path] = HERE) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", recordings, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")


def test_there_are_at_least_ten_and_each_is_declared() -> None:
    assert len(HERE) >= 10
    assert {path_of(declared) for declared in LIBRARY} >= set(HERE)
    assert len({declared.name for declared in LIBRARY}) == len(LIBRARY)


def test_every_one_that_is_declared_has_been_made() -> None:
    assert [declared.name for declared in LIBRARY if declared not in present()] == []


def test_all_together_they_are_small() -> None:
    sizes = {path.name: sum(file.stat().st_size for file in path.iterdir()) for path in HERE}
    assert max(sizes.values()) <= MOST_BYTES, sizes
    assert sum(sizes.values()) <= MOST_IN_ALL


def test_the_readme_is_what_is_declared_and_recorded() -> None:
    text = (RECORDINGS / "README.md").read_text()
    assert text == readme(), "run scripts/generate.py"
    for path in HERE:
        assert f"\n## {path.stem}\n" in text
        assert f"recordings/{path.name}" in text


@each()
def test_every_table_can_be_made(path: Path) -> None:
    recording = ksmtrace.open(path)
    for name in (*STORED, *DERIVED):
        table = getattr(recording, name)
        assert len(table.columns), name
    assert len(recording.events)
    assert len(recording.pages)
    assert recording.lost == 0


@each()
def test_the_events_account_for_every_page_that_the_kernel_counts(path: Path) -> None:
    accounts = ksmtrace.open(path).accounts
    assert not accounts[["residual", "zero_residual"]].fillna(0).to_numpy().any()


@each()
@pytest.mark.parametrize("command", ["report", "timeline", "timeline --process", "replay --check"])
def test_it_can_be_looked_at(path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *options = command.split()
    assert main([verb, str(path.relative_to(ROOT)), *options]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("declared", present(), ids=lambda declared: declared.name)
def test_what_the_readme_says_to_look_at_it_with_works(
    declared: Declared, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(declared):
        assert main(shlex.split(command)) in ((0, 6) if command.startswith("diff") else (0,))
        assert capsys.readouterr().out, command


@each([path_of(d) for d in present() if isinstance(d.made, Lab | InGuest)])
def test_a_scenario_s_recording_is_predicted_whole(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(path), "--check", "--predict", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert [verdict[question]["answer"] for question in ("legal", "predicted")] == ["yes", "yes"]


@each([path_of(d) for d in present() if isinstance(d.made, Lab | InGuest)])
def test_a_scenario_s_recording_is_of_the_scenario_as_it_is(path: Path) -> None:
    from ksmtrace.lab.scenario import read_scenario, to_toml

    (declared,) = (d for d in LIBRARY if path_of(d) == path)
    assert isinstance(declared.made, Lab | InGuest)
    scenario = read_scenario(Lab(declared.made.scenario).path)
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["lab"]["scenario"] == to_toml(scenario)


@each()
def test_nothing_private_is_in_it(path: Path) -> None:
    recording = ksmtrace.open(path)
    assert recording.manifest["pseudonyms"] is True
    command = recording.manifest["command"]
    assert command is None or " " not in command
    assert "/" not in (command or "")
    assert recording.identities["cmdline"].isna().all()
    assert set(recording.identities["cgroup"].dropna()) <= CGROUPS
    named = {*recording.regions["name"].dropna(), *recording.code["file"].dropna()} - {""}
    assert [name for name in named if not name.startswith(ANYWHERE)] == []


@each()
def test_no_kernel_address_and_no_frame_is_in_it(path: Path) -> None:
    recording = ksmtrace.open(path)

    def held(table: str, column: str) -> npt.NDArray[np.uint64]:
        values = getattr(recording, table)[column].dropna().to_numpy(np.uint64)
        return values[values != 0]

    for table, columns in {
        "events": ("addr",), "census": ("addr",), "contents": ("addr",), "regions": ("start", "end")
    }.items():  # fmt: skip
        for column in columns:
            assert (held(table, column) <= HIGHEST_USER_ADDRESS).all(), (table, column)
    # A pseudonym may by chance look like a kernel's address; of real ones all do.
    for table, column in (("events", "mm"), ("events", "item"), ("code", "ip")):
        assert (
            not len(alike := held(table, column))
            or (alike >> TOP == TOP_OF_THE_KERNEL).mean() < 0.1
        )
    frames = recording.manifest["memory_bytes"] // recording.manifest["page_bytes"]
    for table in ("events", "census", "contents"):
        assert not len(named := held(table, "pfn")) or (named > 2 * frames).mean() > 0.9


def test_facts_of_a_recording_are_its_manifest_and_its_size() -> None:
    for path in HERE:
        facts = recorded_facts(path)
        assert facts["size"] == sum(file.stat().st_size for file in path.iterdir())
        assert facts["sealed"] is True


def test_programs_of_the_library_run_with_any_python_alone() -> None:
    for program in (ROOT / "scripts" / "library" / "programs").glob("*.py"):
        imported = [
            line.split()[1]
            for line in program.read_text().splitlines()
            if line.startswith(("import ", "from "))
        ]
        assert {name.partition(".")[0] for name in imported} <= {*sys.stdlib_module_names, "pages"}
