"""`gradus init`: looks at a user's files and writes a commented recipe that `gradus check` accepts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradus.core.errors import UserError, nearest
from gradus.core.storage import write_file
from gradus.families.folder import read_folder
from gradus.pipeline.looking.draft import RECIPE, Seen, commands, recipe_lines, story
from gradus.pipeline.looking.rows import look_at_rows
from gradus.pipeline.looking.text import look_at_text
from gradus.tokenizers import Tokenizer

TEMPLATES: dict[str, tuple[str | None, list[str], str]] = {
    "quickstart": ("builtin:python_modules", ["builtin:python_docs"],
                   "the whole journey on what Python says about itself: pre-train, fine-tune, compare"),
    "pretrain": (None, ["builtin:python_docs"], "a language model from text alone"),
    "classify": ("builtin:python_modules", [], "a classifier from labelled rows alone"),
    "tiny": ("builtin:tiny", ["builtin:tiny"], "the whole journey in seconds, on made-up English, Chinese"),
}  # fmt: skip
"""Name -> rows, text (all built in, so that each runs as it is), and what it shows."""


def list_templates() -> str:
    """The templates, one a line."""
    lines = [f"{name:<12}{shows}" for name, (_, _, shows) in TEMPLATES.items()]
    return "\n".join([*lines, "Each runs as it is; with --from FOLDER it starts from a model that you have."])


def write_recipe(
    directory: Path | None,
    *,
    rows: Path | str | None = None,
    label: str | None = None,
    text: Sequence[str] = (),
    start: Path | None = None,
    template: str | None = None,
) -> str:
    """Looks at the files, writes DIRECTORY/recipe.yaml and returns what to tell.

    Relative names count from the working folder; `label` is the column of the label, found by its values
    unless named. Raises UserError for files that cannot be read or have no
    label, where there is nothing to look at, and where the recipe exists: it is never overwritten.
    """
    directory = _free(directory)
    if template is not None:
        if rows is not None or text:
            hint = "leave out --rows and --text"
            raise UserError("a template brings its own data", field="--template", hint=hint)
        if template not in TEMPLATES:
            hint = nearest(template, TEMPLATES)
            raise UserError("there is no such template", field="--template", text=template, hint=hint)
        rows, text, _ = TEMPLATES[template]
    if rows is None and not text:
        names = ", ".join(TEMPLATES)
        hint = f"--rows FILE for labelled rows, --text FILES for text, or --template: {names}"
        raise UserError("there is nothing to look at", hint=hint)
    if label is not None and rows is None:
        raise UserError("a label needs rows", field="--label", text=label, hint="name them with --rows FILE")
    labelled = look_at_rows(str(rows), label) if rows is not None else None
    model = read_folder(start).config if start is not None else None
    if start is not None:
        Tokenizer.load(start)  # a folder without one is told now
    seen = Seen(directory, labelled, look_at_text(text) if text else None, start, model)
    write_file(directory / RECIPE, "\n".join(recipe_lines(seen)) + "\n")
    return "\n".join([*story(seen), f"wrote {directory / RECIPE}; next:", *commands(directory)])


def _free(directory: Path | None) -> Path:
    """The folder for the recipe. Raises UserError where there is none, or no room in it."""
    if directory is None:
        hint = "gradus init DIR --rows FILE --text FILES"
        raise UserError("say which folder the recipe goes to", hint=hint)
    if directory.exists() and not directory.is_dir():
        raise UserError("this is a file, a folder is wanted", file=directory)
    if (directory / RECIPE).exists():
        hint = "name another folder, or move it away"
        raise UserError("there is a recipe already, and it stays", file=directory / RECIPE, hint=hint)
    return directory
