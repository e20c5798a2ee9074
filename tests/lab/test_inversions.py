from __future__ import annotations

from dataclasses import fields

from ksmtrace.kernel.releases import Behaviour, profile
from ksmtrace.lab.inversions import (
    _PARTS_OF,
    _SEEN_WITH,
    NOT_SEEN_IN_A_LAB,
    inversions,
    tells_apart,
)
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.run import SHIPPED
from ksmtrace.lab.scenario import read_scenario


def test_each_inversion_changes_one_switch_and_has_its_name() -> None:
    true = profile("6.12.117")
    for name, other in inversions(true):
        was, now = vars(true.behaviour), vars(other.behaviour)
        changed = {switch for switch in was if was[switch] != now[switch]}
        assert changed == {name.partition(" = ")[0]}
        assert not changed & NOT_SEEN_IN_A_LAB.keys()


def test_what_is_exempt_is_a_switch() -> None:
    switches = {field.name for field in fields(Behaviour)}
    assert NOT_SEEN_IN_A_LAB.keys() <= switches
    assert {*_PARTS_OF, *_PARTS_OF.values(), *_SEEN_WITH} <= switches


def test_what_takes_two_nodes_to_be_seen_is_not_asked_of_a_machine_with_one() -> None:
    names = [name for name, _ in inversions(profile("6.12.117"), has=())]
    assert "numa_trees = False" not in names
    assert "numa_trees = False" in [name for name, _ in inversions(profile("6.12.117"))]


def test_what_a_kernel_does_not_have_is_not_inverted() -> None:
    switches = {name.partition(" = ")[0] for name, _ in inversions(profile("6.1.192"))}
    assert "chains" in switches
    assert not switches & {"merge_any", "drop_clears_merge_any", "pages_scanned"}


def test_a_kernel_that_does_otherwise_is_told_apart_and_the_same_one_is_not() -> None:
    plans = [plan_scenario(read_scenario(path)) for path in sorted(SHIPPED.glob("*.toml"))]
    seen = [(plan, perform_on_model(plan, profile("6.12.117"))) for plan in plans]
    assert tells_apart(seen, profile("6.10"))
    assert not tells_apart(seen, profile("6.12.117"))
