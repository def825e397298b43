"""One patch tried: its stages are run as far as the goal and judged on dev alone; what that is worth, what it
took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradus.core.storage import read_json, read_lines
from gradus.pipeline.planning.plan import Node, Plan, patched_plan
from gradus.pipeline.recipes.loop import Goal, Patch
from gradus.pipeline.running.finish import is_done

if TYPE_CHECKING:
    from gradus.pipeline.running.runner import Runner


@dataclass(frozen=True)
class Attempt:
    """What a patch is worth: the goal's metric of each of its folders, one a seed."""

    seeds: list[int]
    stages: list[dict[str, str]]
    """Stage -> id, for every seed."""
    values: list[float]
    seconds: float
    """Of training and evaluation, of the stages that no attempt before had."""


class Attempts:
    """Runs patches of one recipe; a stage is paid for by the first that has it."""

    def __init__(self, goal: Goal, written: Plan, runner: Runner):
        self.goal, self.runner = goal, runner
        self.file = written.file
        self.paid: set[str] = set()

    def plan(self, patch: Patch, variant: str, source: str, seeds: int) -> Plan:
        """The nodes of the recipe with `patch`, which stands in the file at `source`, and its first seeds."""
        return patched_plan(self.file, self.runner.material, patch, source, seeds, variant)

    def nodes(self, plan: Plan) -> list[Node]:
        """Those that the goal needs."""
        return list(plan.until(self.goal.stage))

    def goals(self, plan: Plan) -> list[str]:
        """The ids of the goal's stage, one a seed; each once."""
        return list(dict.fromkeys(outcome["stages"][self.goal.stage] for outcome in plan.outcomes))

    def prove(self, plan: Plan) -> None:
        """Raises UserError for what is wrong with it, before anything is trained."""
        self.runner.prove(self.nodes(plan))

    def run(self, plan: Plan, **changes: Any) -> Attempt:
        """Runs what is not done of a plan that was proved, without a look at test; `changes` are fields of
        the runner's context."""
        nodes = self.nodes(plan)
        self.runner.run(nodes, scored=("dev",), **changes)
        ids = self.goals(plan)
        values = [self.record(id)["results"]["dev"][self.goal.metric] for id in ids]
        stages = [{node.name: outcome["stages"][node.name] for node in nodes} for outcome in plan.outcomes]
        spent = self.pay(node.id for node in nodes)
        return Attempt([plan.nodes[id].seed for id in ids], stages, values, spent)

    def pay(self, ids: Iterable[str]) -> float:
        """The seconds that finished stages took, of those that were not paid for before."""
        new = [
            id for id in dict.fromkeys(ids) if id not in self.paid and is_done(self.runner.context.folder(id))
        ]
        self.paid.update(new)
        times = [self.record(id)["times"] for id in new]
        return round(sum(one["train"] + one["evaluate"] for one in times), 3)

    def record(self, id: str) -> dict[str, Any]:
        """stage.json."""
        return read_json(self.runner.context.folder(id) / "stage.json")


def reports(folder: Path, metric: str) -> list[float]:
    """The metric at every evaluation of a stage so far."""
    lines = read_lines(folder / "metrics.jsonl")
    return [line["metrics"][metric] for line in lines if line["kind"] == "evaluate"]
