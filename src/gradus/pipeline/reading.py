"""A recipe file becomes patched recipes; whatever is wrong in it is told with file, line, key and the legal words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gradus.core.errors import UserError, nearest
from gradus.pipeline.recipe import Recipe

Key = tuple[str | int, ...]


@dataclass(frozen=True)
class RecipeFile:
    """A recipe as written (`text`), as plain values, and as validated."""

    path: Path | None
    text: str
    values: dict[str, Any]
    lines: dict[Key, int]
    recipe: Recipe

    @property
    def name(self) -> str:
        return self.path.stem if self.path else "recipe"

    def patched(self, patch: Mapping[str, Any], source: str) -> Recipe:
        """The recipe with `patch` (full path -> value) applied. Raises UserError for a path that does not exist."""
        values = self.values
        for path, value in patch.items():
            values = _set(values, path.split("."), value, path, source, self.path)
        return validate(values, self.path, self.lines, source)


def read_recipe(path: Path, patch: Mapping[str, Any] | None = None) -> RecipeFile:
    """Reads and validates a YAML recipe, with `patch` (from --set) applied first."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError("there is no such recipe", file=path) from None
    except IsADirectoryError:
        raise UserError("this is a folder, not a recipe", file=path) from None
    except UnicodeDecodeError as error:
        raise UserError(f"the recipe is not UTF-8 (byte {error.start})", file=path) from None
    values, lines = parse_yaml(text, path)
    for key, value in (patch or {}).items():
        values = _set(values, key.split("."), value, key, "--set", path)
    file = RecipeFile(path, text, values, lines, validate(values, path, lines))
    for name, changes in file.recipe.variants.items():
        file.patched(changes, f"variants.{name}")
    return file


def parse_yaml(text: str, path: Path | None) -> tuple[dict[str, Any], dict[Key, int]]:
    """Plain values (safe load; a key that stands twice is refused) and the line of every key."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Key, int] = {}
        if node is not None:
            _number(node, (), lines, path)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "this is not YAML"
        shown = text.splitlines()[mark.line].strip() if mark and mark.line < len(text.splitlines()) else None
        raise UserError(problem, file=path, line=mark.line + 1 if mark else None, text=shown) from None
    if not isinstance(values, dict):
        raise UserError("a recipe is a mapping of keys", file=path, hint="`gradus init` writes one")
    return values, lines


def _number(node: yaml.Node, key: Key, lines: dict[Key, int], path: Path | None) -> None:
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value))
            if inner in lines and name.value != "<<":
                raise UserError(
                    "this key stands twice", file=path, line=name.start_mark.line + 1, field=_dotted(inner)
                )
            lines[inner] = name.start_mark.line + 1
            _number(value, inner, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            _number(value, (*key, place), lines, path)


def validate(
    values: dict[str, Any], path: Path | None, lines: Mapping[Key, int], source: str | None = None
) -> Recipe:
    """The recipe, or UserError that names the first thing that is wrong."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _told(error, path, lines, source) from None


def _told(
    error: ValidationError, path: Path | None, lines: Mapping[Key, int], source: str | None
) -> UserError:
    first = error.errors(include_url=False)[0]
    key = tuple(part for part in first["loc"] if not (isinstance(part, str) and part.startswith("function-")))
    written = _written(key, lines)
    line = next(
        (lines[written[:size]] for size in range(len(written), -1, -1) if written[:size] in lines), None
    )
    problem, text, hint = _words(first, error)
    field = _dotted(written) or None
    if source:
        field = f"{source}: {field}" if field else source
    return UserError(problem, file=path, line=line, field=field, text=text, hint=hint)


def _words(first: Any, error: ValidationError) -> tuple[str, object, str | None]:
    """Problem, offending text and hint of one pydantic error, in the house's words."""
    kind, value, context = first["type"], first.get("input"), first.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key", None, nearest(str(first["loc"][-1]), _legal_keys(first["loc"]))
    if kind in ("union_tag_invalid", "literal_error"):
        expected = context.get("expected_tags") or context.get("expected", "")
        words = re.findall(r"'([^']*)'", expected)
        shown = context.get("tag", value)
        return "unknown word", shown, nearest(str(shown), words)
    if kind == "union_tag_not_found":
        return "a `kind` is missing here", None, None
    if kind == "missing":
        return "this key is missing", None, None
    if kind == "value_error":
        cause = context.get("error")
        if isinstance(cause, UserError):
            return cause.problem, cause.text, cause.hint
        return str(cause), None, None
    scalar = value if isinstance(value, str | int | float | bool) else None
    return first["msg"][0].lower() + first["msg"][1:], scalar, None


def _legal_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that may stand where an unknown one was found: walks the JSON Schema along the error's path."""
    schema = Recipe.model_json_schema(by_alias=True)
    node: Any = schema
    for part in location[:-1]:
        node = _step(schema, node, part)
        if node is None:
            return []
    node = _resolve(schema, node)
    legal = list(node.get("properties", {}))
    return [*legal, "preset"] if location[:-1] == ("model",) else legal


def _step(schema: Any, node: Any, part: str | int) -> Any:
    node = _resolve(schema, node)
    if isinstance(part, int):
        return node.get("items")
    if part in node.get("properties", {}):
        return node["properties"][part]
    mapping = node.get("discriminator", {}).get("mapping", {})
    if part in mapping:
        return {"$ref": mapping[part]}
    for option in node.get("anyOf", []):
        resolved = _resolve(schema, option)
        if resolved.get("title") == part or "properties" in resolved:
            return resolved
    extra = node.get("additionalProperties")
    return extra if isinstance(extra, dict) else None


def _resolve(schema: Any, node: Any) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _written(key: tuple[Any, ...], lines: Mapping[Key, int]) -> Key:
    """The path as it stands in the file: pydantic's own steps (the tag of a union) are left out."""
    path: Key = ()
    for place, part in enumerate(key):
        last = place == len(key) - 1
        if (*path, part) in lines or (last and not _is_tag(part)):
            path = (*path, part)
    return path


def _is_tag(part: object) -> bool:
    return not isinstance(part, str) or part[:1].isupper() or part in ("text", "rows", "str")


def _dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)


def _set(
    values: dict[str, Any], path: list[str], value: Any, whole: str, source: str, file: Path | None
) -> dict[str, Any]:
    """A copy of `values` with the value at `path` replaced; a list is replaced whole."""
    head, *rest = path
    if not rest:
        return {**values, head: value}
    inner = values.get(head, {})
    if not isinstance(inner, dict):
        raise UserError(
            "this path leads into a value", file=file, field=source, text=whole, hint="a list is set whole"
        )
    if head == "stages" and rest[0] not in inner:
        raise UserError(
            "there is no such stage", file=file, field=source, text=rest[0], hint=nearest(rest[0], inner)
        )
    return {**values, head: _set(inner, rest, value, whole, source, file)}
