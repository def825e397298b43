"""`gradus init`: what it writes says what it saw, and passes `gradus check`; mistakes are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny
from user_files import LABELS, TEXTS, checked, novel, recipe_of, rows_file, table, write

import gradus
from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder
from gradus.families.folder import write_folder
from gradus.nn.transformer import Transformer
from gradus.pipeline.looking.init import TEMPLATES, list_templates, write_recipe
from gradus.pipeline.recipes.schema import FILE
from gradus.pipeline.run import run
from gradus.tokenizers import BytePairTokenizer
from gradus.training.learner import Learner

pytestmark = pytest.mark.usefixtures("alone")


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


def test_the_order_of_classes_is_that_of_the_recipe() -> None:
    labels = [str(at % 12 - 1) for at in range(48)]
    write("a.tsv", table("\t", False, {"text": TEXTS, "label": labels}, True))
    write_recipe(Path("made"), rows="a.tsv")
    assert recipe_of("made")["stages"]["finetune"]["data"]["labels"] == [str(at) for at in range(-1, 11)]
    assert checked("made").nodes[0].prepared.labels.names == tuple(str(at) for at in range(-1, 11))


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


@pytest.mark.parametrize(
    ("preset", "objective"),
    [("bert-tiny", "masked_lm"), ("t5-mini", "span_corruption"), ("bart-mini", "denoising")],
)
def test_a_folder_of_any_arrangement_begins_a_recipe_that_passes_check(preset: str, objective: str) -> None:
    """It goes on with what its family was taught, and no encoder is asked for the next token."""
    changes = {"model": {"preset": preset, "layers": 1, "width": 16, "heads": 2, "context": 64},
               "stages.pretrain.objectives": [{"kind": objective}],
               "stages.pretrain.length": "1 step"}  # fmt: skip
    done = run(tiny(Path("first.yaml"), changes), runs=Path("runs"), device="cpu", until="pretrain")
    folder = next((done / "stages").glob("pretrain-*")) / "model"
    write_recipe(Path("made"), rows="builtin:tiny", text=["builtin:tiny"], start=folder)
    text = Path("made/recipe.yaml").read_text(encoding="utf-8")
    assert f"objectives: [{{kind: {objective}}}]" in text and "causal_lm" not in text
    checked("made")


def test_every_template_is_listed_and_loads() -> None:
    for name in TEMPLATES:
        assert name in list_templates()
        write_recipe(Path(name), template=name)
        gradus_recipe = recipe_of(name)
        assert ("pretrain" in gradus_recipe["stages"]) == bool(TEMPLATES[name][1])


def test_the_same_files_give_the_same_recipe() -> None:
    rows_file()
    write_recipe(Path("made"), rows="data/reviews.csv")
    first = Path("made/recipe.yaml").read_bytes()
    shutil.rmtree("made")
    write_recipe(Path("made"), rows="data/reviews.csv")
    assert Path("made/recipe.yaml").read_bytes() == first


def test_what_is_left_out_is_told_and_passes_check() -> None:
    labels, texts = list(LABELS), list(TEXTS)
    labels[3], texts[4] = "", " "
    write("a.csv", table(",", True, {"text": texts, "label": labels}, True) + "oops,good,and more\n")
    told = write_recipe(Path("made"), rows="a.csv")
    written = Path("made/recipe.yaml").read_text(encoding="utf-8")
    for text in (told, written):
        assert "1 row with nothing in 'label' dropped" in text
        assert "1 row cannot be read and will be skipped; the first: a.csv:50: 3 fields" in text
    assert "drop: {label: '', text: ' '} # 2 rows" in written
    data = recipe_of("made")["stages"]["finetune"]["data"]
    assert "columns" not in data and "header" not in data
    assert (data["bad_rows"], data["leakage"]) == ("skip up to 1", "drop")
    checks = checked("made")
    assert sum(split.counts["rows"] for split in checks.nodes[0].prepared.splits.values()) == 46
    assert "finetune: train: 1 bad row skipped" in checks.notes
    assert all(".." not in row.file for row in checks.nodes[0].prepared.splits["train"].rows)


@pytest.mark.parametrize(("task", "metric"), [("regression", "pearson"), ("multiple_choice", "accuracy")])
def test_other_tasks_pass_check(task: str, metric: str) -> None:
    columns = {"s1": TEXTS, "s2": TEXTS[::-1], "similarity": [str(at / 10) for at in range(48)]}
    if task == "multiple_choice":
        columns = {"text": TEXTS, "choice_a": TEXTS[::-1], "choice_b": ["无"] * 48, "label": ["a", "b"] * 24}
    write("a.csv", table(",", True, columns, True))
    write_recipe(Path("made"), rows="a.csv")
    stage = recipe_of("made")["stages"]["finetune"]
    assert (stage["objectives"][0]["kind"], stage["stop"]["metric"]) == (task, metric)
    checked("made")


def test_a_little_chinese_is_told() -> None:
    write("book.txt", "A long English book without end. " * 400 + "好")
    assert "less than 1 % Chinese" in write_recipe(Path("made"), text=["book.txt"])
    write("plain.txt", "A long English book without end. " * 400)
    assert "no Chinese" in write_recipe(Path("other"), text=["plain.txt"])


# Mistakes


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
    assert "name them with --rows" in mistake(text=["a.txt"], label="rating")
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
    lines[7:15] = ["no tab here"] * 8
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
