"""A run folder as the report sees it: what was planned, and what each stage has left behind so far.

Nothing but `plan.json`, `recipe.yaml` and the stage folders is read. A stage may be missing or half done,
because the run may still be going; a file that is there and cannot be read is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError

SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Stage:
    """One stage folder: its node in the plan, its `stage.json` (empty if not written yet) and its curves."""

    id: str
    name: str
    kind: str
    """"rows" or "text"."""
    seed: int
    parent: str | None
    folder: Path
    record: dict[str, Any]
    curves: list[dict[str, Any]] = field(repr=False)

    @property
    def finished(self) -> bool:
        return self.record.get("status") == "done"

    @property
    def status(self) -> str:
        return "done" if self.finished else "not finished" if self.record or self.curves else "not started"

    def part(self, name: str) -> dict[str, Any]:
        """A section of stage.json, empty where it is missing."""
        return self.record.get(name) or {}

    @property
    def results(self) -> dict[str, dict[str, float]]:
        """Split -> metric -> value."""
        return self.part("results")

    @property
    def floors(self) -> dict[str, dict[str, dict[str, float]]]:
        """Split -> floor ("majority", "naive_bayes", "unigram") -> metric -> value."""
        return self.part("floors")

    @property
    def metric(self) -> str:
        """The metric that speaks for the stage: what training judged it by, where that was measured."""
        measured = [metric for split in SPLITS for metric in self.results.get(split, {})]
        whole = str(self.part("training").get("metric", ""))
        wanted = [name for name in (whole, whole.rsplit(".", 1)[-1]) if name in measured]
        return (wanted or measured or [whole.rsplit(".", 1)[-1]])[0]

    @cached_property
    def predictions(self) -> dict[str, list[dict[str, Any]]]:
        """Split -> one object a row, in order; only splits that were predicted."""
        _, *task = self.name.split(".")
        names = {split: "-".join(["predictions", *task, split]) for split in SPLITS}
        found = {split: self.folder / f"{name}.jsonl" for split, name in names.items()}
        return {split: list(_json_lines(path)) for split, path in found.items() if path.is_file()}

    def task(self, name: str) -> Stage:
        """One of several tasks that it teaches, as a stage with that one alone; without a name itself."""
        if not name:
            return self
        own, prefix = self.part("members").get(name, {}), f"{name}."

        def told(metrics: dict[str, float]) -> dict[str, float]:
            return {key[len(prefix) :]: value for key, value in metrics.items() if key.startswith(prefix)}

        results = {split: found for split, metrics in self.results.items() if (found := told(metrics))}
        curves = [{**line, "metrics": told(line["metrics"])} for line in self.curves if "metrics" in line]
        record = {**self.record, **own, "results": results, "transfer": [], "samples": []}
        record["config"] = {**self.part("config"), "objectives": own.get("objectives")}
        record["training"] = {**self.part("training"), "metric": own.get("metric")}
        record = record if self.record else {}
        return replace(self, name=f"{self.name}.{name}", record=record, curves=curves)


@dataclass(frozen=True)
class Outcome:
    """One variant under one seed: stage name -> stage id, and the names of its result stages."""

    variant: str
    seed: int
    stages: dict[str, str]
    results: list[str]


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read; equal to itself alone."""

    folder: Path
    recipe: str
    recipe_digest: str
    recipe_text: str
    stages: dict[str, Stage]
    outcomes: list[Outcome]
    loops: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`search` and `iterate` -> what they drive at, and the file that tells of them; `found` -> the patch."""

    @property
    def variants(self) -> list[str]:
        """In the plan's order: the first is the recipe as written."""
        return list(dict.fromkeys(outcome.variant for outcome in self.outcomes))

    @property
    def seeds(self) -> list[int]:
        return sorted({outcome.seed for outcome in self.outcomes})

    @property
    def stage_names(self) -> list[str]:
        """Parents before children."""
        return list(dict.fromkeys(stage.name for stage in sorted(self.stages.values(), key=self.depth)))

    @property
    def result_names(self) -> list[str]:
        """The stages whose results the recipe asks for."""
        wanted = {name for outcome in self.outcomes for name in outcome.results}
        return [name for name in self.stage_names if name in wanted]

    def depth(self, stage: Stage) -> int:
        """How many stages went before. Raises UserError where the plan's parents go round in a circle."""
        seen, parent = {stage.id}, stage.parent
        while parent is not None and parent in self.stages:
            if parent in seen:
                raise UserError(
                    "stages are each other's parents", file=self.folder / "plan.json", text=parent
                )
            seen.add(parent)
            parent = self.stages[parent].parent
        return len(seen) - 1

    def tasks_of(self, name: str) -> list[str]:
        """What stage `name` is judged by: itself, or each of several tasks, as STAGE.TASK."""
        told = [
            task for stage in self.stages.values() if stage.name == name for task in stage.part("members")
        ]
        return [f"{name}.{task}" for task in dict.fromkeys(told)] or [name]

    def of(self, variant: str, name: str) -> list[Stage]:
        """The folders of stage `name` (or its task, STAGE.TASK) under `variant`, one a seed, each once."""
        name, _, task = name.partition(".")
        ids = [outcome.stages.get(name) for outcome in self.outcomes if outcome.variant == variant]
        return [self.stages[id].task(task) for id in dict.fromkeys(ids) if id in self.stages]

    def users(self, stage: Stage) -> list[str]:
        """The variants that go through `stage`."""
        using = (outcome.variant for outcome in self.outcomes if stage.id in outcome.stages.values())
        return list(dict.fromkeys(using))


def load_run(folder: str | Path | Run) -> Run:
    """Reads a run folder; one that was read is returned. Raises UserError where it is none or is broken."""
    if isinstance(folder, Run):
        return folder
    folder = Path(folder)
    plan_file = folder / "plan.json"
    if not plan_file.is_file():
        problem = "this is not a run folder" if folder.is_dir() else "there is no such folder"
        raise UserError(problem, file=folder, hint="a run folder holds plan.json, as `gradus run` writes it")
    plan = _json(plan_file)
    recipe_file = folder / "recipe.yaml"
    try:
        stages = {node["id"]: _stage(folder, node) for node in plan["nodes"]}
        known = [[item[key] for key in ("variant", "seed", "stages", "results")] for item in plan["outcomes"]]
        outcomes = [Outcome(variant, seed, dict(own), list(ends)) for variant, seed, own, ends in known]
        name, digest = str(plan["recipe"]), str(plan["recipe_digest"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError("the plan is incomplete", file=plan_file, text=str(error)) from None
    if not outcomes:
        raise UserError("the plan has no outcomes", file=plan_file, field="outcomes")
    text = recipe_file.read_text(encoding="utf-8") if recipe_file.is_file() else ""
    return Run(folder, name, digest, text, stages, outcomes, plan.get("loops", {}))


def _stage(folder: Path, node: dict[str, Any]) -> Stage:
    home = folder / "stages" / node["id"]
    record = _json(home / "stage.json") if (home / "stage.json").is_file() else {}
    curves = list(_json_lines(home / "metrics.jsonl")) if (home / "metrics.jsonl").is_file() else []
    known = node.get("kind", "rows"), node.get("seed", 0), node.get("parent")
    return Stage(node["id"], node["stage"], *known, home, record, curves)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            "this is not JSON", file=path, line=getattr(error, "lineno", None), text=str(error)
        ) from None
    if not isinstance(value, dict):
        raise UserError("a JSON object is wanted", file=path, text=value)
    return value


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file. A last line without its end is one that is being written, and is left out."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UserError("this line is not JSON", file=path, line=number, text=str(error)) from None
