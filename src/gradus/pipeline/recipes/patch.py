"""One mechanism for --set, variants, seeds, search and iterate: a patch yields a patched recipe, and the plan
is the union of them all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from gradus.core.errors import UserError
from gradus.pipeline.recipes.loop import AS_WRITTEN, BEST, Patch
from gradus.pipeline.recipes.reading import RecipeFile, yaml_values
from gradus.pipeline.recipes.recipe import Recipe


@dataclass(frozen=True)
class Patched:
    """One of the recipes that a file stands for."""

    variant: str
    seed: int
    recipe: Recipe
    repeated: frozenset[str]
    """The stages that take this seed; the others take the recipe's own and are shared by all repetitions."""


def patched_recipes(file: RecipeFile, found: Patch | None = None) -> Iterator[Patched]:
    """Every variant with every seed, the recipe as written first, what a loop `found` last. Variants that
    `iterate` tries are its own."""
    yield from seeded(file, AS_WRITTEN, file.recipe)
    tried = file.recipe.iterate.order if file.recipe.iterate else ()
    for name, patch in file.recipe.variants.items():
        if name not in tried:
            yield from seeded(file, name, file.patched(patch, f"variants.{name}"))
    if found:
        yield from seeded(file, BEST, file.patched(found, BEST))


def seeded(file: RecipeFile, variant: str, recipe: Recipe) -> Iterator[Patched]:
    """A patched recipe with each of the file's seeds."""
    repeated = _repeated(recipe)
    for number in range(file.recipe.seeds.count):
        yield Patched(variant, recipe.seed + number, recipe, repeated)


def _repeated(recipe: Recipe) -> frozenset[str]:
    """The stages repeated for every seed: the first with rows (or those named), and all that come from
    them."""
    starts = set(recipe.seeds.starts)
    if not starts:
        starts = {name for name, stage in recipe.stages.items() if stage.reads == "rows"}
    for name in recipe.order():
        if starts & {*recipe.stages[name].needs}:
            starts.add(name)
    return frozenset(starts)


def parse_settings(settings: list[str]) -> dict[str, object]:
    """`--set path=value` options as a patch; values are YAML. Raises UserError for one without `=`."""
    patch: dict[str, object] = {}
    for setting in settings:
        path, sign, value = setting.partition("=")
        if not sign or not path:
            raise UserError(
                "a setting is PATH=VALUE",
                field="--set",
                text=setting,
                hint="stages.finetune.optimizer.lr=1e-4",
            )
        try:
            patch[path.strip()] = yaml_values(value)
        except yaml.YAMLError:
            hint = "write text that YAML might misread in quotes"
            raise UserError(
                "this value is not YAML", field=f"--set {path.strip()}", text=value, hint=hint
            ) from None
    return patch
