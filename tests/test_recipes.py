"""The recipes that come along: each loads, its variants patch, and it plans where its data is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gradus.cli import main
from gradus.core.errors import UserError
from gradus.data.paths import BUILTIN
from gradus.data.split import SPLITS
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import make_plan
from gradus.pipeline.recipes.loop import AS_WRITTEN
from gradus.pipeline.recipes.patch import patched_recipes
from gradus.pipeline.recipes.reading import RecipeFile, read_recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
ROOT = os.environ.get("GRADUS_DATA")


def is_builtin(file: RecipeFile) -> bool:
    data = [stage.data for stage in file.recipe.stages.values()]
    parts = [part for one in data for part in getattr(one, "parts", {"": one}).values()]
    choices = [getattr(part, split) for part in parts for split in SPLITS]
    return all(str(choice).startswith(BUILTIN) for choice in choices if choice is not None)


BUILTIN_RECIPES = [path for path in RECIPES if is_builtin(read_recipe(path))]
OTHERS = [path for path in RECIPES if path not in BUILTIN_RECIPES]
PUBLIC = [path for path in OTHERS if path.stem != "gpt1"]
"""GPT-1's own books cannot be had: that recipe names files that a user would put there."""


def alone(file: RecipeFile) -> set[str]:
    """What is run whatever a loop finds."""
    tried = file.recipe.iterate.order if file.recipe.iterate else ()
    return {AS_WRITTEN, *file.recipe.variants} - set(tried)


def planned(path: Path, root: Path, cache: Path) -> None:
    """Every variant and seed has its nodes; a seed repeats only what `seeds` says."""
    file = read_recipe(path)
    plan = make_plan(file, Material(root, cache))
    assert len(plan.outcomes) == len(alone(file)) * file.recipe.seeds.count
    repeated = next(iter(patched_recipes(file))).repeated
    for name in file.recipe.stages:
        nodes = {outcome["stages"][name] for outcome in plan.outcomes if outcome["variant"] == AS_WRITTEN}
        assert len(nodes) == (file.recipe.seeds.count if name in repeated else 1)


def test_there_are_recipes() -> None:
    names = {path.stem for path in RECIPES}
    assert {"quickstart", "novels_to_sst2", "zh_novels_to_book_review"} <= names
    assert [path.stem for path in BUILTIN_RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_load_and_their_variants_patch(path: Path) -> None:
    file = read_recipe(path)
    assert file.text.startswith("# ")
    patched = list(patched_recipes(file))
    assert {one.variant for one in patched} == alone(file)
    for one in patched:
        assert (one.variant == AS_WRITTEN) == (one.recipe == file.recipe)


@pytest.mark.parametrize("path", BUILTIN_RECIPES, ids=lambda path: path.stem)
def test_recipes_on_built_in_data_plan(path: Path, tmp_path: Path) -> None:
    planned(path, tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_absent_data_is_told(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GRADUS_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["gradus", "check", str(path), "--runs", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert told.count("\n") == 1
    assert "no such file" in told or "no file matches" in told
    assert f"looked in {path.parent}" in told


@pytest.mark.data
@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: path.stem)
def test_recipes_plan_on_their_data(path: Path, tmp_path: Path) -> None:
    if not ROOT:
        pytest.skip("GRADUS_DATA is not set")
    try:
        planned(path, Path(ROOT), tmp_path / "cache")
    except UserError as error:
        pytest.fail(str(error))
