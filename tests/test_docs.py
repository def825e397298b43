"""What the documents say is true: recipes load, keys and defaults are the code's, commands and links exist.

Every YAML block is a recipe, or says in its first line which part of one it is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

import gradus
from gradus.cli import app
from gradus.core.duration import Quantity
from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.data.rows import RowsData
from gradus.data.text import TextData
from gradus.evaluation.metrics import LARGER_IS_BETTER
from gradus.families import FAMILIES
from gradus.pipeline.models.serving import Model
from gradus.pipeline.recipes.patch import parse_settings
from gradus.pipeline.recipes.reading import RecipeFile, read_recipe, yaml_values
from gradus.pipeline.recipes.recipe import Recipe
from gradus.pipeline.recipes.schema import schema
from gradus.pipeline.recipes.stages import Stage

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
WORDS = ROOT / "docs" / "recipe.md"
DOCUMENTS = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGE_MODEL = {
    "data": {"kind": "text", "train": "books.txt", "dev": "10 %"},
    "objectives": [{"kind": "causal_lm"}],
    "length": "1 epoch",
}
CLASSIFIER = {
    "data": {
        "kind": "rows",
        "train": "rows.tsv",
        "dev": "10 %",
        "format": {"kind": "single", "text": "text", "label": "label"},
    },
    "objectives": [{"kind": "classification"}],
    "length": "1 epoch",
}
PARTS = {
    "# part of a recipe": (),
    "# in a stage of text": ("stages", "first"),
    "# in a stage of rows": ("stages", "second"),
    "# in the data of text": ("stages", "first", "data"),
    "# in the data of rows": ("stages", "second", "data"),
}
"""The first line of a fragment, and where it belongs in the recipe of `minimal`."""


def minimal() -> dict[str, Any]:
    return {"stages": {"first": dict(LANGUAGE_MODEL), "second": {"from": "first", **CLASSIFIER}}}


def inserted(values: dict[str, Any], place: tuple[str, ...], part: dict[str, Any]) -> dict[str, Any]:
    """`values` with the keys of `part` set in the mapping at `place`."""
    if not place:
        return {**values, **part}
    head, *rest = place
    return {**values, head: inserted(values[head], tuple(rest), part)}


def fences(document: Path) -> list[tuple[str, int, str]]:
    """(language, line, text) of every fenced block."""
    text = document.read_text(encoding="utf-8")
    return [
        (found[1], text.count("\n", 0, found.start()) + 1, found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def spans(text: str) -> list[str]:
    """Code within lines."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


BLOCKS = [
    pytest.param(text, id=f"{document.name}:{line}")
    for document in DOCUMENTS
    for language, line, text in fences(document)
    if language == "yaml"
]


def loaded(text: str, folder: Path) -> RecipeFile:
    """A block as a recipe, its variants applied; a fragment is put where its first line says."""
    if not re.search(r"^stages:", text, re.MULTILINE):
        first = text.split("\n", 1)[0]
        assert first in PARTS, f"a fragment begins with one of {', '.join(PARTS)}"
        values = inserted(minimal(), PARTS[first], yaml_values(text))
        second = values["stages"]["second"]
        own = second["objectives"] != CLASSIFIER["objectives"]
        if second["data"].get("format", {}).get("kind") == "multiple_choice" and not own:
            second["objectives"] = [{"kind": "multiple_choice"}]
        text = yaml.safe_dump(values, allow_unicode=True)
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


@pytest.mark.parametrize("text", BLOCKS)
def test_every_recipe_and_every_fragment_loads(text: str, tmp_path: Path) -> None:
    loaded(text, tmp_path)


