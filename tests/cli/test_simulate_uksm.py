from __future__ import annotations

import json
from pathlib import Path

import pytest

from ksmtrace.cli.main import main
from ksmtrace.kernel.costs import DEFAULT_SOURCE
from ksmtrace.lab.contest import track
from ksmtrace.lab.contest.contest import Contest

SMALL = """
title = "Small"
[[step]]
map = "a.p"
pages = 307
[[step]]
map = "b.p"
pages = 307
[[step]]
write = "a.p"
content = "sequence"
[[step]]
write = "b.p"
content = "sequence"
[[step]]
run = 3
"""


@pytest.fixture(autouse=True)
def _no_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSMTRACE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


def test_a_scenario_on_ksm_and_uksm_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    on = ["--on", "ksm:6.12", "--on", "uksm:full"]
    assert main(["simulate", "why-two-scans", *on, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kinds"] == [["ksm:6.12"], ["uksm:full"]]
    counters = report["scans"][0]["counters"]
    assert counters["pages_sharing"] == {"ksm:6.12": 0, "uksm:full": 3}
    assert counters["hash_strength"] == {"uksm:full": 64}
    assert counters["pages_volatile"] == {"ksm:6.12": 4}
    assert report["first_difference"] is None
    assert main(["simulate", "why-two-scans", *on]) == 0
    text = capsys.readouterr().out
    assert "side by side, but not compared" in " ".join(text.split())
    assert "agree" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_two_uksms_that_differ_are_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    on = ["--on", "uksm:full", "--on", "uksm:full-quirks", "--on", "ksm:6.6", "--on", "ksm:6.12"]
    assert main(["simulate", "forks", *on]) == 0
    assert "uksm:full, uksm:full-quirks; ksm:6.6, ksm:6.12: differ" in " ".join(
        capsys.readouterr().out.split()
    )


def test_seeds_are_of_scenarios_too(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for seed in ("1", "1", "2"):
        assert main(["simulate", "forks", "--on", "uksm:full", "--seed", seed, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out)["steps"])
    assert told[0] == told[1] != told[2]


def test_run_steps_make_a_comparison(capsys: pytest.CaptureFixture[str], small: str) -> None:
    on = ["--on", "ksm:6.12", "--on", "ksm:2011", "--on", "uksm:full", "--on", "uksm:quiet"]
    assert main(["simulate", small, *on]) == 0
    told = capsys.readouterr()
    assert max(map(len, told.out.splitlines())) <= 80
    for words in ("equal CPU", "defaults", "equal visits", "seed 0", "smart_scan=1", "built in"):
        assert words in told.out
    assert not told.err
    assert main(["simulate", small, *on, "--protocol", "visits", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["optimum_pages"] == 307
    assert report["costs"]["origin"].startswith("built in")
    assert report["costs"]["ns"]["merge_ns"] > 0
    assert [one["protocol"] for one in report["protocols"]] == ["visits"]
    ksm, old, full, quiet = report["protocols"][0]["outcomes"]
    assert [ksm["on"], old["on"], full["on"], quiet["on"]] == report["on"]
    assert ksm["page_visits"] == pytest.approx(full["page_visits"], rel=0.021)
    assert full["page_visits"] > quiet["page_visits"]
    assert len(full["curve"]["time_s"]) == len(full["curve"]["saved_pages"])
    assert full["settings"] == {"seed": 0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--on", "uksm"], "names no governor of UKSM"),
        (["--on", "uksm:"], "names no governor"),
        (["--on", "uksm:fast"], "uksm:full, uksm:medium, uksm:low, uksm:quiet"),
        (["--on", "uksm:full-goats"], "ghost, dense_entry, credit, freeze, wrap"),
        (["--on", "uksm:full-"], "has no quirk ''"),
        (["--on", "uksm:full-quirks-ghost"], "has no quirk 'quirks'"),
        (["--on", "xksm:6.12"], "neither a host nor a scanner"),
        (["--on", "uksm:full", "--on", "uksm:full"], "is there twice"),
        (["--protocol", "fair"], "no protocol 'fair'"),
        (["--protocol", "cpu"], "no UKSM to equal"),
        (["--seed", "x"], "a seed"),
        (["--visits"], "--visits goes with scan"),
        (["--engine", "fast"], "own pace"),
        (["--set", "max_page_sharing=1"], "the kernel refuses"),
        (["--set", "pages_to_scan=many"], "the kernel refuses"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], words: str, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["simulate", small, *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr()
    assert code == 2
    assert words in " ".join(told.err.split())
    assert not told.out


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        (
            "why-two-scans",
            ["--protocol", "cpu", "--on", "uksm:full", "--on", "ksm:6.1"],
            "run = 60",
        ),
        ("pinned-pages", ["--protocol", "defaults"], "no step lets the scanners work"),
    ],
)
def test_a_scenario_without_a_run_is_not_compared(
    name: str, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", name, *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_real_ksmd_does_not_run_at_its_own_pace(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "run", small, "--on", "host"]) == 3
    assert "ksmtrace simulate" in capsys.readouterr().err
    assert main(["lab", "run", small, "--on", "ksm:6.12", "--on", "uksm:full"]) == 0
    assert "run = 3" in capsys.readouterr().out


def test_ctrl_c_prints_what_is_done_and_ends_so(
    small: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Contest] = []
    start = Contest.run

    def run(contest: Contest) -> None:
        made.append(contest)

        def interrupt(words: str) -> None:
            if words.startswith("ksm:6.12, defaults"):
                raise KeyboardInterrupt

        contest.progress = interrupt
        start(contest)

    monkeypatch.setattr(Contest, "run", run)
    monkeypatch.setattr(track, "_TOLD_EVERY", 7)
    on = ["--on", "uksm:full", "--on", "ksm:6.12"]
    assert main(["simulate", small, *on]) == 130
    assert "PARTIAL" in capsys.readouterr().out
    assert main(["simulate", small, *on, "--json"]) == 130
    report = json.loads(capsys.readouterr().out)
    assert report["partial"] is True
    assert [o["on"] for p in report["protocols"] for o in p["outcomes"] if o["partial"]] == [
        "ksm:6.12"
    ]
    assert main(["simulate", small, "--on", "ksm:6.12"]) == 130


def test_ctrl_c_before_anything_is_done_prints_nothing(
    small: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_contest: Contest) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Contest, "_look_at_the_ground", interrupt)
    assert main(["simulate", small]) == 130
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "ksmtrace: interrupted\n")


def test_prices_measured_on_this_host_are_used_and_named(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import asdict

    from ksmtrace.kernel.costs import DEFAULT, Calibration, Constant, costs_file, write_costs
    from ksmtrace.kernel.host import cpu_model, kernel_release

    constants = {name: Constant(7 * ns, DEFAULT_SOURCE) for name, ns in asdict(DEFAULT).items()}
    write_costs(costs_file(), Calibration(kernel_release(), cpu_model(), "2026-01-02", constants))
    assert main(["simulate", small, "--json", "--on", "ksm:6.12"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["costs"]["origin"].startswith("measured on this host, 2026-01-02")
    costs_file().unlink()
    assert main(["simulate", small, "--json", "--on", "ksm:6.12"]) == 0
    built_in = json.loads(capsys.readouterr().out)
    ratio = (
        report["protocols"][0]["outcomes"][0]["cpu_s"]
        / built_in["protocols"][0]["outcomes"][0]["cpu_s"]
    )
    assert ratio == pytest.approx(7, rel=0.05)


def test_lab_list_names_the_workloads_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "list"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    scenarios, _, workloads = text.partition("workloads, to compare")
    for name in ("identical-vms", "similar-vms", "forked-services", "volatile-memory",
                 "mostly-unique", "mostly-zero", "two-copies"):  # fmt: skip
        assert name in workloads
        assert name not in scenarios
    assert main(["lab", "list", "--json"]) == 0
    groups = {one["group"] for one in json.loads(capsys.readouterr().out)}
    assert groups == {"scenario", "workload"}
