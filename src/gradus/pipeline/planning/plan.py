"""The graph of stages that a recipe stands for: the union of its patched recipes, each stage once by
fingerprint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError, nearest, under
from gradus.core.storage import digest_json, folder_digest, from_home
from gradus.data.formats import Pair, Single
from gradus.data.labels import Labels
from gradus.data.mixture import Mixture
from gradus.data.rows import RowsData
from gradus.pipeline.planning.augment_files import augment_digests
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.probing import probe_digests
from gradus.pipeline.recipes.fitting import as_text
from gradus.pipeline.recipes.loop import Patch
from gradus.pipeline.recipes.patch import Patched, patched_recipes, seeded
from gradus.pipeline.recipes.reading import RecipeFile
from gradus.pipeline.recipes.recipe import Recipe
from gradus.pipeline.recipes.stages import FromFolder, Stage

CODE_FORMAT = 2
"""Raised when the same stage would give other bits than before: finished stages are then run again."""


LATER: dict[str, Any] = {
    **dict.fromkeys(("metrics", "words", "layer_decay", "groups", "label_smoothing", "on", "layers")),
    "loss": "cross_entropy", "transitions": "any",
}  # fmt: skip
"""Keys inside the parts of a stage that came after the first fingerprints, and their defaults, which decide
nothing."""


@dataclass(frozen=True)
class Node:
    """One stage to run: what it is, what it starts from, and the fingerprint of everything that decides its
    bits."""

    name: str
    stage: Stage
    seed: int
    parent: Node | None
    recipe: Recipe
    fingerprint: str
    folder: Path | None = None
    """The model folder it starts from, where it is not a stage."""
    likeness: str = ""
    """Equal for nodes that differ in nothing but their seed: they read the same data in the same way."""
    teachers: tuple[Node | Path, ...] = ()
    """Stages and model folders that it learns from, in the order of the recipe."""
    source: str | None = None
    """Where the patch that brought it in stands in the file; None for the recipe as written."""

    @property
    def before(self) -> list[Node]:
        """The stages that it needs: the one that it starts from, and its teachers."""
        taught = [one for one in self.teachers if isinstance(one, Node)]
        return taught if self.parent is None else [self.parent, *taught]

    @property
    def id(self) -> str:
        return f"{self.name}-{self.fingerprint[:8]}"

    @cached_property
    def kind(self) -> str:
        return self.stage.reads


@dataclass
class Plan:
    """Nodes in an order in which they can run, and which node each (variant, seed) takes for each stage."""

    file: RecipeFile
    nodes: dict[str, Node] = field(default_factory=dict)
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    loops: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`search` and `iterate` -> what they drive at, and the file in the run folder that tells of them; then
    `found` -> the patch."""

    @property
    def digest(self) -> str:
        return digest_json(self.file.values)

    def plain(self) -> dict[str, Any]:
        """plan.json: all that the report needs to find its way."""
        nodes = [
            {"id": node.id, "stage": node.name, "fingerprint": node.fingerprint, "seed": node.seed,
             "kind": node.kind, "parent": node.parent.id if node.parent else None}
            for node in self.nodes.values()
        ]  # fmt: skip
        return {
            "recipe": self.file.name,
            "recipe_digest": self.digest,
            "nodes": nodes,
            "outcomes": self.outcomes,
            "loops": self.loops,
        }

    def add(self, recipes: Iterable[Patched], material: Material) -> None:
        """Takes in what of patched recipes is not there yet."""
        for patched in recipes:
            stages: dict[str, Node] = {}
            source = self.file.source_of(patched.variant)
            for name in patched.recipe.order():
                with self.file.placed(name, source):
                    node = replace(_node(name, patched, stages, material), source=source)
                stages[name] = self.nodes.setdefault(node.id, node)
            ids = {name: node.id for name, node in stages.items()}
            results = _results(patched.recipe, self.file.recipe)
            outcome = {"variant": patched.variant, "seed": patched.seed, "stages": ids, "results": results}
            if outcome not in self.outcomes:
                self.outcomes.append(outcome)

    def until(self, stage: str | None) -> Iterator[Node]:
        """The nodes to run, in order: all, or `stage` and what it needs. Raises UserError for an unknown
        stage."""
        if stage is None:
            yield from self.nodes.values()
            return
        names = {*self.file.recipe.stages, *(node.name for node in self.nodes.values())}
        if stage not in names:
            hint = nearest(stage, sorted(names))
            raise UserError("there is no such stage", field="--until", text=stage, hint=hint)
        needed: set[str] = set()
        waiting = [node for node in self.nodes.values() if node.name == stage]
        while waiting:
            node = waiting.pop()
            needed.add(node.id)
            waiting += node.before
        yield from (node for node in self.nodes.values() if node.id in needed)


def make_plan(file: RecipeFile, material: Material, recipes: Iterable[Patched] | None = None) -> Plan:
    """Resolves patched recipes (those that the file itself stands for, unless given) into nodes; reads data
    only to take its digests."""
    plan = Plan(file)
    plan.add(patched_recipes(file) if recipes is None else recipes, material)
    return plan


