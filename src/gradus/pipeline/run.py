"""Running a plan: stages already done are not done again, half done ones go on, each hands its weights to the
next."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gradus.core.errors import UserError
from gradus.core.storage import from_home, lock, sweep, write_file, write_json
from gradus.distributed.world import World, close_world, open_world
from gradus.pipeline.augmenting import translate
from gradus.pipeline.environment import Signals
from gradus.pipeline.estimate import disk_bytes
from gradus.pipeline.finish import finish, is_done, lacks_test, score_test
from gradus.pipeline.leaks import leakage
from gradus.pipeline.loops import Loops
from gradus.pipeline.material import Material
from gradus.pipeline.patch import patched_recipes
from gradus.pipeline.plan import Node, make_plan
from gradus.pipeline.prepare import prepare
from gradus.pipeline.progress import Told
from gradus.pipeline.reading import RecipeFile, read_recipe
from gradus.pipeline.stage import Context, StageRun
from gradus.pipeline.teaching import with_soft_labels
from gradus.training.checkpoint import require_room
from gradus.training.trainer import NotFinite


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


@dataclass
class Runner:
    """Proves and runs nodes of one recipe in its run folder."""

    file: RecipeFile
    material: Material
    context: Context
    fresh: bool = False
    renewed: set[str] = field(default_factory=set)
    """What `fresh` has begun again: once a command."""
    told: set[str] = field(default_factory=set)
    """Leaks that were named: once, however many trials have them."""

    def prove(self, nodes: Sequence[Node]) -> None:
        """Reads and tokenises what every node that is left needs before the first one trains: a wrong label
        in the last stage must not be found after a night.

        Leakage is looked for among all nodes, so that a run that goes on finds in the cache what it found at
        first. Raises UserError for what is wrong, and where the disk is too small.
        """
        left = [node for node in nodes if self._stale(node) or not is_done(self.context.folder(node.id))]
        needs: dict[str, int] = {}
        for node in left:
            if node.likeness not in needs:
                with self.file.placed(node.name):
                    prepared = prepare(node, self.material)
                    needs[node.likeness] = disk_bytes(prepared)
                    translate(prepared, self.context.world.device)
        leaks = leakage(nodes if left else [], self.material)
        if self.context.world.first:
            require_room(self.context.stages, sum(needs[node.likeness] for node in left))
        for line in leaks.lines:
            if line not in self.told:
                self.context.told.say(line)
        self.told |= set(leaks.lines)

    def run(self, nodes: Sequence[Node], **changes: Any) -> None:
        """Runs what is not done, in order. `changes` are fields of the context that differ this time."""
        context = replace(self.context, **changes)
        if context.world.first:
            for node in filter(self._stale, nodes):
                shutil.rmtree(context.folder(node.id), ignore_errors=True)
        self.renewed |= {node.id for node in nodes}
        context.world.barrier()
        for number, node in enumerate(nodes, 1):
            label = f"[{number}/{len(nodes)}] {node.id}"
            if _agreed(context.world, is_done(context.folder(node.id))):
                self._complete(node, context, label)
                continue
            context.told.say(f"{label}: {_story(node)}")
            record = run_node(node, self.material, context)
            if record:
                context.told.say(f"{label}: done in {record['times']['train']:.0f} s of training")

    def _stale(self, node: Node) -> bool:
        return self.fresh and node.id not in self.renewed

    def _complete(self, node: Node, context: Context, label: str) -> None:
        """What a stage that is done may still lack: its score on test, the end of its checkpoints."""
        folder = context.folder(node.id)
        if "test" in context.scored and _agreed(context.world, lacks_test(folder)):
            context.told.say(f"{label}: done; now its test")
            score_test(StageRun(prepare(node, self.material), context))
        else:
            context.told.say(f"{label}: already done")
        if context.world.first:  # a run killed just after stage.json was written left them
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)


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


def run_node(node: Node, material: Material, context: Context) -> dict[str, Any]:
    """Prepares, trains and finishes one stage."""
    began = time.perf_counter()
    prepared = with_soft_labels(prepare(node, material), material, context.stages, context.world.device)
    stage_run = StageRun(prepared, context)
    stage_run.prepare_seconds = time.perf_counter() - began
    stage_run.digests = material.digests(node.stage.data)
    if context.world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(context.world.device)
    try:
        learner = stage_run.train()
        record = finish(stage_run, learner)
    except NotFinite as mistake:
        stage_run.name_last_good(mistake)
        raise
    if context.world.device.type == "cuda":
        torch.cuda.empty_cache()
    return record


def _agreed(world: World, done: bool) -> bool:
    """What the first rank found, on all ranks."""
    return bool(world.gather(done)[0])


def _story(node: Node) -> str:
    start = node.parent.id if node.parent else (node.folder or "scratch")
    said = [(f"{one.weight:g} {one.kind}", " and ".join(one.members)) for one in node.stage.objectives]
    objectives = " + ".join(f"{what} on {where}" if where else what for what, where in said)
    return f"from {start}, {objectives}, {node.stage.length}, seed {node.seed}"
