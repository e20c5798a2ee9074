from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel import knobs
from ksmtrace.kernel.host import boot_id
from ksmtrace.kernel.knobs import changed, in_order, parse_assignments, recover
from ksmtrace.kernel.sysfs import KNOBS_BY_NAME

BEFORE = {
    "run": "0",
    "pages_to_scan": "101",
    "sleep_millisecs": "23",
    "use_zero_pages": "0",
    "advisor_mode": "none",
    "advisor_target_scan_time": "199",
}


@pytest.fixture(name="ksm")
def make_ksm(tmp_path: Path) -> Path:
    folder = tmp_path / "ksm"
    folder.mkdir()
    for name, value in BEFORE.items():
        (folder / name).write_text(f"{value}\n")
    (folder / "advisor_mode").write_text("[none] scan-time\n")
    return folder


@pytest.fixture(name="run")
def make_run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def state(ksm: Path) -> dict[str, str]:
    values = {place.name: place.read_text().strip() for place in ksm.iterdir()}
    if values.get("advisor_mode") == "[none] scan-time":
        values["advisor_mode"] = "none"
    return values


def journal(run: Path, content: object) -> Path:
    run.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (run / "knobs.json").write_text(text)
    return run / "knobs.json"


@pytest.fixture(name="writes")
def watch_writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the knobs written, in order."""
    names: list[str] = []
    write = knobs._write

    def watched(name: str, value: str, ksm: Path) -> None:
        names.append(name)
        write(name, value, ksm)

    monkeypatch.setattr(knobs, "_write", watched)
    return names


def test_knobs_are_changed_inside_and_restored_on_exit(ksm: Path, run: Path) -> None:
    with changed({"run": "1", "pages_to_scan": "5003"}, run, ksm):
        assert state(ksm) == {**BEFORE, "run": "1", "pages_to_scan": "5003"}
        assert (run / "knobs.json").exists()
    assert state(ksm) == BEFORE
    assert not (run / "knobs.json").exists()


def test_knobs_are_restored_on_an_exception(ksm: Path, run: Path) -> None:
    with pytest.raises(ZeroDivisionError), changed({"run": "1"}, run, ksm):
        raise ZeroDivisionError
    assert state(ksm) == BEFORE
    assert not (run / "knobs.json").exists()


@given(
    values=st.dictionaries(
        st.sampled_from(["run", "pages_to_scan", "sleep_millisecs", "use_zero_pages"]),
        st.integers(0, 9999).map(str),
    )
)
def test_whatever_was_set_everything_is_as_before(
    ksm: Path, run: Path, values: dict[str, str]
) -> None:
    with changed(values, run, ksm):
        assert state(ksm) == {**BEFORE, **values}
    assert state(ksm) == BEFORE


def test_no_values_touch_nothing_at_all(tmp_path: Path) -> None:
    with changed({}, tmp_path / "run", tmp_path / "no ksm here"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_advisor_is_set_first_and_run_last(ksm: Path, run: Path, writes: list[str]) -> None:
    values = {"run": "1", "sleep_millisecs": "7", "advisor_mode": "scan-time"}
    with changed(values, run, ksm):
        assert writes == ["advisor_mode", "sleep_millisecs", "run"]
        # The kernel itself sets pages_to_scan while its advisor is at work.
        (ksm / "pages_to_scan").write_text("509\n")
        writes.clear()
    assert (writes[0], writes[-1]) == ("advisor_mode", "run")
    assert state(ksm) == BEFORE


def test_the_advisor_s_own_knobs_are_set_before_its_mode_which_takes_one_over() -> None:
    # Entering the mode sets pages_to_scan to what advisor_min_pages_to_scan is then (6.8).
    mixed = ["run", "pages_to_scan", "advisor_mode", "advisor_min_pages_to_scan"]
    assert in_order(mixed) == [
        "advisor_min_pages_to_scan", "advisor_mode", "pages_to_scan", "run",
    ]  # fmt: skip


def test_pages_to_scan_is_left_to_an_advisor_that_was_at_work(ksm: Path, run: Path) -> None:
    (ksm / "advisor_mode").write_text("none [scan-time]\n")
    with changed({"advisor_mode": "none", "pages_to_scan": "5003"}, run, ksm):
        assert state(ksm)["pages_to_scan"] == "5003"
        assert "pages_to_scan" not in json.loads((run / "knobs.json").read_text())["knobs"]
    assert state(ksm)["advisor_mode"] == "scan-time"


def test_pages_to_scan_can_be_set_again_and_again_where_an_advisor_was_at_work(
    ksm: Path, run: Path
) -> None:
    (ksm / "advisor_mode").write_text("none [scan-time]\n")
    values = {"advisor_mode": "none", "pages_to_scan": "1009"}
    with changed(values, run, ksm) as change:
        (ksm / "advisor_mode").write_text("[none] scan-time\n")
        change.set({**values, "pages_to_scan": "2003"})
        assert state(ksm)["pages_to_scan"] == "2003"
        with pytest.raises(ValueError, match="not held"):
            change.set({"smart_scan": "0"})
    assert state(ksm)["advisor_mode"] == "scan-time"


def test_a_value_that_the_kernel_refuses_leaves_everything_as_it_was(
    ksm: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = knobs._write

    def strict(name: str, value: str, ksm: Path) -> None:
        if value == "nonsense":
            raise knobs._cannot_set(name, value, OSError(22, "Invalid argument"))
        write(name, value, ksm)

    monkeypatch.setattr(knobs, "_write", strict)
    entered = False
    with (
        pytest.raises(KsmtraceError) as raised,
        changed({"pages_to_scan": "7", "sleep_millisecs": "nonsense", "run": "1"}, run, ksm),
    ):
        entered = True
    assert not entered
    assert raised.value.exit_code == Exit.USAGE
    assert "sleep_millisecs=nonsense" in raised.value.message
    assert state(ksm) == BEFORE
    assert not (run / "knobs.json").exists()


@pytest.mark.parametrize(
    ("mode", "name", "value", "hint"),
    [
        ("[none] scan-time", "pages_to_scan", "-1", "it takes 0 to 4294967295"),
        ("none [scan-time]", "pages_to_scan", "7", "pages_to_scan is the advisor's"),
        ("[none] scan-time", "use_zero_pages", "9", "it takes 0 or 1"),
    ],
)
def test_a_refused_value_is_told_with_those_that_are_taken(
    ksm: Path, monkeypatch: pytest.MonkeyPatch, mode: str, name: str, value: str, hint: str
) -> None:
    (ksm / "advisor_mode").write_text(f"{mode}\n")

    def refuse(_path: Path, _text: str) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(KsmtraceError, match=f"{name}={value}") as raised:
        knobs._write(name, value, ksm)
    assert hint in str(raised.value.hint)


def test_every_knob_says_which_values_it_takes() -> None:
    assert all(knob.values for knob in KNOBS_BY_NAME.values())


def test_a_knob_that_this_kernel_lacks_is_named_before_anything_changes(
    ksm: Path, run: Path, writes: list[str]
) -> None:
    with pytest.raises(KsmtraceError) as raised, changed({"run": "1", "smart_scan": "0"}, run, ksm):
        pass
    assert "smart_scan" in raised.value.message
    assert "6.7" in str(raised.value.hint)
    assert raised.value.exit_code == Exit.HOST_CANNOT
    assert writes == []


def test_a_host_without_ksm_or_root_is_told_so(tmp_path: Path, run: Path) -> None:
    with pytest.raises(KsmtraceError) as raised, changed({"run": "1"}, run, tmp_path / "ksm"):
        pass
    assert raised.value.exit_code == Exit.HOST_CANNOT


@pytest.fixture(name="held")
def hold_lock(run: Path) -> Iterator[None]:
    run.mkdir()
    handle = os.open(run / "knobs.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield
    os.close(handle)


@pytest.mark.usefixtures("held")
def test_two_runs_that_change_knobs_exclude_each_other(ksm: Path, run: Path) -> None:
    with (
        pytest.raises(KsmtraceError, match="another ksmtrace run"),
        changed({"run": "1"}, run, ksm),
    ):
        pass
    assert state(ksm) == BEFORE


@pytest.mark.usefixtures("held")
def test_the_journal_of_a_living_run_is_left_alone(ksm: Path, run: Path) -> None:
    place = journal(run, {"boot": boot_id(), "knobs": {"run": "1"}})
    assert recover(run, ksm) == {}
    assert place.exists()
    assert state(ksm) == BEFORE


def test_the_lock_ends_with_the_change(ksm: Path, run: Path) -> None:
    for _ in range(3):
        with changed({"run": "1"}, run, ksm):
            with pytest.raises(KsmtraceError), changed({"run": "2"}, run, ksm):
                pass
            assert state(ksm)["run"] == "1"
    assert state(ksm) == BEFORE


def test_the_journal_of_a_killed_run_is_restored(ksm: Path, run: Path) -> None:
    place = journal(run, {"boot": boot_id(), "knobs": {"run": "1", "pages_to_scan": "307"}})
    assert recover(run, ksm) == {"run": "1", "pages_to_scan": "307"}
    assert state(ksm) == {**BEFORE, "run": "1", "pages_to_scan": "307"}
    assert not place.exists()
    assert recover(run, ksm) == {}


def test_the_next_change_restores_what_a_killed_run_left_first(ksm: Path, run: Path) -> None:
    journal(run, {"boot": boot_id(), "knobs": {"pages_to_scan": "307"}})
    with changed({"pages_to_scan": "5003"}, run, ksm):
        assert state(ksm)["pages_to_scan"] == "5003"
    assert state(ksm)["pages_to_scan"] == "307"


CHILD = """
import sys, time
from pathlib import Path
from ksmtrace.kernel.knobs import changed
with changed({"run": "1", "sleep_millisecs": "7"}, Path(sys.argv[1]), Path(sys.argv[2])):
    print("changed", flush=True)
    time.sleep(61)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_process_changed_is_restored(
    ksm: Path, run: Path, number: signal.Signals
) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, run, ksm], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"changed\n"
        assert state(ksm) == {**BEFORE, "run": "1", "sleep_millisecs": "7"}
        with pytest.raises(KsmtraceError), changed({"run": "2"}, run, ksm):
            pass
        child.send_signal(number)
    assert state(ksm)["run"] == "1"
    assert recover(run, ksm) == {"run": "0", "sleep_millisecs": "23"}
    assert state(ksm) == BEFORE


