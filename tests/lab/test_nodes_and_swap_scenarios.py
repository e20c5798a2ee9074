"""The scenarios about nodes and swap (T51 to T60) disappoint where memory behaves otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ksmtrace.kernel.releases import profile
from ksmtrace.lab.disappointments import disappointments
from ksmtrace.lab.on_model import perform_on_model
from ksmtrace.lab.planning import plan_scenario
from ksmtrace.lab.scenario import read_scenario
from ksmtrace.model.memory import Memory
from ksmtrace.model.stable_tree import StableTrees
from ksmtrace.model.swap import Swap
from ksmtrace.model.unstable_tree import UnstableTrees

FOLDER = Path(__file__).parents[1] / "scenarios"
NAMES = [f"T{number}" for number in range(51, 61)]
PLANS = {name: plan_scenario(read_scenario(FOLDER / f"{name}.toml")) for name in NAMES}


def nothing(*_arguments: Any) -> None:
    pass


def twin_of_any_node(search: Callable[..., Any]) -> Callable[..., Any]:
    """The unstable tree without the question where its page is now."""

    def search_or_insert(self: UnstableTrees, page: Any, item: Any) -> Any:
        real = self._state.nid_of
        nid = real(page.nid)
        self._state.nid_of = lambda _nid: nid  # type: ignore[method-assign]
        try:
            return search(self, page, item)
        finally:
            self._state.nid_of = real  # type: ignore[method-assign]

    return search_or_insert


OTHERWISE: dict[str, tuple[type, str, Any, str]] = {
    "every page in the swap cache belongs everywhere":
        (Memory, "home_of", lambda *_: (0, 0), "T58"),
    "a child's page belongs to itself alone":
        (Memory, "home_of", lambda _self, mm, address: (mm.id, address), "T59"),
    "the swap cache is never left": (Swap, "_uncache", nothing, "T60"),
    "a moved page makes no chain":
        (StableTrees, "_join_chain", lambda self, page, _node, nid: self._settle(page, nid), "T53"),
    "ksmd does not notice moves": (StableTrees, "left_its_node", nothing, "T52"),
    "pages do not move": (Memory, "migrate", lambda *_, **__: None, "T54"),
    "every page comes from node 0":
        (Memory, "new_frame_at", lambda self, _mm, _at, content: self.new_frame(content), "T51"),
    "a page that moved away is found where it was":
        (StableTrees, "_take_the_place_of", lambda _self, dup, *_: dup.frame, "T56"),
    "a twin may be on another node":
        (UnstableTrees, "search_or_insert", twin_of_any_node(UnstableTrees.search_or_insert),
         "T57"),
}  # fmt: skip


def disappointed(name: str) -> bool:
    plan = PLANS[name]
    return bool(disappointments(plan, perform_on_model(plan, profile("6.12.117"))))


@pytest.mark.parametrize("how", OTHERWISE)
def test_a_memory_that_behaves_otherwise_disappoints(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, otherwise, scenario = OTHERWISE[how]
    assert not disappointed(scenario)
    monkeypatch.setattr(owner, name, otherwise)
    assert disappointed(scenario)
