"""`gradus init`: what it sees in files as users have them, and that what it writes passes `gradus check`."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import gradus
from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder
from gradus.families.folder import write_folder
from gradus.nn.transformer import Transformer
from gradus.pipeline.check import Checks, check
from gradus.pipeline.init import TEMPLATES, list_templates, write_recipe
from gradus.pipeline.look_rows import SeenRows, look_at_rows
from gradus.pipeline.schema import FILE, schema, written
from gradus.tokenizers import BytePairTokenizer
from gradus.training.learner import Learner

ENGLISH = [f'the {thing}, said "{who}", was {how} number {number}' for number in range(12)
           for thing, who, how in (("film", "Ann", "good"), ("book", "Bob", "bad"))]  # fmt: skip
CHINESE = [f"第{number}次看这{thing}，他说：“{how}”。" for number in range(12)
           for thing, how in (("部电影", "很好"), ("本小说", "很差"))]  # fmt: skip
TEXTS = [text for pair in zip(ENGLISH, CHINESE) for text in pair]
LABELS = ["good", "good", "bad", "bad"] * 12


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GRADUS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def table(separator: str, quoted: bool, columns: dict[str, list[str]], header: bool) -> str:
    rows = ([list(columns)] if header else []) + [list(row) for row in zip(*columns.values())]
    if not quoted:
        return "".join(separator.join(row) + "\n" for row in rows)
    out = io.StringIO()
    csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    return out.getvalue()


def write(path: str, text: str, encoding: str = "utf-8") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file


def recipe_of(directory: str) -> dict[str, Any]:
    return yaml.safe_load((Path(directory) / "recipe.yaml").read_text(encoding="utf-8"))


def checked(directory: str) -> Checks:
    return check(Path(directory) / "recipe.yaml", runs=Path("runs"), device="cpu")


def novel(lines: int = 300) -> str:
    return "".join(f"第{at}行 {TEXTS[at % len(TEXTS)]}\n" + "\n" * (at % 3 == 0) for at in range(lines))


# --- rows as users have them


@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
@pytest.mark.parametrize(
    ("name", "separator", "quoted", "options"),
    [
        ("a.csv", ",", True, {}),
        ("a.tsv", "\t", False, {}),
        ("a.txt", "\t", False, {"reader": "tsv"}),
        ("a.csv", "\t", False, {"reader": "tsv"}),
        ("a.tsv", "\t", True, {"quotes": True}),
    ],
)
def test_tables(name: str, separator: str, quoted: bool, header: bool, options: dict[str, Any]) -> None:
    numbers = [str(number) for number in range(len(TEXTS))]
    write(name, table(separator, quoted, {"id": numbers, "category": LABELS, "what": TEXTS}, header))
    seen = look_at_rows(name)
    label, text = ("category", "what") if header else ("label", "text")
    assert seen.options == options | ({} if header else {"columns": ["column 1", "label", "text"]})
    assert (seen.label, seen.texts, seen.rows) == (label, (text,), 48)
    assert seen.counts == {"bad": 24, "good": 24}
    assert seen.lengths.unit == "characters"
    assert seen.lengths.longest == max(map(len, TEXTS))


def test_a_quoted_field_may_span_lines_and_a_quote_in_tsv_is_text() -> None:
    long = [text + "\n" + text for text in TEXTS]
    write("a.csv", table(",", True, {"text": long, "label": LABELS}, True))
    assert look_at_rows("a.csv").rows == 48
    odd = ['"' + text for text in TEXTS[:-1]] + ['"whole"']
    write("a.tsv", table("\t", False, {"text": odd, "label": LABELS}, True))
    assert look_at_rows("a.tsv").options == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16", "latin-1"])
def test_encodings(encoding: str) -> None:
    texts = [f"ein schöner Film, Größe {at}" for at in range(48)] if encoding == "latin-1" else TEXTS
    write("a.tsv", table("\t", False, {"text": texts, "label": LABELS}, True), encoding)
    seen = look_at_rows("a.tsv")
    assert seen.options.get("encoding", "utf-8-sig") == encoding
    assert (seen.label, seen.texts) == ("label", ("text",))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "rows.data"])
def test_json_lines_and_arrays(name: str) -> None:
    rows = [{"genre": "x", "text": text, "label": label} for text, label in zip(TEXTS, LABELS)]
    rows[5]["label"] = rows[7]["label"] = "-"
    write(name, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    seen = look_at_rows(name)
    assert seen.options == ({} if name == "a.jsonl" else {"reader": "jsonl"}) | {"drop": {"label": ["-"]}}
    assert (seen.rows, seen.texts, seen.others) == (46, ("text",), ("genre",))
    write(name, json.dumps(rows))
    assert look_at_rows(name).options.get("reader", "json") == "json"


@pytest.mark.parametrize("prefix", ["", "__label__"])
def test_lines_that_begin_with_their_label(prefix: str) -> None:
    write("a.txt", "".join(f"{prefix}{label} {text}\n" for text, label in zip(TEXTS, LABELS)))
    seen = look_at_rows("a.txt")
    assert seen.counts == {"bad": 24, "good": 24}
    assert seen.options == {"pattern": prefix + r"(?P<label>\S+)\s+(?P<text>.+)"}


@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
def test_pairs(header: bool) -> None:
    columns = {"premise": TEXTS, "hypothesis": [text[::-1] for text in TEXTS], "label": ["2", "10"] * 24}
    write("a.tsv", table("\t", False, columns, header))
    seen = look_at_rows("a.tsv")
    assert seen.texts == (("premise", "hypothesis") if header else ("first", "second"))
    assert list(seen.counts) == ["2", "10"]


def test_a_named_label_is_taken_before_one_with_fewer_values() -> None:
    columns = {"lang": ["en", "zh"] * 24, "label": [str(at % 5) for at in range(48)], "text": TEXTS}
    write("a.csv", table(",", True, columns, True))
    assert look_at_rows("a.csv").label == "label"


def test_dev_and_test_beside_train() -> None:
    for split in ("train", "valid", "test"):
        labels = ["?"] * 48 if split == "test" else LABELS
        write(f"d/{split}.tsv", table("\t", False, {"text": TEXTS, "label": labels}, True))
    seen = look_at_rows("d/train.tsv")
    assert seen.splits == {"dev": "d/valid.tsv"}
    assert "test.tsv" in seen.notes[0]


def test_the_order_of_classes_is_that_of_the_recipe() -> None:
    labels = [str(at % 12 - 1) for at in range(48)]
    write("a.tsv", table("\t", False, {"text": TEXTS, "label": labels}, True))
    write_recipe(Path("made"), rows="a.tsv")
    assert recipe_of("made")["stages"]["finetune"]["data"]["labels"] == [str(at) for at in range(-1, 11)]
    assert checked("made").nodes[0].prepared.labels.names == tuple(str(at) for at in range(-1, 11))


# --- the recipe


def rows_file(name: str = "data/reviews.csv") -> str:
    write(name, table(",", True, {"text": TEXTS, "label": LABELS}, True))
    return name


def test_the_first_question_of_a_user() -> None:
    """A CSV and a folder: the recipe is written, says what was seen, finds the files, and passes check."""
    rows_file()
    write("corpus/小说.txt", novel())
    write("corpus/deep/more.txt", novel(200))
    write("corpus/notes.md", "not text to learn from")
    told = write_recipe(Path("made/here"), rows=Path("data/reviews.csv"), text=["corpus/"])
    assert "48 rows" in told
    assert "bad (24) good (24)" in told
    assert "other files: 1" in told
    written_text = Path("made/here/recipe.yaml").read_text(encoding="utf-8")
    assert written_text.startswith(f"# yaml-language-server: $schema={FILE}\n")
    assert "bad (24) good (24)" in written_text
    recipe = recipe_of("made/here")
    assert recipe["stages"]["pretrain"]["data"]["train"] == "../../corpus/**/*.txt"
    assert recipe["stages"]["pretrain"]["data"]["documents"] == "blank line"
    assert recipe["stages"]["finetune"]["data"]["train"] == "../../data/reviews.csv"
    assert recipe["stages"]["finetune"]["stop"]["metric"] == "accuracy"
    assert recipe["variants"] == {"no pre-training": {"stages.finetune.from": "scratch"}}
    checks = checked("made/here")
    assert len(checks.nodes) == 1 + 3 * 2
    splits = checks.nodes[1].prepared.splits
    assert sum(split.counts["rows"] for split in splits.values()) == 48
    assert set(splits) == {"train", "dev", "test"}


def test_text_alone_and_its_tail() -> None:
    write("book.txt", novel(), "gb18030")
    write_recipe(Path("made"), text=["book.txt"])
    recipe = recipe_of("made")
    assert list(recipe["stages"]) == ["pretrain"]
    assert recipe["stages"]["pretrain"]["data"] == {
        "kind": "text", "train": "../book.txt", "dev": "5 %", "encoding": "gb18030",
    }  # fmt: skip
    assert recipe["tokenizer"]["vocab_size"] >= 4096
    assert "seeds" not in recipe
    checked("made")


def test_from_a_folder(tmp_path: Path) -> None:
    config = ModelConfig(layers=1, width=16, heads=2, context=64, vocab_size=300)
    with new_folder(tmp_path / "model") as folder:
        tokenizer = BytePairTokenizer(vocab_size=300).build(TEXTS)
        transformer = Transformer(config)
        Learner(transformer, []).initialise(1)
        write_folder(folder, config, transformer.state_dict(), {}, tokenizer.save)
    rows_file()
    write("book.txt", novel())
    told = write_recipe(Path("one"), rows="data/reviews.csv", start=Path("model"))
    assert "1 layers x 16" in told
    recipe = recipe_of("one")
    assert not {"tokenizer", "model", "variants"} & set(recipe)
    assert recipe["stages"]["finetune"]["from"] == {"folder": "../model"}
    checked("one")
    write_recipe(Path("two"), rows="data/reviews.csv", text=["book.txt"], start=Path("model"))
    recipe = recipe_of("two")
    assert list(recipe["stages"]) == ["adapt", "finetune"]
    assert recipe["variants"] == {"no adaptation": {"stages.finetune.from": {"folder": "../model"}}}
    checked("two")
    with pytest.raises(UserError, match="model folder"):
        write_recipe(Path("three"), rows="data/reviews.csv", start=Path("data"))


def test_odd_names_are_quoted() -> None:
    columns = {"a, b: {c} # d": TEXTS, "- 标签": LABELS}
    write("数据 [1]/re: views, #1.csv", table(",", True, columns, True))
    write_recipe(Path("made in [x]"), rows="数据 [1]/re: views, #1.csv")
    form = recipe_of("made in [x]")["stages"]["finetune"]["data"]["format"]
    assert form == {"kind": "single", "text": "a, b: {c} # d", "label": "- 标签"}
    checked("made in [x]")


def test_a_label_cannot_break_out_of_its_comment() -> None:
    labels = ["good\nseed: 7", "bad"] * 24
    write("a.csv", table(",", True, {"text": TEXTS, "label": labels}, True))
    write_recipe(Path("made"), rows="a.csv")
    assert recipe_of("made")["seed"] == 1
    checked("made")


def test_a_data_root_that_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows_file()
    write("elsewhere/book.txt", novel())
    monkeypatch.setenv("GRADUS_DATA", str(tmp_path / "data"))
    write_recipe(Path("made"), rows="data/reviews.csv", text=["elsewhere/*.txt"])
    stages = recipe_of("made")["stages"]
    assert stages["finetune"]["data"]["train"] == "reviews.csv"
    assert stages["pretrain"]["data"]["train"] == str(tmp_path / "elsewhere/*.txt")
    checked("made")


def test_uneven_and_rare_classes() -> None:
    labels = ["often"] * 40 + ["seldom"] * 7 + ["once"]
    write("a.csv", table(",", True, {"text": TEXTS, "label": labels}, True))
    write_recipe(Path("made"), rows="a.csv")
    stage = recipe_of("made")["stages"]["finetune"]
    assert stage["stop"]["metric"] == "macro_f1"
    assert stage["data"]["labels"] == ["often", "once", "seldom"]
    checked("made")


@pytest.mark.parametrize("template", ["tiny", "classify"])
def test_templates_pass_check(template: str) -> None:
    write_recipe(Path("made"), template=template)
    checked("made")


def test_every_template_is_listed_and_loads() -> None:
    for name in TEMPLATES:
        assert name in list_templates()
        write_recipe(Path(name), template=name)
        gradus_recipe = recipe_of(name)
        assert ("pretrain" in gradus_recipe["stages"]) == bool(TEMPLATES[name][1])


# --- mistakes


def mistake(**options: Any) -> str:
    with pytest.raises(UserError) as caught:
        write_recipe(Path("made"), **options)
    assert "\n" not in str(caught.value)
    assert not Path("made").exists()
    return str(caught.value)


def test_mistakes_are_told() -> None:
    assert "--rows FILE" in mistake()
    assert "quickstart" in mistake(template="quikstart")
    assert "its own data" in mistake(template="tiny", rows="a.csv")
    assert "no such file" in mistake(rows="missing.csv")
    assert "no such file" in mistake(text=["missing.txt"])
    assert "no model folder" in mistake(rows=rows_file(), start=Path("data"))


def test_rows_in_which_nothing_is_a_label() -> None:
    write("a.csv", table(",", True, {"id": [str(at) for at in range(48)], "text": TEXTS}, True))
    told = mistake(rows="a.csv")
    assert "looks like a label" in told
    assert "id (48 values), text (48 values)" in told
    write("a.csv", table(",", True, {"class": LABELS, "kind": LABELS[::-1]}, True))
    write("b.csv", table(",", True, {"class": LABELS, "x": ["1"] * 48}, True))
    assert "looks like a text beside the label" in mistake(rows="b.csv")
    write("c.txt", novel())
    assert "columns" in mistake(rows="c.txt")


def test_bad_rows_have_their_line() -> None:
    lines = table("\t", False, {"text": TEXTS, "label": LABELS}, True).splitlines()
    lines[7] = "no tab here"
    write("a.tsv", "\n".join(lines))
    told = mistake(rows="a.tsv")
    assert told.startswith("a.tsv:8: ")
    assert "skip up to 10" in told
    write("b.csv", "text;label\n" + "x y;1\nz w;2\n" * 10)
    assert "';'" in mistake(rows="b.csv")


def test_a_recipe_is_never_overwritten() -> None:
    write("made/recipe.yaml", "mine")
    with pytest.raises(UserError, match="it stays"):
        write_recipe(Path("made"), template="tiny")
    assert Path("made/recipe.yaml").read_text() == "mine"
    with pytest.raises(UserError, match="which folder"):
        write_recipe(None, template="tiny")


def test_text_in_two_encodings() -> None:
    write("c/a.txt", novel(), "gb18030")
    write("c/b.txt", novel())
    assert "encoding" in mistake(text=["c"])


def test_the_command_exits_with_2_and_no_traceback() -> None:
    command = [sys.executable, "-m", "gradus.cli", "init", "made", "--rows", "missing.csv"]
    environment = {**os.environ, "PYTHONPATH": str(Path(gradus.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_same_files_give_the_same_recipe() -> None:
    rows_file()
    write_recipe(Path("made"), rows="data/reviews.csv")
    first = Path("made/recipe.yaml").read_bytes()
    shutil.rmtree("made")
    write_recipe(Path("made"), rows="data/reviews.csv")
    assert Path("made/recipe.yaml").read_bytes() == first


# --- the schema


def test_the_schema_is_up_to_date() -> None:
    told = "python -m gradus.pipeline.schema writes it anew"
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


# --- public data


ROOT = os.environ.get("GRADUS_DATA")


@pytest.fixture
def data() -> Path:
    if not ROOT:
        pytest.skip("GRADUS_DATA is not set")
    return Path(ROOT)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "label", "texts", "classes"),
    [
        ("SST2/train.tsv", "label", ("text",), 2),
        ("book_review/train.tsv", "label", ("text_a",), 2),
        ("CoLA/in_domain_train.tsv", "label", ("text",), 2),
        ("TREC/train.txt", "label", ("text",), 50),
        ("RTE/train.tsv", "label", ("sentence1", "sentence2"), 2),
        ("SNLI_devtest/dev.txt", "label", ("first", "second"), 3),
        ("OCNLI/dev.json", "label", ("sentence1", "sentence2"), 3),
        ("THUCNews_title/dev.txt", "label", ("text",), 10),
    ],
)
def test_public_rows(name: str, label: str, texts: tuple[str, ...], classes: int, data: Path) -> None:
    seen: SeenRows = look_at_rows(str(data / name))
    assert (seen.label, seen.texts, len(seen.counts)) == (label, texts, classes)