def patched_plan(
    file: RecipeFile, material: Material, patch: Patch, source: str, seeds: int, variant: str = ""
) -> Plan:
    """The plan of the recipe with `patch`, which stands in the file at `source`, alone, with the first
    `seeds` of it."""
    recipes = seeded(file, variant or source, file.patched(patch, source))
    return make_plan(file, material, islice(recipes, seeds))


def seed_notes(plan: Plan) -> list[str]:
    """That seeds were asked for and repeat nothing."""
    count = plan.file.recipe.seeds.count
    if count == 1 or len({node.seed for node in plan.nodes.values()}) > 1:
        return []
    first = plan.file.recipe.order()[0]
    return [f"seeds: no stage reads rows, so none is repeated; {{count: {count}, from: {first}}} repeats all"]


def _results(recipe: Recipe, as_written: Recipe) -> list[str]:
    """What a variant is judged by: its leaves, without those that are on the way in the recipe as written (a
    pre-training that nothing starts from any more is no result); of a recipe with loops, by what they drive
    at."""
    loops = [loop for loop in (as_written.search, as_written.iterate) if loop is not None]
    if loops:
        return [name for name in recipe.order() if name in {as_written.goal(loop).stage for loop in loops}]
    usual = as_written.leaves()
    return [leaf for leaf in recipe.leaves() if leaf in usual or leaf not in as_written.stages]


def _node(name: str, patched: Patched, done: dict[str, Node], material: Material) -> Node:
    recipe, stage = patched.recipe, _saying(patched.recipe.stages[name], material)
    seed = patched.seed if name in patched.repeated else recipe.seed
    parent = done[stage.parent] if stage.parent else None
    folder = None
    if isinstance(stage.start, FromFolder):
        folder = _folder(stage.start.folder, material, f"stages.{name}.from.folder")
    teachers = _teachers(name, stage, done, material)
    if parent is not None:
        origin: Any = parent.fingerprint
    elif folder is not None:
        origin = folder_digest(folder)
    else:
        origin = [recipe.model.changes(), material.tokenizer_key(recipe)]
    # What is not given decides nothing: a new key leaves fingerprints as they were.
    config = {key: value for key, value in stage.plain().items() if value is not None}
    for part in (config["evaluate"], config["optimizer"], config["model"], *config["objectives"]):
        for key, usual in LATER.items():
            if part.get(key) in (None, usual):
                part.pop(key, None)
    # When state is saved changes nothing, where it starts is in `origin`, what a preset fills in its place.
    for key in ("save", "start", "preset"):
        config.pop(key, None)
    for task in (config, *config["zero_shot"].values()):
        for data in (task["data"], *task["data"].get("mix", {}).values()):
            data.pop("leakage", None)  # what it drops is told by the data's digest
    made_of = {"format": CODE_FORMAT, "name": name, "stage": config, "seed": seed, "origin": origin,
               "data": material.digests(stage.data)}  # fmt: skip
    with under(f"stages.{name}"):
        libraries = stage.libraries
    if libraries:
        made_of["libraries"] = libraries
    if stage.reads == "text":
        made_of["prompts"] = recipe.prompts
    if stage.augment:
        made_of["augment"] = augment_digests(name, stage.augment, material.root)
    if stage.zero_shot:
        made_of["zero_shot"] = probe_digests(name, stage, material)
    likeness = {**made_of, "seed": None, "origin": parent.likeness if parent else origin}
    if teachers:
        for objective in config["objectives"]:
            objective.pop("teacher", None)  # who they are is told by their digests
        folders = [None if isinstance(one, Node) else folder_digest(one) for one in teachers]
        nodes = [one if isinstance(one, Node) else None for one in teachers]
        made_of["teachers"] = [node.fingerprint if node else one for node, one in zip(nodes, folders)]
        likeness["teachers"] = [node.likeness if node else one for node, one in zip(nodes, folders)]
    alike = digest_json(likeness)
    return Node(name, stage, seed, parent, recipe, digest_json(made_of), folder, alike, teachers)


def _saying(stage: Stage, material: Material) -> Stage:
    """The stage; one that says the classes of its rows reads them as texts."""
    data = stage.data
    if members := stage.members:
        assert isinstance(data, Mixture), "a single data set has no members"
        own = {name: _saying(member, material).data for name, member in members.items()}
        return stage.model_copy(update={"data": data.model_copy(update={"mix": own})})
    if not stage.says_answers or not isinstance(data, RowsData) or not isinstance(data.format, Single | Pair):
        return stage
    assert data.format.label is not None
    names = Labels.of(material.rows(data)["train"].rows, data.format.label, None).names
    changed = data.model_copy(update={"format": as_text(data.format, names)})
    return stage.model_copy(update={"data": changed})


def _teachers(
    name: str, stage: Stage, done: Mapping[str, Node], material: Material
) -> tuple[Node | Path, ...]:
    named = stage.lesson.teachers if stage.lesson else []
    field = f"stages.{name}.objectives.teacher.folder"
    return tuple(done[one] if isinstance(one, str) else _folder(one.folder, material, field) for one in named)


def _folder(named: str, material: Material, field: str) -> Path:
    folder = material.root / from_home(named)
    if not (folder / "config.json").is_file():
        hint = "it has no config.json"
        raise UserError("this is no model folder", field=field, text=str(folder), hint=hint)
    return folder
