# ruff: noqa: E501  (one mistake a line: the table is read across)
"""Weights of labels: scikit-learn's formula, torch's normalisation, and what a run makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_token_classification
import torch
import toy
from sklearn.utils.class_weight import compute_class_weight
from test_laws import farthest, gradients
from tiny import tiny

import gradus
from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.data.label_weights import balanced, balanced_positive
from gradus.nn.transformer import Transformer
from gradus.objectives import ClassificationConfig, ObjectiveSettings, Task, TokenClassificationConfig
from gradus.training.learner import Learner

pytestmark = pytest.mark.usefixtures("alone")
NAMES, WEIGHTS = ("坏", "中", "好"), (4.0, 0.5, 1.5)


def test_balanced_is_scikit_learn_s() -> None:
    rows = np.array(["坏"] + ["中"] * 7 + ["好"] * 3)
    theirs = compute_class_weight("balanced", classes=np.array(NAMES), y=rows)
    ours = balanced({name: int((rows == name).sum()) for name in NAMES})
    assert list(ours.values()) == pytest.approx(theirs.tolist())
    with pytest.raises(UserError, match="nothing in train has this label.*'好'"):
        balanced({"坏": 3, "好": 0})


def test_a_positive_weight_is_the_ratio_of_scikit_learn_s() -> None:
    has = np.array([1, 0, 0, 0, 0, 1, 0])
    without, having = compute_class_weight("balanced", classes=np.array([0, 1]), y=has)
    assert balanced_positive({"坏": 2}, 7)["坏"] == pytest.approx(having / without)
    with pytest.raises(UserError, match="every row of train has this label"):
        balanced_positive({"坏": 7}, 7)


def learner(config: ObjectiveSettings) -> Learner:
    objective = config.build(Task(toy.model(), "toy", NAMES, WEIGHTS))
    return Learner(Transformer(toy.model(), torch.float64), [objective]).initialise(1).double()


def rows(tagged: bool) -> list[Example]:
    random, made = np.random.default_rng(4), []
    for number in range(9):
        ids = random.integers(4, 50, random.integers(3, 20))
        places = np.arange(1, len(ids))
        tags = np.stack([places, places, random.integers(-1, 3, len(places))], 1)
        label = None if number % 4 == 3 else number % 3
        made.append(Example(number, (ids,), tagged=tags) if tagged else Example(number, (ids,), label=label))
    return made


@pytest.mark.parametrize("tagged", [False, True])
def test_law_1_and_torch_s_weighted_mean(tagged: bool) -> None:
    made = learner((TokenClassificationConfig if tagged else ClassificationConfig)(dropout=0))
    whole = gradients(made, [rows(tagged)])
    for size in (1, 2, 4):
        parts = gradients(made, [rows(tagged)[start : start + size] for start in range(0, 9, size)])
        assert farthest(whole, parts) < 1e-12
    batch = made.prepare(rows(tagged))
    (targets,) = batch.targets
    logits = made.heads["toy"](made.transformer(batch.source).index_select(0, targets.index))
    value = targets.value[:, 1] if tagged else torch.where(targets.weight > 0, targets.value, -100)
    value = torch.where(value < 0, -100, value)
    weight = torch.tensor(WEIGHTS, dtype=torch.float64)
    theirs = torch.nn.functional.cross_entropy(logits, value, weight=weight)
    ours = made(batch)[0] / targets.weight.sum()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-12)


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads(next((folder / "stages").glob("[ft]*/stage.json")).read_text(encoding="utf-8"))


WEIGHED = {"stages.finetune.data.weights": "balanced"}


def test_a_run_records_what_labels_weigh(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    path = tiny(tmp_path / "one.yaml", WEIGHED)
    status, told = command("check", path, "--runs", tmp_path / "runs")
    record = record_of(gradus.run(path, runs=tmp_path / "runs", device="cpu"))
    counts = record["data"]["train"]["labels"]
    total = sum(counts.values())
    wanted = {name: total / (len(counts) * count) for name, count in counts.items()}
    assert record["label_weights"] == pytest.approx(wanted)
    said = ", ".join(f"{name} {weight:.3g}" for name, weight in wanted.items())
    assert status == 0 and f"finetune: weights of labels: {said}" in told


def test_given_numbers_are_1_where_there_is_none(tmp_path: Path) -> None:
    path = tiny(tmp_path / "one.yaml", {"stages.finetune.data.weights": {"positive": 3}})
    record = record_of(gradus.run(path, runs=tmp_path / "runs", device="cpu"))
    assert record["label_weights"] == {name: 3.0 if name == "positive" else 1.0 for name in record["labels"]}


def test_tags_are_weighed_by_the_tokens_that_learn_them(tmp_path: Path) -> None:
    path = test_token_classification.recipe(tmp_path)
    test_token_classification.changed(path, "kind: rows", "kind: rows\n      weights: balanced")
    record = record_of(gradus.run(path, runs=tmp_path / "runs", device="cpu"))
    said = [tag for number in range(40) for _, tag in test_token_classification.sentence(number)]
    names = record["labels"]
    theirs = compute_class_weight("balanced", classes=np.array(names), y=np.array(said))
    assert record["label_weights"] == pytest.approx(dict(zip(names, theirs.tolist())))


MISTAKES = {
    "unknown": ({"stages.finetune.data.weights": {"postive": 3}}, "finetune.data.weights: there is no such label: 'postive' (did you mean 'positive'?"),
    "no rows": (WEIGHED | {"stages.finetune.data.labels": ["negative", "positive", "中立"]}, "finetune.data.weights: nothing in train has this label, so its weight cannot be balanced: '中立' (give numbers)"),
    "negative": ({"stages.finetune.data.weights": {"positive": -1}}, "finetune.data.weights.positive: "),
    "no number": ({"stages.finetune.data.weights": {"positive": "重"}}, "finetune.data.weights.positive: "),
    "none": ({"stages.finetune.data.weights": {}}, "finetune.data.weights: "),
    "no classes": (WEIGHED | {"stages.finetune.objectives": [{"kind": "causal_lm"}]}, "finetune.data.weights: this key is for classification and token_classification"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told(tmp_path: Path, case: str, command: Callable[..., tuple[int, str]]) -> None:
    patch, told = MISTAKES[case]
    status, said = command("check", tiny(tmp_path / "one.yaml", patch), "--runs", tmp_path / "runs")
    assert status == 2 and told in said, said
