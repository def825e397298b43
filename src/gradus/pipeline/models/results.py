"""Which model folder is meant where a stage's or a run's folder is named.

A run's is its result with the first seed, in what a loop found, else in the recipe as written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError
from gradus.core.storage import read_json
from gradus.pipeline.recipes.loop import BEST


def model_folder(path: Path) -> Path:
    """The model folder of a model's, a stage's or a run's folder; of a run it is told on standard error.

    Raises UserError for a stage that is not done, and a run with no result yet or with several.
    """
    if (path / "plan.json").is_file():
        return _result(path)
    if (path / "stage.json").is_file():
        return path / "model"
    if path.is_dir() and path.parent.name == "stages":
        raise UserError("this stage is not done", file=path, hint="`gradus run` goes on with it")
    return path


def model_lines(run: Path, until: str | None = None) -> list[str]:
    """A line with the model folder of each result, or of the stage `until`, where it is done."""
    outcome = _meant(run)
    models = _models(run, outcome, [until] if until else outcome["results"])
    return [f"model: {model} ({outcome['variant']}, seed {outcome['seed']})" for model in models]


def _result(run: Path) -> Path:
    outcome = _meant(run)
    models = _models(run, outcome, outcome["results"])
    if not models:
        raise UserError("this run has no result yet", file=run, hint="`gradus run` goes on with it")
    if len(models) > 1:
        hint = f"name one: {', '.join(map(str, models))}"
        raise UserError("this run has several results", file=run, hint=hint)
    print(f"model: {models[0]} ({outcome['variant']}, seed {outcome['seed']})", file=sys.stderr)
    return models[0]


def _meant(run: Path) -> dict[str, Any]:
    """What a loop found, else the recipe as written, with the first seed: variant, seed, stages by name,
    results."""
    outcomes: list[dict[str, Any]] = read_json(run / "plan.json")["outcomes"]
    return next((one for one in outcomes if one["variant"] == BEST), outcomes[0])


def _models(run: Path, outcome: dict[str, Any], names: list[str]) -> list[Path]:
    stages = [run / "stages" / outcome["stages"][name] for name in names]
    return [stage / "model" for stage in stages if (stage / "stage.json").is_file()]
