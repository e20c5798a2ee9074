"""Trying a kernel, with a model in the kernel's place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ksmtrace.errors import Exit, KsmtraceError
from ksmtrace.kernel.releases import Profile, profile
from ksmtrace.lab.needs import Need
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.performance import Performance
from ksmtrace.lab.plan import Plan
from ksmtrace.lab.run import SHIPPED
from ksmtrace.lab.scenario import read_scenario
from ksmtrace.vm.trial import Trial, can_be_performed, try_kernel

SCENARIOS = [read_scenario(path) for path in sorted(SHIPPED.glob("*.toml"))]


class Model:
    """A kernel that says it is one, and behaves like another."""

    has: tuple[Need, ...] = ()

    def __init__(self, said: str, behaves: str, lacking: dict[str, list[str]]) -> None:
        self.profile: Profile = profile(said)
        self._behaves = replace(self.profile, behaviour=profile(behaves).behaviour)
        self._lacking = lacking
        self.staged: list[str] = []

    def obstacles(self) -> dict[str, list[str]]:
        return self._lacking

    def stage(self, backend: str) -> None:
        self.staged.append(backend)

    def perform(self, plan: Plan) -> Performance:
        performance = perform_on_model(plan, self._behaves)
        performance.real = True
        return performance


def tried(kernel: Model) -> Trial:
    return try_kernel(kernel, SCENARIOS, SCENARIOS[:2])


def test_the_best_backend_gets_all_scenarios_and_every_other_one_some() -> None:
    kernel = Model("6.12.117", "6.12.117", {"core": [], "bcc": ["no headers"], "tracefs": []})
    trial = tried(kernel)
    assert trial.agrees
    assert kernel.staged == ["core", "tracefs"]
    assert trial.backends["core"].tally.scenarios == len(SCENARIOS)
    assert trial.backends["tracefs"].tally.scenarios == 2
    assert trial.backends["bcc"].why == "no headers"
    assert [plan.scenario.title for plan, _ in trial.kept] == [s.title for s in SCENARIOS]
    told = trial.told()
    assert (told["scenarios"], told["differing"]) == (len(SCENARIOS), 0)
    assert "ksm_merge_with_ksm_page" in told["backends"]["core"]["events"]


def test_a_kernel_that_behaves_otherwise_does_not_agree() -> None:
    trial = tried(Model("6.12.117", "6.6", {"core": []}))
    assert not trial.agrees
    assert trial.told()["differing"] > 0


def test_nothing_compared_is_no_agreement() -> None:
    kernel = Model("6.12.117", "6.12.117", {"core": []})
    assert not try_kernel(kernel, [], []).agrees


def test_a_kernel_where_no_backend_works_is_an_error_with_the_reasons() -> None:
    kernel = Model("6.1.192", "6.1.192", {"core": ["no tracepoints"], "bcc": ["no tracepoints"]})
    with pytest.raises(
        KsmtraceError, match=r"no capture backend works .*: no tracepoints$"
    ) as caught:
        tried(kernel)
    assert caught.value.exit_code == Exit.HOST_CANNOT


def test_what_a_kernel_lacks_is_not_tried_there() -> None:
    folder = SHIPPED.parents[2] / "tests" / "scenarios"
    prctl, advisor, nodes = (read_scenario(folder / f"{n}.toml") for n in ("T31c", "T43a", "T51"))
    old, new = profile("6.1.192"), profile("6.12.117")
    assert not can_be_performed(prctl, old)
    assert can_be_performed(prctl, new)
    assert not can_be_performed(advisor, old)
    assert can_be_performed(advisor, new)
    assert not can_be_performed(nodes, new)
