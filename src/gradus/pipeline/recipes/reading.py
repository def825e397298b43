"""A recipe file becomes patched recipes; whatever is wrong in it is told with file, line, key and the legal
words."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gradus.core.errors import UserError, nearest
from gradus.pipeline.recipes.loop import AS_WRITTEN, merged
from gradus.pipeline.recipes.mistakes import Key, Lines, dotted, key_of, line_of, placed, told
from gradus.pipeline.recipes.recipe import Recipe

AROUND = ("seeds", "variants", "search", "iterate")
"""Keys of a recipe that say how often, and in which ways, its journey is made."""
SETTING = "--set"
"""The source of a patch that does not stand in the file."""


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
        """What the run is called: the file, or its folder where the file is just called recipe.yaml."""
        path = self.path.resolve() if self.path else Path("recipe")
        return path.parent.name if path.stem == "recipe" and path.parent.name else path.stem

    def source_of(self, variant: str) -> str | None:
        """Where the patch called `variant` stands in the file; None for the recipe as written."""
        if variant == AS_WRITTEN:
            return None
        return f"variants.{variant}" if variant in self.recipe.variants else variant

    def placed(self, stage: str, source: str | None = None) -> AbstractContextManager[None]:
        """While `stage` is made ready, as the patch at `source` has it: a mistake that names no file gets its
        place in the recipe."""
        return placed(stage, self.path, _lines_of_patch(self.lines, source), source)

    def patched(self, patch: Mapping[str, Any], source: str) -> Recipe:
        """The recipe, without its loops, with `patch` (full path -> value) applied. Raises UserError for a
        path that does not exist."""
        values = {key: value for key, value in self.values.items() if key not in ("search", "iterate")}
        for path, value in patch.items():
            try:
                values = _set(values, path.split("."), value, path, source, self.path)
            except UserError as mistake:
                mistake.line = _line_of_patch(source, path, self.lines)
                raise
        return validate(values, self.path, self.lines, patch, source)


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
        values = _set(values, key.split("."), value, key, SETTING, path)
    file = RecipeFile(path, text, values, lines, validate(values, path, lines, patch, SETTING))
    for name, changes in file.recipe.variants.items():
        _require_journey(changes, f"variants.{name}", path, lines)
        file.patched(changes, f"variants.{name}")
    if file.recipe.search is not None:
        for key, dimension in file.recipe.search.space.items():
            for value in dimension.ends:
                file.patched({key: value}, "search.space")
    if file.recipe.iterate is not None:
        together: dict[str, Any] = {}
        for name in file.recipe.iterate.order:
            together = merged(together, file.recipe.variants[name])
            file.patched(together, "iterate")
    return file


def _require_journey(changes: Mapping[str, Any], source: str, path: Path, lines: Lines) -> None:
    """Raises UserError for a variant that would say how often the journey is made, which all share."""
    for key in changes:
        if key.split(".")[0] in AROUND:
            line, hint = _line_of_patch(source, key, lines), "say it beside `variants`"
            problem = "this is for all variants together"
            raise UserError(problem, file=path, line=line, field=source, text=key, hint=hint)


class _Names(yaml.SafeLoader):
    """A key is a name: YAML 1.1 would read the key `on` as true."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def yaml_values(text: str) -> Any:
    """What YAML says, safely, as plain values. Raises YAMLError."""
    loader = _Names(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def parse_yaml(text: str, path: Path | None) -> tuple[dict[str, Any], dict[Key, int]]:
    """Plain values (safe load; a key that stands twice is refused) and the line of every key."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Key, int] = {}
        if node is not None:
            _number(node, (), lines, path)
        values = yaml_values(text)
    except yaml.YAMLError as error:
        raise _not_yaml(error, text, path) from None
    except RecursionError:
        raise UserError("the recipe holds itself: an alias leads in a circle", file=path) from None
    if not isinstance(values, dict):
        raise UserError("a recipe is a mapping of keys", file=path, hint="`gradus init` writes one")
    _number_stages_of_variants(lines)
    return values, lines


def _not_yaml(error: yaml.YAMLError, text: str, path: Path | None) -> UserError:
    mark, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    rows = text.splitlines()
    shown = rows[mark.line].strip() if mark and mark.line < len(rows) else None
    hint = f"{error.context}, which begins on line {begun.line + 1}" if begun and error.context else None  # type: ignore[attr-defined]
    if "\\t" in problem:
        hint = "YAML is indented with spaces, never with tabs"
    return UserError(
        f"this is not YAML: {problem}", file=path, line=mark.line + 1 if mark else None, text=shown, hint=hint
    )


def _number(node: yaml.Node, key: Key, lines: dict[Key, int], path: Path | None) -> None:
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value))
            if inner in lines and name.value != "<<":
                raise UserError(
                    "this key stands twice", file=path, line=name.start_mark.line + 1, field=dotted(inner)
                )
            lines[inner] = name.start_mark.line + 1
            _number(value, inner, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            _number(value, (*key, place), lines, path)


def _number_stages_of_variants(lines: dict[Key, int]) -> None:
    """A stage that only a variant has stands where the variant writes it: `stages.NAME: {...}`."""
    for (top, *inner), line in [(key, line) for key, line in lines.items() if len(key) > 2]:
        path = str(inner[1]).split(".")
        if top == "variants" and path[0] == "stages" and len(path) == 2:
            lines.setdefault(("stages", path[1], *inner[2:]), line)


def validate(
    values: dict[str, Any],
    path: Path | None,
    lines: Lines,
    patch: Mapping[str, Any] | None = None,
    source: str | None = None,
) -> Recipe:
    """The recipe, or UserError that names the first thing that is wrong.

    A mistake that `patch` brought in is told with its `source`: --set, or the variant and its line.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        mistake = told(error, path, lines)
        if source is not None:
            _blame(mistake, patch or {}, source, lines)
        raise mistake from None


def _blame(mistake: UserError, patch: Mapping[str, Any], source: str, lines: Lines) -> None:
    field = f"{mistake.field or ''}."
    guilty = next(
        (path for path in patch if field.startswith(f"{path}.") or f"{path}.".startswith(field)), None
    )
    if guilty is not None:
        inside = key_of(field[len(guilty) + 1 : -1])
        mistake.line = _line_of_patch(source, guilty, lines, inside)
        mistake.field = f"{source}: {mistake.field}"
    elif source != SETTING:
        mistake.field = f"{source}: {mistake.field}" if mistake.field else source


def _lines_of_patch(lines: Mapping[Key, int], source: str | None) -> Mapping[Key, int]:
    """The lines of the file where what the patch at `source` sets stands at the patch."""
    if source is None:
        return lines
    head = tuple(source.split(".", 1))
    size = len(head)
    own = {
        (*key_of(str(key[size])), *key[size + 1 :]): line
        for key, line in lines.items()
        if key[:size] == head and len(key) > size
    }
    return {**lines, **own}


def _line_of_patch(source: str, path: str, lines: Lines, inside: Key = ()) -> int | None:
    """The line of a patch in the file, or of the key `inside` its value."""
    if source == SETTING:
        return None
    return line_of((*source.split(".", 1), path, *inside), lines)


def _set(
    values: dict[str, Any], path: list[str], value: Any, whole: str, source: str, file: Path | None
) -> dict[str, Any]:
    """A copy of `values` with the value at `path` replaced; a list is replaced whole, a whole stage may be
    new, and a stage or variant that becomes null is not there any more."""
    head, *rest = path
    if not rest:
        return {**values, head: value}
    inner = values.get(head, {})
    if not isinstance(inner, dict):
        raise UserError(
            "this path leads into a value", file=file, field=source, text=whole, hint="a list is set whole"
        )
    if head == "stages" and rest[0] not in inner and not (len(rest) == 1 and isinstance(value, dict)):
        raise UserError(
            "there is no such stage", file=file, field=source, text=rest[0], hint=nearest(rest[0], inner)
        )
    if value is None and len(rest) == 1 and head in ("stages", "variants"):
        return {**values, head: {name: part for name, part in inner.items() if name != rest[0]}}
    return {**values, head: _set(inner, rest, value, whole, source, file)}