def test_the_journal_of_another_boot_is_ignored_and_cleared(ksm: Path, run: Path) -> None:
    place = journal(run, {"boot": "another boot", "knobs": {"run": "1"}})
    assert recover(run, ksm) == {}
    assert state(ksm) == BEFORE
    assert not place.exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=7,
)


@given(
    content=st.one_of(
        st.text(max_size=31),
        JSON,
        st.fixed_dictionaries({"boot": st.just(boot_id()), "knobs": JSON}),
        st.fixed_dictionaries(
            {
                "boot": st.just(boot_id()),
                "knobs": st.dictionaries(
                    st.sampled_from([*KNOBS_BY_NAME, "other"]), st.none() | st.integers()
                ),
            }
        ),
    )
)
def test_a_corrupt_journal_does_no_harm(ksm: Path, run: Path, content: object) -> None:
    place = journal(run, content)
    recover(run, ksm)
    assert not place.exists()
    assert state(ksm).keys() == BEFORE.keys()


def test_assignments_are_read(ksm: Path) -> None:
    texts = ["run=1", "pages_to_scan=5003", "advisor_mode=scan-time", "run=0"]
    assert parse_assignments(texts) == {
        "run": "0",
        "pages_to_scan": "5003",
        "advisor_mode": "scan-time",
    }
    assert parse_assignments([]) == {}


