# ruff: noqa: E501  (one mistake a line: the table is read across)
"""Any number of labels a row, from the user's side: a recipe trains it, predict, evaluate and the report agree with
the run and scikit-learn, and mistakes are told with status 2."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support
from test_laws import farthest, gradients
from test_objectives import shape
from tiny import killed_and_whole, lines, one_task

import gradus
from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.data.label_sets import LabelSets
from gradus.data.labels import in_order
from gradus.data.readers import Row
from gradus.evaluation.label_sets import label_odds, per_label, said, set_floors, set_metrics
from gradus.nn.transformer import Transformer
from gradus.objectives import ClassificationConfig, Task
from gradus.pipeline.models.serving import load, predict_file
from gradus.report import load_run, write_report
from gradus.report.errors import class_tables, wrong_rows
from gradus.report.summary import tables
from gradus.training.learner import Learner

pytestmark = pytest.mark.usefixtures("alone")

TOPICS = {"体育": "球队 赢了 比赛", "财经": "股价 上涨", "science": "a new star was seen"}
NAMES = in_order(TOPICS)


def row(number: int) -> tuple[str, list[str]]:
    """A text about every second topic, every third and so on: some about all, some about none."""
    random = keyed_generator("topics", number)
    labels = [name for name in TOPICS if random.random() < 0.4]
    texts = [TOPICS[name] for name in labels]
    random.shuffle(texts)
    return f"第{number}条 " + "，".join(texts), labels


def recipe(folder: Path, preset: str = "bert-tiny", form: str = "jsonl", **changes: Any) -> Path:
    for split, numbers in (("train", range(60)), ("dev", range(100, 120)), ("test", range(200, 216))):
        rows = [row(number) for number in numbers]
        if form == "jsonl":
            lines = [
                json.dumps({"text": text, "topics": labels}, ensure_ascii=False) for text, labels in rows
            ]
        else:
            lines = ["text\ttopics", *(f"{text}\t{' | '.join(labels)}" for text, labels in rows)]
        (folder / f"{split}.{form}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = {
        "kind": "rows", **{split: f"{split}.{form}" for split in ("train", "dev", "test")},
        "format": {"kind": "single", "text": "text", "label": "topics"}, "leakage": "allow",
        "multi_label": True if form == "jsonl" else {"separator": "|"},
    } | changes.pop("data", {})  # fmt: skip
    task = {"data": data, "objectives": [{"kind": "classification"}], "length": "6 steps"} | changes
    return one_task(folder / "topics.yaml", preset, 48, "topics", **task)


def marks(rows: list[list[str]]) -> np.ndarray:
    return np.array([[name in labels for name in NAMES] for labels in rows])


CASES = [("bert-tiny", "jsonl"), ("gpt1-tiny", "tsv"), ("bart-mini", "tsv")]


@pytest.mark.parametrize(("preset", "form"), CASES)
def test_the_run_predict_and_evaluate_agree_with_scikit_learn(
    tmp_path: Path, preset: str, form: str, command: Callable[..., tuple[int, str]]
) -> None:
    path = recipe(tmp_path, preset, form)
    status, told = command("check", path, "--runs", tmp_path / "other")
    assert status == 0 and "labels a row; " in told and " rows without any" in told, told
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    record = json.loads((stage / "stage.json").read_text(encoding="utf-8"))
    known = marks([row(number)[1] for number in range(60)])
    assert record["labels"] == NAMES and record["label_weights"] is None
    assert record["data"]["train"]["labels"] == dict(zip(NAMES, known.sum(0).tolist()))
    assert record["data"]["train"]["rows_without_label"] == int((~known.any(1)).sum()) > 0

    wanted = [row(number)[1] for number in range(200, 216)]
    told = lines(stage / "predictions-test.jsonl")
    odds = np.array([[line["probabilities"][name] for name in NAMES] for line in told])
    guessed = marks([line["predicted_labels"] for line in told])
    right = marks(wanted)
    assert [line["labels"] for line in told] == [[n for n in NAMES if n in labels] for labels in wanted]
    assert (guessed == (odds > 0.5)).all()
    assert [line["correct"] for line in told] == (guessed == right).all(1).tolist()
    metrics = record["results"]["test"]
    assert metrics == {
        "micro_f1": pytest.approx(f1_score(right, guessed, average="micro", zero_division=0)),
        "macro_f1": pytest.approx(f1_score(right, guessed, average="macro", zero_division=0)),
        "accuracy": pytest.approx(accuracy_score(right, guessed)),
        "loss": pytest.approx(np.mean([log_loss(r, o, labels=[0, 1]) for r, o in zip(right.T, odds.T)]), rel=1e-6),
    }  # fmt: skip
    assert record["training"]["metric"] == "micro_f1"
    assert set(record["floors"]["test"]) == {"majority", "base_rate"}

    model = load(stage / "model", device="cpu")
    evaluated = model.evaluate(tmp_path / f"test.{form}")
    assert {name: evaluated[name] for name in metrics} == pytest.approx(metrics)
    assert predict_file(model, tmp_path / f"test.{form}", tmp_path / "out.jsonl")["rows"] == 16
    for line, one in zip(lines(tmp_path / "out.jsonl"), told, strict=True):
        assert line["labels"] == one["predicted_labels"] and "score" not in line
        assert line["probabilities"] == pytest.approx(one["probabilities"], rel=1e-4)
        assert line["scores"][NAMES[0]] == pytest.approx(
            math.log(1 / (1 / line["probabilities"][NAMES[0]] - 1)), rel=1e-4
        )
    (alone,) = model.logits([model.tokenizer.encode(row(200)[0])])
    assert alone == pytest.approx([*lines(tmp_path / "out.jsonl")[0]["scores"].values()], abs=1e-4)


def test_transformers_opens_it_and_tells_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = gradus.run(recipe(tmp_path, length="20 steps"), runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    theirs = transformers.pipeline("text-classification", str(stage / "model"), top_k=None, device="cpu")
    assert theirs.model.config.problem_type == "multi_label_classification"
    texts = [row(number)[0] for number in range(200, 216)]
    for line, found in zip(lines(stage / "predictions-test.jsonl"), theirs(texts)):
        assert {one["label"]: one["score"] for one in found} == pytest.approx(line["probabilities"], abs=1e-5)


def test_the_report_tells_label_by_label_and_tests_over_rows(tmp_path: Path) -> None:
    path = recipe(tmp_path, length="40 steps", data={"weights": "balanced"})
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content |= {"variants": {"no learning": {"stages.topics.length": "1 steps"}}, "seeds": 2}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    found = load_run(folder)
    dev, test = tables(found)
    assert test.metric == "micro_f1" and test.compared == "rows right"
    assert test.line("no learning").verdict in ("worse", "cannot tell")
    assert {floor.title for floor in test.floors} == {"majority label", "base rates of labels"}
    stages = found.of("as written", "topics")
    _, table = class_tables(stages)
    right, guessed = (
        marks([line[key] for stage in stages for line in stage.predictions["test"]])
        for key in ("labels", "predicted_labels")
    )
    columns = precision_recall_fscore_support(right, guessed, zero_division=0)
    for column, name in zip(columns, ("precision", "recall", "f1", "support")):
        assert [entry[name] for entry in table.classes] == pytest.approx(column.tolist())
    assert table.confusion == [] and wrong_rows(stages) is not None
    page = write_report(folder).read_text(encoding="utf-8")
    weight = stages[0].record["label_weights"]["体育"]
    assert "Label by label, test" in page and f"× {weight:.3g}" in page and "micro F1" in page
    assert '<table class="confusion">' not in page


def test_a_stage_that_stops_by_it_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe(
        tmp_path, evaluate={"every": "3 steps"}, stop={"metric": "macro_f1"}, save={"every": "2 steps"},
        data={"weights": {"体育": 2.5}}, objectives=[{"kind": "classification"}, {"kind": "masked_lm", "weight": 0.5}],
    )  # fmt: skip
    killed_and_whole(path, "topics", monkeypatch)


def learner(weights: tuple[float, ...] | None = None, dtype: torch.dtype = torch.float64) -> Learner:
    task = Task(shape("decoder"), "toy", ("甲", "乙", "丙", "丁"), weights, sets=True)
    objective = ClassificationConfig(dropout=0).build(task)
    return Learner(Transformer(task.model, dtype), [objective]).initialise(1).to(dtype)


def examples(count: int = 9) -> list[Example]:
    """Rows with any number of labels; every fourth is not labelled."""
    random = keyed_generator("sets", count)
    return [
        Example(number, (random.integers(0, 20, random.integers(2, 12)),),
                label=None if number % 4 == 3 else (random.random(4) < 0.4).astype(float))
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("weights", [None, (3.0, 0.5, 1.0, 7.0)])
def test_law_1_and_torch_s_own_loss(weights: tuple[float, ...] | None) -> None:
    made, rows = learner(weights), examples()
    whole = gradients(made, [rows])
    for size in (1, 2, 4):
        parts = gradients(made, [rows[start : start + size] for start in range(0, 9, size)])
        assert farthest(whole, parts) < 1e-12
    batch, labelled = made.prepare(rows), [one for one in rows if one.label is not None]
    logits = made.predict(made.prepare(labelled))[0].double()
    right = torch.from_numpy(np.stack([one.label for one in labelled]))
    positive = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    mean = torch.nn.BCEWithLogitsLoss(pos_weight=positive)(logits, right)
    total, count = made(batch)[0].item(), float(batch.targets[0].weight.sum())
    assert count == len(labelled) and total / count == pytest.approx(mean.item(), rel=1e-6)


def test_a_few_rows_are_learnt_by_heart() -> None:
    made, rows = learner(dtype=torch.float32), examples(8)
    optimizer, batch = torch.optim.Adam(made.parameters(), 1e-2), made.prepare(rows)
    for _ in range(100):
        optimizer.zero_grad()
        loss = made(batch)[0] / 6
        loss.backward()
        optimizer.step()
    scores = made.eval().predict(batch)[0].numpy()
    kept = [number for number in range(8) if number % 4 != 3]
    right = np.stack([rows[number].label for number in kept])
    assert loss.item() < 0.1 and set_metrics(right, scores[kept])["accuracy"] == 1


def test_metrics_by_hand_and_at_their_edges() -> None:
    right = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    scores = np.array([[2.0, -1.0], [1.0, -3.0], [-900.0, -800.0], [0.0, 900.0]])
    assert said(scores).tolist() == [[True, False], [True, False], [False, False], [False, True]]
    found = set_metrics(right, scores)
    assert found["micro_f1"] == pytest.approx(2 * 3 / (4 + 3)) and found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2) and math.isfinite(found["loss"])
    nobody = set_metrics(np.zeros((2, 3)), np.full((2, 3), -5.0))
    assert (nobody["micro_f1"], nobody["macro_f1"], nobody["accuracy"]) == (0, 0, 1)
    assert label_odds(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0, 0.5, 1]
    assert per_label(right, said(scores), ("a", "b"))[1] == {
        "label": "b",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
    }


def test_floors_know_the_labels_of_train_alone() -> None:
    train = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]])
    floors = set_floors(train, np.array([[1, 0, 0], [0, 0, 1]]))
    assert floors["majority"] == {"micro_f1": 0.5, "macro_f1": pytest.approx(2 / 9), "accuracy": 0.5}
    odds = np.array([4 / 6, 3 / 6, 1 / 6])
    nats = [-math.log(odds[0]), -math.log(1 - odds[1]), -math.log(1 - odds[2])]
    nats += [-math.log(1 - odds[0]), -math.log(1 - odds[1]), -math.log(odds[2])]
    assert floors["base_rate"]["loss"] == pytest.approx(np.mean(nats))
    assert floors["base_rate"]["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("text", "how", "wanted"),
    [
        ('["b", "a"]', True, ["b", "a"]),
        ("[]", True, []),
        ('[" 甲 ", 1]', True, ["甲", "1"]),
        ("甲；乙", {"separator": "；"}, ["甲", "乙"]),
        (" ", {"separator": ","}, []),
        ("a , b c", {"separator": ","}, ["a", "b c"]),
    ],
)
def test_how_labels_are_written(text: str, how: Any, wanted: list[str]) -> None:
    from pydantic import TypeAdapter

    from gradus.data.label_sets import MultiLabel

    sets = LabelSets.written(("x",), TypeAdapter(MultiLabel).validate_python(how))
    assert sets.texts(Row(0, {"topics": text}, "rows.tsv", 3), "topics") == wanted


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, old
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


FIRST = json.dumps({"text": row(0)[0], "topics": row(0)[1]}, ensure_ascii=False)
ONE = FIRST.split('"topics": ')[1]
MISTAKES = {
    "a text": ("train.jsonl", ONE, '"体育"}', "train.jsonl:1: topics: a JSON list of labels is wanted: '体育' (such as [\"a\", \"b\"]; one text of several wants `multi_label: {separator: \",\"}`)"),
    "a number": ("train.jsonl", ONE, "3}", "train.jsonl:1: topics: a JSON list of labels is wanted: '3'"),
    "a list in it": ("train.jsonl", ONE, '[["体育"]]}', "train.jsonl:1: topics: a JSON list of labels is wanted"),
    "twice": ("train.jsonl", ONE, '["体育", " 体育"]}', "train.jsonl:1: topics: the row has this label twice: '体育'"),
    "empty": ("train.jsonl", ONE, '["体育", ""]}', "train.jsonl:1: topics: a label is empty"),
    "null": ("train.jsonl", ONE, "null}", "train.jsonl:1: there is no such column: 'topics'"),
    "unknown": ("dev.jsonl", '"topics": ["', '"topics": ["体肓", "', "this label is not among those of the training rows: '体肓'"),
    "labels": ("topics.yaml", "multi_label: true", "multi_label: true\n      labels: [体育, 财经]", "topics: `labels` does not name this label: 'science'"),
    "weights": ("topics.yaml", "multi_label: true", "multi_label: true\n      weights: {体肓: 2}", "topics.yaml:19: stages.topics.data.weights: there is no such label: '体肓'"),
    "weight": ("topics.yaml", "multi_label: true", "multi_label: true\n      weights: {体育: 0}", "stages.topics.data.weights.体育: "),
    "a word": ("topics.yaml", "multi_label: true", "multi_label: true\n      weights: balansed", "stages.topics.data.weights: "),
    "never": ("topics.yaml", "multi_label: true", "multi_label: true\n      weights: balanced\n      labels: [体育, 财经, science, 天气]", "stages.topics.data.weights: nothing in train has this label, so its weight cannot be balanced: '天气' (give numbers)"),
    "separator": ("topics.yaml", "multi_label: true", "multi_label: {separator: ''}", "data.multi_label.separator: string should have at least 1 character"),
    "a word for it": ("topics.yaml", "multi_label: true", "multi_label: ','", "data.multi_label: true is wanted here, for JSON lists of labels, or {separator: \",\"}"),
    "objective": ("topics.yaml", "kind: classification", "kind: regression", "stages.topics.data.multi_label: this key is for classification"),
    "smoothing": ("topics.yaml", "kind: classification", "kind: classification\n      label_smoothing: 0.1", "label_smoothing is for one label a row"),
    "metric": ("topics.yaml", "length: 6 steps", "length: 6 steps\n    stop: {metric: matthews}", "this stage reports no such metric: 'matthews'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told(tmp_path: Path, case: str, command: Callable[..., tuple[int, str]]) -> None:
    path = recipe(tmp_path)
    file, old, new, told = MISTAKES[case]
    changed(tmp_path / file, old, new)
    status, words = command("check", path, "--runs", tmp_path / "runs")
    assert status == 2 and told in words, words


def test_a_single_label_in_all_is_no_set(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    path = recipe(tmp_path)
    text = "\n".join(json.dumps({"text": f"第{n}条", "topics": ["体育"] * (n % 2)}) for n in range(6))
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")
    status, told = command("check", path, "--runs", tmp_path / "runs")
    assert status == 2 and "train.jsonl: topics: the training rows have 1 label in all: '体育'" in told, told


def test_zero_shot_names_one_class(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    path = recipe(tmp_path, "gpt1-tiny", objectives=[{"kind": "classification"}, {"kind": "causal_lm"}])
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    stage = content["stages"]["topics"]
    stage["zero_shot"] = {
        "ask": {"kind": "words", "data": stage["data"], "prompt": "{text}", "answers": {"a": "a", "b": "b"}}
    }
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    status, told = command("check", path, "--runs", tmp_path / "runs")
    assert status == 2 and "zero_shot.ask.data.multi_label: zero-shot answers name one class a row" in told, (
        told
    )


def test_a_stage_without_it_keeps_its_fingerprint() -> None:
    from gradus.data.rows import RowsData

    about = {"kind": "rows", "train": "rows.tsv", "format": {"kind": "single", "text": "text"}}
    assert "multi_label" not in RowsData(**about).plain()
    assert RowsData(**about, multi_label=False).plain() == RowsData(**about).plain()
    assert RowsData(**about, multi_label=True).plain()["multi_label"] is True
