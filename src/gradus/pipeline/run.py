"""Running a recipe: its plan is proved, its loops choose, and what is not done is done."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError
from gradus.core.storage import from_home, lock, sweep, write_file, write_json
from gradus.distributed.world import close_world, open_world
from gradus.pipeline.loops.loops import Loops
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import make_plan
from gradus.pipeline.recipes.patch import patched_recipes
from gradus.pipeline.recipes.reading import RecipeFile, read_recipe
from gradus.pipeline.running.environment import Signals
from gradus.pipeline.running.progress import Told
from gradus.pipeline.running.runner import Runner
from gradus.pipeline.running.stage import Context


def run(
    recipe: str | Path,
    *,
    runs: str | Path = "runs",
    data_dir: str | Path | None = None,
    until: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    fresh: bool = False,
    inexact: bool = False,
) -> Path:
    """Runs what a recipe declares and is not done yet; returns the run folder.

    `settings` is a patch (full path -> value), `until` the last stage wanted, `fresh` starts every stage
    again, `inexact` lets a checkpoint written under other conditions go on. Raises UserError for the user's
    mistakes and Interrupted where a signal stopped it with its state saved.
    """
    file = read_recipe(Path(recipe), settings)
    world = open_world(device)
    told = Told(silent=not world.first)
    signals = Signals()
    folder = Path(runs) / file.name
    try:
        with ExitStack() as stack:
            stack.enter_context(signals.watching())
            if world.first:
                require_writable(Path(runs))
                busy = "another run of this recipe is under way"
                stack.enter_context(lock(folder / ".lock", wait=False, busy=busy))
                sweep(folder)
            material = Material(data_root(file, data_dir), Path(runs) / "cache", told)
            plan = make_plan(file, material)
            context = Context(world, folder / "stages", told, signals, inexact)
            runner = Runner(file, material, context, fresh)
            nodes = list(plan.until(until))
            runner.prove(nodes)
            loops = Loops(plan, runner, folder) if until is None else None
            if world.first:
                write_file(folder / "recipe.yaml", as_run(file, settings or {}))
                write_json(folder / "plan.json", plan.plain())
            if loops is not None and plan.loops:
                plan.loops["found"] = dict(loops.run())
                plan.add(patched_recipes(file, plan.loops["found"]), material)
                nodes = list(plan.nodes.values())
                runner.prove(nodes)
                if world.first:
                    write_json(folder / "plan.json", plan.plain())
            runner.run(nodes)
    finally:
        close_world()
    return folder


def data_root(file: RecipeFile, data_dir: str | Path | None) -> Path:
    """--data-dir, else GRADUS_DATA, else the recipe's folder. Raises UserError where that is no folder."""
    chosen = data_dir or os.environ.get("GRADUS_DATA")
    root = from_home(chosen) if chosen else (file.path.parent if file.path else Path())
    if not root.is_dir():
        where = "--data-dir" if data_dir else "GRADUS_DATA"
        raise UserError("there is no such data folder", field=where, text=str(root))
    return root


def as_run(file: RecipeFile, settings: Mapping[str, Any]) -> str:
    """The recipe as written, and what was set on the command line."""
    said = [
        f"# run with --set {path}={json.dumps(value, ensure_ascii=False)}\n"
        for path, value in settings.items()
    ]
    return "".join(said) + file.text


def require_writable(runs: Path) -> None:
    """Makes the folder of all runs. Raises UserError where nothing can be written there."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        writable = os.access(runs, os.W_OK | os.X_OK)
    except OSError as error:
        raise UserError(
            f"run folders cannot be kept here: {error.strerror}", file=runs, field="--runs"
        ) from None
    if not writable:
        raise UserError("run folders cannot be kept here: no permission to write", file=runs, field="--runs")
