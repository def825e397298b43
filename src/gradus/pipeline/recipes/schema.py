"""The JSON Schema of a recipe, by which editors complete and check it.

`python -m gradus.pipeline.recipes.schema` writes the file anew; a test tells when it must be.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradus
from gradus.families import FAMILIES
from gradus.pipeline.recipes.recipe import Recipe

FILE = Path(gradus.__file__).with_name("recipe.schema.json")
_SCALAR = {"type": ["string", "number"]}


def schema() -> dict[str, Any]:
    """What `Recipe` accepts, with the short forms that its validators expand before they look."""
    made = Recipe.model_json_schema(by_alias=True)
    parts = made["$defs"]
    made["properties"]["seeds"]["anyOf"] = [
        {"type": "integer", "minimum": 1},
        {"$ref": made["properties"]["seeds"].pop("$ref")},
    ]
    presets = [name for family in FAMILIES.values() for name in family.PRESETS]
    preset = {
        "enum": presets,
        "description": "A published shape; the other keys change what differs from it.",
    }
    parts["ModelConfig"]["properties"] = {"preset": preset} | parts["ModelConfig"]["properties"]
    rows = parts["RowsData"]["properties"]
    for name in ("labels", "columns"):  # 0 is taken as "0"
        rows[name]["anyOf"][0]["items"] = _SCALAR
    picked = rows["fields"]["additionalProperties"]
    rows["fields"]["additionalProperties"] = {"anyOf": [{"type": "string"}, picked]}
    rows["map"]["additionalProperties"]["additionalProperties"] = _SCALAR
    rows["drop"]["additionalProperties"] = {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]}
    for name, part in parts.items():
        # A union is told apart by it, so it never goes without saying; a mixture is known by `mix`.
        if "kind" in part.get("properties", {}) and name != "Mixture":
            part["required"] = sorted({*part.get("required", []), "kind"})
    stage = parts["Stage"]
    filled = {"objectives", "length"}  # by a preset
    stage["required"] = [key for key in stage["required"] if key not in filled]
    stage["anyOf"] = [{"required": ["preset"]}, {"required": sorted(filled)}]
    for name in ("optimizer", "schedule", "batch", "weights"):  # None stands for "by the kind of data"
        parts["Stage"]["properties"][name].pop("default", None)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A recipe of Gradus"}
    return head | {key: value for key, value in made.items() if key not in head}


def written() -> str:
    """The text of the file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
    print(FILE)
