"""The loops of one recipe: proved before the first trial, then the search, then iterate on top of what it
found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gradus.core.errors import UserError, nearest
from gradus.pipeline.loops.attempts import Attempts
from gradus.pipeline.loops.iterate import Iterating
from gradus.pipeline.loops.proposals import require_library
from gradus.pipeline.loops.search import Searching
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Node, Plan, patched_plan
from gradus.pipeline.planning.prepare import prepare, reported
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.recipes.loop import Goal, Patch
from gradus.pipeline.recipes.mistakes import Key, dotted, line_of
from gradus.pipeline.recipes.reading import RecipeFile

if TYPE_CHECKING:
    from gradus.pipeline.running.runner import Runner


Ready = Callable[[Node], Prepared]
"""How a stage is made ready: `prepare`, or what remembers it."""


class Loops:
    """What `search` and `iterate` of a recipe do in its run folder."""

    def __init__(self, written: Plan, runner: Runner, folder: Path):
        prove_loops(written, runner.material, lambda node: prepare(node, runner.material))
        recipe = written.file.recipe
        self.search, self.iterate = None, None
        if recipe.search is not None:
            goal = recipe.goal(recipe.search)
            self.search = Searching(recipe.search, goal, written, Attempts(goal, written, runner), folder)
            written.loops["search"] = self.search.plain()
        if recipe.iterate is not None:
            goal = recipe.goal(recipe.iterate)
            self.iterate = Iterating(recipe.iterate, goal, written, Attempts(goal, written, runner), folder)
            written.loops["iterate"] = self.iterate.plain()

    def run(self) -> Patch:
        """The patch that the loops found; empty where there is none or nothing was better."""
        found: Patch = self.search.run() if self.search else {}
        return self.iterate.run(found) if self.iterate else found


def prove_loops(written: Plan, material: Material, ready: Ready) -> None:
    """Raises UserError for a metric that its stage does not report, and for a key or a variant that changes
    nothing of what leads to it; and for a variant, or an end of the space, that cannot be made `ready`."""
    recipe = written.file.recipe
    if (search := recipe.search) is not None:
        goal = recipe.goal(search)
        with written.file.placed(goal.stage):
            require_library()
            _require_reported(goal, "search", written, ready)
        for path, dimension in search.space.items():
            ends = [
                _goal(written, material, {path: end}, "search.space", goal, ready) for end in dimension.ends
            ]
            if len(set(ends)) == 1:
                raise _idle(written.file, ("search", "space", path), goal)
    if (iterate := recipe.iterate) is not None:
        goal = recipe.goal(iterate)
        with written.file.placed(goal.stage):
            _require_reported(goal, "iterate", written, ready)
        before = written.outcomes[0]["stages"][goal.stage]
        for name in iterate.order:
            if _goal(written, material, recipe.variants[name], f"variants.{name}", goal, ready) == before:
                raise _idle(written.file, ("variants", name), goal)


def _goal(written: Plan, material: Material, patch: Patch, source: str, goal: Goal, ready: Ready) -> str:
    """The id of the goal's stage, first seed, with `patch`; what leads to it can be made ready."""
    file = written.file
    plan = patched_plan(file, material, patch, source, seeds=1)
    stages: dict[str, str] = plan.outcomes[0]["stages"]
    if goal.stage not in stages:
        line = line_of(tuple(source.split(".", 1)), file.lines)
        raise UserError(f"leaves out the stage of {goal}", file=file.path, line=line, field=source)
    for node in plan.until(goal.stage):
        if node.id not in written.nodes:
            with file.placed(node.name, node.source):
                ready(node)
    return stages[goal.stage]


def _idle(file: RecipeFile, key: Key, goal: Goal) -> UserError:
    problem, hint = f"this changes nothing of {goal.stage}", f"the metric is {goal}"
    line = line_of(key, file.lines)
    return UserError(problem, file=file.path, line=line, field=dotted(key), hint=hint)


def _require_reported(goal: Goal, key: str, written: Plan, ready: Ready) -> None:
    node = written.nodes[written.outcomes[0]["stages"][goal.stage]]
    legal = reported(ready(node))
    if goal.metric not in legal:
        hint = nearest(goal.metric, sorted(legal))
        raise UserError(
            "this stage reports no such metric", field=f"{key}.metric", text=goal.metric, hint=hint
        )
