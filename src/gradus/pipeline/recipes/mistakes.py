"""What is wrong in a recipe: pydantic's errors in the house's words, with their place and the legal words.

A key is a path of keys and list places; `lines` says on which (1-based) line of the file each stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gradus.core.errors import UserError, nearest
from gradus.pipeline.recipes.recipe import Recipe

Key = tuple[str | int, ...]
Lines = Mapping[Key, int]

_WANTED = {
    "dict_type": "a mapping of keys is wanted here",
    "model_type": "a mapping of keys is wanted here",
    "model_attributes_type": "a mapping of keys is wanted here",
    "list_type": "a list is wanted here, in [ ]",
    "missing": "this key is missing",
    "union_tag_not_found": "a `kind` is missing here",
}


_ELSEWHERE = {
    "learning_rate": "lr", "rate": "lr", "batch_size": "batch", "epochs": "length", "num_epochs": "length",
    "steps": "length", "max_steps": "length", "hidden_size": "width", "n_embd": "width", "n_layer": "layers",
    "n_head": "heads", "n_ctx": "context", "max_length": "context", "patience": "stop",
}  # fmt: skip
"""What a key is called in other tools -> here."""


def told(error: ValidationError, path: Path | None, lines: Lines) -> UserError:
    """The first thing that is wrong; a misspelt key before the key that is missing for it."""
    first = _first(error.errors(include_url=False))
    location = tuple(part for part in first["loc"] if not str(part).startswith(("function-", "literal[")))
    if first["type"] == "wrong" and first["ctx"]["key"]:
        location += key_of(first["ctx"]["key"])
    written = _written(location, lines, first["type"] in ("missing", "extra_forbidden", "wrong"))
    problem, text, hint = _words(first, location)
    return UserError(problem, file=path, line=line_of(written, lines), field=dotted(written) or None,
                     text=text, hint=hint)  # fmt: skip


def _first(errors: list[Any]) -> Any:
    """Of a union's branches the one that came furthest; in one mapping an unknown key before all else."""
    parent = errors[0]["loc"][:-1]
    near = [one for one in errors if one["loc"][: len(parent)] == parent]
    unknown = [one for one in near if one["type"] == "extra_forbidden"]
    if "literal[" in str(errors[0]["loc"][-1:]):  # a mapping, say, is not told that it is no word
        return max(near, key=lambda one: len(one["loc"]))
    return unknown[0] if unknown else errors[0]


def line_of(key: Key, lines: Lines) -> int | None:
    """The line of a key, or of the nearest one around it."""
    return next((lines[key[:size]] for size in range(len(key), -1, -1) if key[:size] in lines), None)


@contextmanager
def placed(stage: str, path: Path | None, lines: Lines, source: str | None = None) -> Iterator[None]:
    """While `stage` is made ready: a mistake that names no file gets the recipe's place that it came from."""
    try:
        yield
    except UserError as mistake:
        if mistake.file is None and path is not None:
            field = mistake.field or ""
            whole = field.split(".")[0] in (*Recipe.model_fields, "--set")
            where = field if whole else ".".join(["stages", stage, *(["data", field] if field else [])])
            mistake.file, mistake.line = path, line_of(key_of(where), lines)
            mistake.field = f"{source}: {where}" if source else where
        raise


def _words(first: Any, location: Key) -> tuple[str, object, str | None]:
    """Problem, offending text and hint of one pydantic error."""
    kind, value, context = first["type"], first.get("input"), first.get("ctx", {})
    if kind == "wrong":
        return context["problem"], context["text"], context["hint"]
    if kind == "extra_forbidden":
        key, legal = str(location[-1]), _legal_keys(location)
        return "unknown key", None, nearest(known if (known := _ELSEWHERE.get(key)) in legal else key, legal)
    if kind in ("union_tag_invalid", "literal_error"):
        words = re.findall(r"'([^']*)'", context.get("expected_tags") or context.get("expected", ""))
        shown = context.get("tag", value)
        return "unknown word", shown, nearest(str(shown), words)
    node = _node(location)
    if kind == "union_tag_not_found":
        return _WANTED[kind], None, nearest("", node.get("discriminator", {}).get("mapping", {}))
    if kind == "value_error":
        example = "examples" in _resolve(node)  # an amount with a unit: its key says which units
        return str(context.get("error")), None, _meaning(location) if example else None
    shown = value if isinstance(value, str | int | float | bool) else None
    problem = _WANTED.get(kind) or first["msg"][0].lower() + first["msg"][1:]
    if kind == "too_short":
        problem = "at least {min_length} wanted here, not {actual_length}".format(**context)
    return problem, shown, _meaning(location)


def _meaning(location: Key) -> str | None:
    """What the key is for, as its docstring says."""
    node: Any = _schema()
    for part in location:
        following = _step(node, part)
        if following is None:
            break
        node = following
    text = node.get("description") if location else None
    return " ".join(text.split()).rstrip(".") if text else None


def _legal_keys(location: Key) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    around = _resolve(_node(location[:-1]))
    options = [around, *map(_resolve, around.get("anyOf", []))]
    legal = [key for option in options for key in option.get("properties", {})]
    return [*legal, "preset"] if location[:-1] == ("model",) else legal


@cache
def _schema() -> dict[str, Any]:
    return Recipe.model_json_schema(by_alias=True)


def _node(location: Key) -> Any:
    """The JSON Schema of what stands at `location`; empty where it cannot be found."""
    node: Any = _schema()
    for part in location:
        node = _step(node, part)
        if node is None:
            return {}
    return node


def _step(node: Any, part: str | int) -> Any:
    node = _resolve(node)
    if isinstance(part, int):
        return next((one["items"] for one in (node, *node.get("anyOf", [])) if "items" in one), None)
    if part in node.get("properties", {}):
        return node["properties"][part]
    mapping = node.get("discriminator", {}).get("mapping", {})
    if part in mapping:
        return {"$ref": mapping[part]}
    for option in node.get("anyOf", []):
        resolved = _resolve(option)
        if resolved.get("title") == part:
            return resolved
        if part in resolved.get("properties", {}):
            return resolved["properties"][part]
    extra = node.get("additionalProperties")
    return extra if isinstance(extra, dict) else None


def _resolve(node: Any) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        node = _schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _written(location: Key, lines: Lines, ends_in_key: bool) -> Key:
    """The path as it stands in the file: pydantic's own steps (the tag of a union) are left out."""
    path: Key = ()
    for place, part in enumerate(location):
        if part in _node(location[:place]).get("discriminator", {}).get("mapping", {}):
            continue  # a tag, even where a key has the same name: data of kind `rows` has a key `rows`
        last = place == len(location) - 1
        known = (*path, part) in lines or _is_key(part, location[:place])
        if known or (last and (ends_in_key or not _is_tag(part))):
            path = (*path, part)
    return path


def _is_key(part: str | int, location: Key) -> bool:
    """Whether it is a key of the recipe, or a name that the user chose: a patch may bring one that no line
    has."""
    node = _resolve(_node(location))
    options = [node, *map(_resolve, node.get("anyOf", []))]
    chosen = isinstance(node.get("additionalProperties"), dict)
    return chosen or any(part in option.get("properties", {}) for option in options)


def _is_tag(part: object) -> bool:
    return (
        not isinstance(part, str) or part[:1].isupper() or part in ("text", "rows", "str", "constrained-str")
    )


def key_of(text: str) -> Key:
    """The key that `dotted` writes as `text`."""
    return tuple(int(part) if part.isdigit() else part for part in text.split("."))


def dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)