@pytest.mark.parametrize("text", ["run", "run=", "=1", "", "pages_shared=3", "Run=1", "mood=7"])
def test_an_assignment_that_makes_no_sense_is_a_usage_error(text: str) -> None:
    with pytest.raises(KsmtraceError) as raised:
        parse_assignments([text])
    assert raised.value.exit_code == Exit.USAGE
    assert raised.value.hint


@given(st.text())
def test_any_assignment_is_read_or_a_usage_error(text: str) -> None:
    try:
        values = parse_assignments([text])
    except KsmtraceError as error:
        assert error.exit_code == Exit.USAGE  # noqa: PT017 either is right
    else:
        assert values.keys() <= KNOBS_BY_NAME.keys()


def test_held_knobs_change_again_and_those_left_out_go_back(ksm: Path, run: Path) -> None:
    with changed({"pages_to_scan": "307", "use_zero_pages": "1"}, run, ksm) as change:
        change.set({"pages_to_scan": "503"})
        assert state(ksm) == BEFORE | {"pages_to_scan": "503"}
        change.set({"use_zero_pages": "1"})
        assert state(ksm) == BEFORE | {"use_zero_pages": "1"}
    assert state(ksm) == BEFORE


def test_only_what_will_be_restored_can_be_changed(ksm: Path, run: Path) -> None:
    with changed({"pages_to_scan": "307"}, run, ksm) as change:
        with pytest.raises(ValueError, match="run"):
            change.set({"run": "1"})
        with pytest.raises(ValueError, match="run"):
            change.unmerge()
    assert state(ksm) == BEFORE


def test_unmerging_is_undone_like_any_change(ksm: Path, run: Path) -> None:
    with changed({"run": "1"}, run, ksm) as change:
        change.unmerge()
        assert state(ksm)["run"] == "2"
    assert state(ksm) == BEFORE


def test_pages_to_scan_is_left_to_the_advisor_while_it_is_on(ksm: Path, run: Path) -> None:
    with changed({"advisor_mode": "none", "pages_to_scan": "307"}, run, ksm) as change:
        change.set({"advisor_mode": "scan-time", "pages_to_scan": "503"})
        assert state(ksm)["pages_to_scan"] == "307"
