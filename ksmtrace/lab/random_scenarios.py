"""Random scenarios in families, each the same for the same seed.

They are what the reference scanner is held against the real ksmd with: a family says which
actions a scenario may take and how often, so that each branch of the algorithm is reached.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ksmtrace.lab.families import ANY_KNOBS, FAMILIES, FAMILIES_BY_NAME, LARGE, Family
from ksmtrace.lab.scenario import Scenario, scenario_of

__all__ = ["FAMILIES", "FAMILIES_BY_NAME", "LARGE", "Family", "random_scenario"]

Step = dict[str, Any]


@dataclass
class _Region:
    """mapped: by page, whether it was ever written since it was mapped. access as protected.

    split: parts of it may differ in advice or policy; before 6.17 such a region can't be moved.
    """

    pages: int
    mapped: dict[int, bool]
    access: str = "write"
    split: bool = False

    def part(self, low: int, high: int) -> None:
        """A step treats these pages otherwise than the rest, if there is a rest."""
        self.split |= (low, high) != (0, self.pages)


class _Writer:
    """Makes up one scenario; knows enough of it that every step is possible."""

    def __init__(self, family: Family, seed: int) -> None:
        self.family = family
        self.dice = random.Random(f"{family.name} {seed}")  # noqa: S311 the same each time
        self.steps: list[Step] = []
        self.processes: dict[str, dict[str, _Region]] = {}
        self.merge_any: dict[str, bool] = {}
        self.pins: list[str] = []
        self.named = 0

    def scenario(self, title: str) -> Scenario:
        family, dice = self.family, self.dice
        knobs = {name: dice.choice(choices) for name, choices in family.knobs.items()}
        for _ in range(dice.randint(1, 2)):
            self.do_map()
            self.do_write()
        actions, weights = zip(*family.weights.items(), strict=True)
        for action in dice.choices(actions, weights, k=dice.randint(*family.steps)):
            act: Callable[[], None] = getattr(self, f"do_{action}")
            act()
        self.steps.append({"scan": 2})
        return scenario_of({"title": title, "knobs": knobs, "step": self.steps}, title)

    # Choosing.

    def _new_name(self, stem: str) -> str:
        self.named += 1
        return f"{stem}{self.named}"

    def _place(
        self, access: tuple[str, ...] = ("write", "read", "none")
    ) -> tuple[str, _Region] | None:
        """Some region with something mapped, as process.region."""
        places = [
            (f"{process}.{name}", region)
            for process, regions in self.processes.items()
            for name, region in regions.items()
            if region.mapped and region.access in access
        ]
        return self.dice.choice(places) if places else None

    def _range(self, region: _Region) -> tuple[int, int]:
        """A stretch of mapped pages."""
        low = self.dice.choice(sorted(region.mapped))
        high = low + 1
        most = self.dice.randint(1, region.pages)
        while high in region.mapped and high - low < most:
            high += 1
        return low, high

    def _content(self) -> Step:
        dice = self.dice
        kind = dice.random()
        if kind < 0.08:
            return {"content": "zero"}
        if kind < 0.2:
            return {"content": "unique"}
        if kind < 0.3:
            return {"content": "sequence", "first": dice.randrange(3)}
        return {"content": f"c{dice.randrange(self.family.contents)}"}

    def _write(self, content: Step) -> None:
        found = self._place(("write",))
        if found is None:
            return
        place, region = found
        low, high = self._range(region)
        region.mapped.update(dict.fromkeys(range(low, high), True))
        self.steps.append({"write": f"{place}[{low}:{high}]", **content})

    # Actions.

    def do_write(self) -> None:
        self._write(self._content())

    def do_zero(self) -> None:
        self._write({"content": "zero"})

    def do_random(self) -> None:
        self._write(
            {"content": "random", "seed": self.dice.randrange(1000), "of": self.family.contents * 9}
        )

    def do_overwrite(self) -> None:
        offset = self.dice.choice((0, 0, 100, 4090))
        self._write({"bytes": self.dice.choice(("x", "yy")), "offset": offset})

    def do_read(self) -> None:
        found = self._place(("write", "read"))
        if found is not None:
            low, high = self._range(found[1])
            self.steps.append({"read": f"{found[0]}[{low}:{high}]"})

    def do_map(self) -> None:
        self._map(mergeable=True)

    def do_map_plain(self) -> None:
        self._map(mergeable=False)

    def _map(self, *, mergeable: bool) -> None:
        dice = self.dice
        new = not self.processes or (
            len(self.processes) < self.family.processes and dice.random() < 0.4
        )
        process = self._new_name("p") if new else dice.choice(list(self.processes))
        regions = self.processes.setdefault(process, {})
        pages = dice.randint(*self.family.pages)
        name = self._new_name("r")
        step: Step = {"map": f"{process}.{name}", "pages": pages}
        if dice.random() < 0.3:
            # Also below what is there already; each stretch of 4096 pages is used once.
            step["at"] = (1 << 20) - 4096 * self.named
        if not mergeable:
            step["ksm"] = False
        if self.family.nodes > 1:
            step["node"] = dice.randrange(self.family.nodes)
        self.steps.append(step)
        regions[name] = _Region(pages, dict.fromkeys(range(pages), False))
        if dice.random() < 0.8:
            regions[name].mapped.update(dict.fromkeys(range(pages), True))
            self.steps.append({"write": f"{process}.{name}", **self._content()})

    def do_discard(self) -> None:
        found = self._place()
        if found is not None:
            low, high = self._range(found[1])
            found[1].mapped.update(dict.fromkeys(range(low, high), False))
            self.steps.append({"discard": f"{found[0]}[{low}:{high}]"})

    def do_unmap(self) -> None:
        found = self._place()
        if found is not None:
            low, high = self._range(found[1])
            for page in range(low, high):
                del found[1].mapped[page]
            self.steps.append({"unmap": f"{found[0]}[{low}:{high}]"})

    def do_remap(self) -> None:
        """Unmap a whole region and map it again at the same address."""
        found = self._place()
        if found is None or len(found[1].mapped) < found[1].pages:
            return
        place, region = found
        self.steps.append({"unmap": place})
        region.mapped = {}
        if self.dice.random() < 0.3:
            self.steps.append({"scan": 1})
        self.steps.append({"map": place})
        region.access = "write"
        region.split = False
        region.mapped = dict.fromkeys(range(region.pages), False)
        if self.dice.random() < 0.8:
            region.mapped = dict.fromkeys(range(region.pages), True)
            self.steps.append({"write": place, **self._content()})

    def do_move(self) -> None:
        found = self._place()
        if found is None or len(found[1].mapped) < found[1].pages or found[1].split:
            return
        place, region = found
        process, _, name = place.partition(".")
        new = self._new_name("r")
        step: Step = {"move": place, "to": new}
        if self.dice.random() < 0.5:
            step["at"] = (1 << 20) - 4096 * self.named
        self.steps.append(step)
        del self.processes[process][name]
        self.processes[process][new] = region

    def do_protect(self) -> None:
        found = self._place()
        if found is not None:
            found[1].access = self.dice.choice(("write", "write", "read", "none"))
            for low, high in _stretches(found[1].mapped):
                self.steps.append(
                    {"protect": f"{found[0]}[{low}:{high}]", "access": found[1].access}
                )

    def do_mergeable(self) -> None:
        self._advise("mergeable")

    def do_unmergeable(self) -> None:
        self._advise("unmergeable")

    def _advise(self, advice: str) -> None:
        found = self._place()
        if found is not None:
            low, high = self._range(found[1])
            found[1].part(low, high)
            self.steps.append({advice: f"{found[0]}[{low}:{high}]"})

    def do_cycle(self) -> None:
        """Unmerge a stretch and opt it in again: its pages' PTEs are clean then."""
        found = self._place()
        if found is not None:
            low, high = self._range(found[1])
            place = f"{found[0]}[{low}:{high}]"
            found[1].part(low, high)
            self.steps += [{"unmergeable": place}, {"mergeable": place}]

    def do_fork(self) -> None:
        if not self.processes or len(self.processes) >= self.family.processes + 2:
            return
        parent = self.dice.choice(list(self.processes))
        child = self._new_name("p")
        self.processes[child] = {
            name: _Region(region.pages, dict(region.mapped), region.access, region.split)
            for name, region in self.processes[parent].items()
        }
        self.merge_any[child] = self.merge_any.get(parent, False)
        self.steps.append({"fork": parent, "as": child})

    def do_exit(self) -> None:
        if len(self.processes) > 1:
            process = self.dice.choice(list(self.processes))
            del self.processes[process]
            self.steps.append({"exit": process})

    def do_exec(self) -> None:
        if self.processes:
            process = self.dice.choice(list(self.processes))
            self.processes[process] = {}
            self.steps.append({"exec": process})

    def do_merge_any(self) -> None:
        if self.processes:
            process = self.dice.choice(list(self.processes))
            on = self.dice.random() < 0.7
            self.merge_any[process] = on
            self.steps.append({"merge_any": process, "on": on})

    def do_merge_none(self) -> None:
        """Opt out whole processes that opted in."""
        opted = [process for process in self.processes if self.merge_any.get(process)]
        if opted:
            process = self.dice.choice(opted)
            self.merge_any[process] = False
            self.steps.append({"merge_any": process, "on": False})

    def do_place(self) -> None:
        self._to_node("place")

    def do_migrate(self) -> None:
        self._to_node("migrate")

    def do_trade(self) -> None:
        """Move one place to one node, and another to the other."""
        for node in self.dice.choice(((0, 1), (1, 0))):
            found = self._place()
            if found is not None:
                low, high = self._range(found[1])
                self.steps.append({"migrate": f"{found[0]}[{low}:{high}]", "node": node})

    def _to_node(self, verb: str) -> None:
        found = self._place()
        if found is not None:
            low, high = self._range(found[1])
            node = self.dice.randrange(2)
            if verb == "place":
                found[1].part(low, high)
            self.steps.append({verb: f"{found[0]}[{low}:{high}]", "node": node})

    def do_swap_out(self) -> None:
        found = self._place()
        if found is not None:
            low, high = self._range(found[1])
            self.steps.append({"swap_out": f"{found[0]}[{low}:{high}]"})

    def do_fork_seen(self) -> None:
        """Fork, and let ksmd see the child: then the kernel finds its mappings of KSM pages."""
        self.do_fork()
        self.steps.append({"scan": 1})

    def do_merge_across(self) -> None:
        """Switch merge_across_nodes; it is refused while anything is merged."""
        if self.dice.random() < 0.7:
            self.do_unmerge()
        self.steps.append({"set": {"merge_across_nodes": self.dice.randrange(2)}})

    def do_pin(self) -> None:
        found = self._place(("write", "read"))
        if found is None:
            return
        written = [page for page, touched in found[1].mapped.items() if touched]
        label = f"{found[0]}[{self.dice.choice(written)}]" if written else ""
        if label and label not in self.pins and len(self.pins) < 10:
            self.pins.append(label)
            self.steps.append({"pin": label})

    def do_unpin(self) -> None:
        if self.pins:
            self.steps.append({"unpin": self.pins.pop(self.dice.randrange(len(self.pins)))})

    def do_set(self) -> None:
        choices = {**ANY_KNOBS, **self.family.knobs}
        name = self.dice.choice(sorted(choices))
        self.steps.append({"set": {name: self.dice.choice(choices[name])}})

    def do_unmerge(self) -> None:
        self.steps.append({"set": {"run": 2}})

    def do_scan(self) -> None:
        self.steps.append({"scan": self.dice.choice((1, 1, 1, 2, 3))})

    def do_batch(self) -> None:
        self.steps.append({"batch": self.dice.randint(1, 2 * self.family.pages[1])})


def _stretches(mapped: Mapping[int, bool]) -> list[tuple[int, int]]:
    stretches: list[tuple[int, int]] = []
    for page in sorted(mapped):
        if stretches and stretches[-1][1] == page:
            stretches[-1] = (stretches[-1][0], page + 1)
        else:
            stretches.append((page, page + 1))
    return stretches


def random_scenario(family: Family, seed: int) -> Scenario:
    """The family's scenario number `seed`."""
    return _Writer(family, seed).scenario(f"{family.name} {seed}")