def test_a_wrong_fragment_would_not_load(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown key"):
        loaded("# in the data of rows\ncolums: [标签, 文本]\n", tmp_path)


def test_the_settings_that_are_shown_fit_the_recipe_that_is_shown(tmp_path: Path) -> None:
    path = loaded(next(text for language, _, text in fences(READMES[0]) if language == "yaml"), tmp_path).path
    shown = [found for document in DOCUMENTS for found in settings(document.read_text(encoding="utf-8"))]
    assert len(shown) >= 4
    for setting in shown:
        assert path is not None
        read_recipe(path, parse_settings([setting]))


def settings(text: str) -> list[str]:
    """PATH=VALUE of every `--set`, and of those that stand alone in quotes."""
    return re.findall(r"--set ([\w.]+=[^\s\]`]+)", text) + re.findall(r"`'(stages[\w.]+=[^']+)'`", text)


def tables(text: str) -> dict[str, dict[str, str]]:
    """Config -> key -> default, of the tables below `<!-- keys: CONFIG -->`."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name, table in re.findall(r"<!-- keys: (\w+) -->\n((?:\|.*\n)+)", text):
        for line in table.splitlines()[2:]:
            key, default = [cell.strip() for cell in line.split("|")[1:3]]
            found[name][key.strip("`")] = default
    return found


def plain(value: Any) -> Any:
    return str(value) if isinstance(value, Quantity) else value


@pytest.mark.parametrize("config", [Recipe, Stage, TextData, RowsData, ModelConfig])
def test_tables_name_every_key_and_its_default(config: type[BaseModel]) -> None:
    shown = tables(WORDS.read_text(encoding="utf-8"))[config.__name__]
    fields = {field.alias or name: field for name, field in config.model_fields.items()}
    assert set(shown) == set(fields)
    for key, cell in shown.items():
        assert (cell == "required") == (fields[key].is_required()), key
        if code := re.fullmatch(r"`([^`]+)`", cell):
            assert yaml.safe_load(code[1]) == plain(fields[key].default), key
        elif cell == "none":
            assert not fields[key].default, key


def legal_words() -> set[str]:
    """Every key and every word that a recipe may hold."""
    words: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            words.update(node.get("properties", {}) if isinstance(node.get("properties"), dict) else ())
            words.update(
                value for value in [node.get("const"), *node.get("enum", [])] if isinstance(value, str)
            )
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(schema())
    return words


def test_every_legal_word_is_explained() -> None:
    text = WORDS.read_text(encoding="utf-8")
    code = "\n".join([*spans(text), *(block for _, _, block in fences(WORDS))])
    assert [
        word
        for word in sorted({*legal_words(), *LARGER_IS_BETTER})
        if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", code)
    ] == []


def test_the_presets_are_those_of_the_code() -> None:
    text = WORDS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.-]+)` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    shown = {
        name: dict(zip(("layers", "width", "heads", "context"), map(int, numbers))) for name, *numbers in rows
    }
    presets = {name: shape for family in FAMILIES.values() for name, shape in family.PRESETS.items()}
    assert shown == {
        name: {key: shape[key] for key in ("layers", "width", "heads", "context")}
        for name, shape in presets.items()
        if "body" not in shape
    }


@cache
def commands() -> dict[str, set[str]]:
    """Command -> its options."""
    group = typer.main.get_command(app)
    found = group.commands  # type: ignore[attr-defined]
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in found.items()
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_their_options_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    code = [*spans(text), *(line for _, _, block in fences(document) for line in block.splitlines())]
    for command in code:
        found = re.search(r"(?:^|/)gradus (\w+)(.*)", command.split(" #")[0])
        if found:
            assert found[1] in commands(), command
            assert set(re.findall(r"--[a-z][a-z-]*", found[2])) <= commands()[found[1]], command
        elif command.startswith("--"):
            assert any(command.split()[0] in options for options in commands().values()), command


def test_the_table_of_the_readme_names_every_command() -> None:
    for readme in READMES:
        rows = re.findall(r"^\| `gradus (\w+)", readme.read_text(encoding="utf-8"), re.MULTILINE)
        assert rows == list(commands()), readme.name


def test_python_names_of_the_readme_exist() -> None:
    text = READMES[0].read_text(encoding="utf-8")
    names = {found[1] for span in spans(text) if (found := re.search(r"\bgradus\.([A-Za-z]+)\(?", span))} - {
        "cli"
    }
    assert {"check", "run", "load"} <= names
    assert all(hasattr(gradus, name) for name in names)
    methods = {found[1] for span in spans(text) if (found := re.fullmatch(r"\.([a-z]+)(\(\w+\))?", span))}
    assert "generate" in methods
    assert all(hasattr(Model, name) for name in methods - {"venv"})


def shown_commands(readme: Path) -> list[str]:
    """All code of a README in order, without comments."""
    blocks = [
        re.sub(r"\s+# .*", "", line)
        for language, _, block in fences(readme)
        if language == ""
        for line in block.splitlines()
    ]
    return blocks + spans(readme.read_text(encoding="utf-8"))


def test_both_readmes_show_the_same() -> None:
    english, chinese = READMES
    assert shown_commands(chinese) == shown_commands(english)
    recipes = [
        [yaml.safe_load(text) for language, _, text in fences(readme) if language == "yaml"]
        for readme in READMES
    ]
    assert recipes[0] == recipes[1]
    assert levels(chinese) == levels(english)
    assert targets(chinese) - {"README.md"} == targets(english) - {"README.zh-CN.md"}


def test_both_pages_on_gpt1_show_the_same() -> None:
    english, chinese = [ROOT / "docs" / name for name in ("gpt1.md", "gpt1.zh-CN.md")]
    blocks = [
        [yaml.safe_load(text) if language else text for language, _, text in fences(page)]
        for page in (english, chinese)
    ]
    assert blocks[0] == blocks[1]
    assert levels(chinese) == levels(english)
    files = [{target.split("#")[0] for target in targets(page)} for page in (english, chinese)]
    assert files[0] - {chinese.name} == files[1] - {english.name}


def levels(document: Path) -> list[str]:
    """The structure: the hashes of every heading, outside of code."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^(#+) ", text, re.MULTILINE)


def targets(document: Path) -> set[str]:
    """What a document links to within the project, as written."""
    found = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    return {target for target in found if "://" not in target}


def anchors(document: Path) -> set[str]:
    """What a heading is called in a link."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in targets(document):
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target
