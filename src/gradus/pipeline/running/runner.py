"""Running nodes: stages already done are not done again, half done ones go on, each hands its weights to the
next."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gradus.distributed.world import World
from gradus.pipeline.planning.augmenting import lacks_paraphrases, translate
from gradus.pipeline.planning.estimate import disk_bytes
from gradus.pipeline.planning.leaks import leakage
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Node
from gradus.pipeline.planning.prepare import prepare
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.recipes.reading import RecipeFile
from gradus.pipeline.running.finish import finish, is_done, lacks_test, score_test
from gradus.pipeline.running.stage import Context, StageRun
from gradus.pipeline.running.teaching import with_soft_labels
from gradus.training.checkpoint import require_room
from gradus.training.trainer import NotFinite


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
        to_translate: list[Prepared] = []
        for node in left:
            if node.likeness not in needs:
                with self.file.placed(node.name, node.source):
                    prepared = prepare(node, self.material)
                    needs[node.likeness] = disk_bytes(prepared)
                    to_translate += [prepared] if lacks_paraphrases(prepared) else []
        leaks = leakage(nodes if left else [], self.material)
        if self.context.world.first:
            require_room(self.context.stages, sum(needs[node.likeness] for node in left))
        for line in leaks.lines:
            if line not in self.told:
                self.context.told.say(line)
        self.told |= set(leaks.lines)
        for prepared in to_translate:
            with self.file.placed(prepared.node.name, prepared.node.source):
                translate(prepared, self.context.world.device)

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
