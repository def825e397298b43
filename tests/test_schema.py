"""The JSON schema of recipes, for editors: up to date, and it takes what `gradus init` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from user_files import recipe_of

from gradus.pipeline.looking.init import write_recipe
from gradus.pipeline.recipes.recipe import Recipe
from gradus.pipeline.recipes.schema import FILE, schema, written
from gradus.pipeline.recipes.stages import StageModel

pytestmark = pytest.mark.usefixtures("alone")


def test_the_schema_is_up_to_date() -> None:
    told = "python -m gradus.pipeline.recipes.schema writes it anew"
    assert FILE.read_text(encoding="utf-8") == written(), told


def test_the_schema_knows_presets_and_short_forms() -> None:
    made = schema()
    assert "gpt1-mini" in made["$defs"]["ModelConfig"]["properties"]["preset"]["enum"]
    assert {"type": "integer", "minimum": 1} in made["properties"]["seeds"]["anyOf"]
    assert made["additionalProperties"] is False
    text = json.dumps(made)
    assert all(f'"#/$defs/{name}"' in text for name in ("TextData", "RowsData", "BytePairTokenizer"))


def known_keys(schema_of_all: dict[str, Any], node: dict[str, Any], value: Any, path: str) -> None:
    """Every key of `value` is one the schema names: a small part of what a validator does."""
    while "$ref" in node:
        node = schema_of_all["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    if isinstance(value, dict) and "discriminator" in node:
        name = node["discriminator"]["mapping"][value["kind"]].rsplit("/", 1)[-1]
        node = schema_of_all["$defs"][name]
    if isinstance(value, list) and "items" in node:
        for item in value:
            known_keys(schema_of_all, node["items"], item, path)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key in node.get("properties", {}):
            known_keys(schema_of_all, node["properties"][key], inner, f"{path}.{key}")
        elif isinstance(node.get("additionalProperties"), dict):
            known_keys(schema_of_all, node["additionalProperties"], inner, f"{path}.{key}")
        else:
            assert node.get("additionalProperties", True) is not False, f"{path}.{key}"


def test_the_schema_takes_what_init_writes() -> None:
    write_recipe(Path("made"), template="tiny")
    known_keys(schema(), schema(), recipe_of("made"), "")
    with pytest.raises(AssertionError, match="stages.finetune.data.tset"):
        recipe = recipe_of("made")
        recipe["stages"]["finetune"]["data"]["tset"] = "x"
        known_keys(schema(), schema(), recipe, "")


@pytest.mark.parametrize("preset", ["t5-mini", "bart-mini", "gpt2-mini"])
def test_no_dropout_is_no_dropout_at_all(preset: str) -> None:
    stage = {
        "data": {"kind": "text", "train": "a.txt"},
        "objectives": [{"kind": "prefix_lm"}],
        "length": "1 epoch",
    }
    usual = Recipe(model={"preset": preset}, stages={"read": stage}).model
    still = Recipe(model={"preset": preset, "dropout": 0.0}, stages={"read": stage}).model
    in_a_stage = StageModel(dropout=0.0).changed(usual)
    for model in (still, in_a_stage):
        rates = {name: rate for name, rate in model if name.endswith("dropout") and rate is not None}
        assert set(rates.values()) == {0.0}, rates
    own = Recipe(
        model={"preset": preset, "dropout": 0.0, "output_dropout": 0.3}, stages={"read": stage}
    ).model
    assert own.output_dropout == 0.3
