"""What the loops of a recipe take at worst, from the ends of their space: told by `gradus check`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradus.core.errors import UserError, counted
from gradus.pipeline.planning.estimate import Estimate
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Node, Plan, patched_plan
from gradus.pipeline.recipes.loop import AS_WRITTEN, Goal, Loop, Patch, Search, merged

Price = Callable[[Node], Estimate]
SPACE = "search.space"
"""Where what a search tries stands in the file."""


@dataclass
class LoopCosts:
    """Lines to tell, and the seconds and bytes of disk beyond the recipe as written."""

    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0
    disk: int = 0


class _Costs:
    """Prices of patches of one recipe."""

    def __init__(self, written: Plan, material: Material, price: Price):
        self.written, self.material, self.price = written, material, price

    def nodes(self, patch: Patch, source: str, goal: Goal, seeds: int) -> list[Node]:
        """The stages that `patch` adds to the recipe as written, as far as the goal."""
        plan = patched_plan(self.written.file, self.material, patch, source, seeds)
        return [node for node in plan.until(goal.stage) if node.id not in self.written.nodes]

    def seeds(self, goal: Goal) -> int:
        """How many folders of the goal's stage the seeds of the recipe make."""
        ids = (outcome["stages"][goal.stage] for outcome in self.written.outcomes
               if outcome["variant"] == AS_WRITTEN)  # fmt: skip
        return len(set(ids))

    def sum(self, nodes: Sequence[Node], what: str) -> Any:
        total = 0
        for node in nodes:
            with self.written.file.placed(node.name, node.source):
                total += getattr(self.price(node), what)
        return total


def loop_costs(written: Plan, material: Material, price: Price, time: Callable[[float], str]) -> LoopCosts:
    """Of a search the dearest corner of its space in every trial, of iterate every step kept. `time` writes
    seconds as words."""
    costs, found, recipe = _Costs(written, material, price), LoopCosts(), written.file.recipe
    if recipe.search is not None:
        _search(costs, recipe.search, recipe.goal(recipe.search), found, time)
    if recipe.iterate is not None:
        goal = recipe.goal(recipe.iterate)
        seeds = costs.seeds(goal)
        together: Patch = {}
        added: dict[str, Node] = {}
        for name in recipe.iterate.order:
            step = merged(together, recipe.variants[name])
            try:
                nodes = costs.nodes(step, f"variants.{name}", goal, recipe.seeds.count)
                costs.sum(nodes, "seconds")
            except UserError as mistake:
                found.lines.append(f"iterate: {name} cannot be on top of those before it: {mistake.problem}")
                continue
            together = step
            added |= {node.id: node for node in nodes}
        seconds = costs.sum(list(added.values()), "seconds")
        found.seconds += _capped(seconds, recipe.iterate)
        found.disk += costs.sum(list(added.values()), "disk")
        steps = ", ".join(recipe.iterate.order)
        found.lines.append(
            f"iterate: {_aim(goal, recipe.iterate)}: {steps}, each on {counted(seeds, 'seed')}: about "
            f"{time(seconds)} where each is kept{_budget(recipe.iterate)}"
        )
        if seeds == 1:
            more = f"seeds: {{count: 3, from: {goal.stage}}}"
            found.lines.append(f"iterate: one seed has no deviation, so any gain is kept: {more} says more")
    return found


def _search(
    costs: _Costs, search: Search, goal: Goal, found: LoopCosts, time: Callable[[float], str]
) -> None:
    nodes = _dearest(costs, search, goal)
    each, seeds = costs.sum(nodes, "seconds"), costs.seeds(goal)
    seconds = _capped((search.trials - 1) * each, search)
    found.seconds += seconds + seeds * each
    found.disk += (search.trials + seeds) * costs.sum(nodes, "disk")
    memory = max((costs.price(node).memory for node in nodes), default=0)
    found.lines.append(
        f"search: {_aim(goal, search)}: at most {counted(search.trials, 'trial')} of {time(each)} and "
        f"{memory / 1e9:.1f} GB at worst, about {time(seconds)}{_budget(search)}; then the best on "
        f"{counted(seeds, 'seed')}"
    )
    found.lines += [f"search: {path}: {dimension}" for path, dimension in search.space.items()]


def _dearest(costs: _Costs, search: Search, goal: Goal) -> list[Node]:
    """The stages of the dearest corner of the space; of the dearest end where the corner cannot be."""
    priced: list[tuple[float, Patch]] = []
    for path, dimension in search.space.items():
        ends: list[Patch] = [{path: end} for end in dimension.ends]
        prices = [costs.sum(costs.nodes(end, SPACE, goal, 1), "seconds") for end in ends]
        priced.append(max(zip(prices, ends), key=lambda one: one[0]))
    corner: Patch = {}
    for _, end in priced:
        corner = merged(corner, end)
    try:
        nodes = costs.nodes(corner, SPACE, goal, 1)
        costs.sum(nodes, "seconds")
    except UserError:
        _, end = max(priced, key=lambda one: one[0])
        nodes = costs.nodes(end, SPACE, goal, 1)
    return nodes


def _aim(goal: Goal, loop: Loop) -> str:
    return f"{goal} until {loop.until:g}" if loop.until is not None else str(goal)


def _budget(loop: Loop) -> str:
    return f", of which {loop.minutes:g} minutes are allowed" if loop.minutes is not None else ""


def _capped(seconds: float, loop: Loop) -> float:
    return seconds if loop.minutes is None else min(seconds, 60 * loop.minutes)
