"""Every task shape of GPT-1 from the user's side: a recipe trains it on rows, `predict` answers, `evaluate`
agrees with what training reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import gradus
from gradus.core.errors import UserError
from gradus.pipeline.models.serving import load, predict_file

pytestmark = pytest.mark.usefixtures("alone")

WORDS = ["the", "cat", "sat", "on", "a", "mat", "猫", "坐", "在", "垫子", "上", "and", "dogs", "ran", "far"]


def text(number: int, length: int = 5) -> str:
    return " ".join(WORDS[(number * 7 + place * (number % 5 + 1)) % len(WORDS)] for place in range(length))


def rows(kind: str) -> list[dict[str, Any]]:
    made = []
    for number in range(48):
        first, second = text(number), text(number + number % 3)
        if kind == "multiple_choice":
            answers = [text(number + place, 2) for place in range(2 + number % 4)]
            made.append({"story": first, "question": "what ?", "answers": answers, "right": number % 2})
        elif kind == "scores":
            made.append({"a": first, "b": second, "label": 5 - 2.5 * (number % 3)})
        else:
            made.append({"a": first, "b": second, "label": ["yes", "no", "也许"][number % 3]})
    return made


FORMATS: dict[str, dict[str, Any]] = {
    "single": {"kind": "single", "text": "a", "label": "label"},
    "pair": {"kind": "pair", "first": "a", "second": "b", "label": "label"},
    "similarity": {"kind": "similarity", "first": "a", "second": "b", "label": "label"},
    "scores": {"kind": "similarity", "first": "a", "second": "b", "label": "label"},
    "multiple_choice": {
        "kind": "multiple_choice", "context": "story", "question": "question", "answers": "answers",
        "label": "right", "label_is": "index",
    },
}  # fmt: skip
OBJECTIVES = {"scores": "regression", "multiple_choice": "multiple_choice"}


def recipe(folder: Path, kind: str) -> Path:
    data = {"kind": "rows", "format": FORMATS[kind]}
    for split in ("train", "dev", "test"):
        lines = rows(kind) if split == "train" else rows(kind)[:20]
        for number, line in enumerate(lines if split != "train" else []):
            line["a" if "a" in line else "story"] += f" {split} {number}"
        file = folder / f"{split}.jsonl"
        file.write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
        )
        data[split] = file.name
    path = folder / f"{kind}.yaml"
    stages = {
        "task": {
            "data": data,
            "objectives": [
                {"kind": OBJECTIVES.get(kind, "classification")},
                {"kind": "causal_lm", "weight": 0.5},
            ],
            "optimizer": {"kind": "adamw", "lr": 1e-2},
            "precision": "fp32",
            "batch": "8 rows",
            "length": "6 steps",
        }
    }
    content = {
        "tokenizer": {"kind": "bpe", "vocab_size": 320},
        "model": {"preset": "gpt1-tiny", "layers": 1, "width": 16, "heads": 2, "context": 32},
        "stages": stages,
    }
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_a_recipe_trains_it_and_predict_and_evaluate_agree(tmp_path: Path, kind: str) -> None:
    folder = gradus.run(recipe(tmp_path, kind), runs=tmp_path / "runs", device="cpu")
    (record_file,) = folder.glob("stages/*/stage.json")
    record = json.loads(record_file.read_text())
    main = {"scores": "pearson"}.get(kind, "accuracy")
    assert main in record["results"]["test"] and record["floors"]["test"]
    kept = [
        json.loads(line) for line in (record_file.parent / "predictions-test.jsonl").read_text().splitlines()
    ]

    model = load(record_file.parent / "model", device="cpu")
    told = model.evaluate(tmp_path / "test.jsonl")
    for name in (main, "loss"):
        assert told[name] == pytest.approx(record["results"]["test"][name], abs=1e-5)

    output = tmp_path / "answers.jsonl"
    assert predict_file(model, tmp_path / "test.jsonl", output)["rows"] == 20
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    for answer, line in zip(answers, kept):
        if kind == "scores":
            assert answer["label"] == pytest.approx(line["predicted"], abs=1e-5)
            assert 0 <= answer["label"] <= 5
        else:
            assert answer["label"] == line["predicted"]
            assert answer["score"] == pytest.approx(max(_values(answer["scores"])), abs=1e-6)
            assert sum(_values(answer["probabilities"])) == pytest.approx(1)
    if kind == "multiple_choice":
        given = rows(kind)[:20]
        for answer, row, line in zip(answers, given, kept):
            assert (
                answer["label"] == row["answers"][answer["index"]]
                and line["label"] == row["answers"][row["right"]]
            )
            assert len(answer["scores"]) == len(row["answers"])


def _values(scores: Any) -> list[float]:
    return list(scores.values()) if isinstance(scores, dict) else scores


@pytest.mark.parametrize(
    "kind, change, said",
    [
        ("multiple_choice", {"objectives": [{"kind": "classification"}]}, "does not fit rows of the format"),
        ("pair", {"objectives": [{"kind": "multiple_choice"}]}, "does not fit rows of the format"),
        ("pair", {"objectives": [{"kind": "regression"}]}, "the label is not a number"),
        ("pair", {"objectives": [{"kind": "classification"}, {"kind": "regression"}]}, "the same label"),
        ("scores", {"stop": {"metric": "accuracy"}}, "reports no such metric"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, kind: str, change: dict[str, Any], said: str) -> None:
    path = recipe(tmp_path, kind)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["stages"]["task"] |= change
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        gradus.run(path, runs=tmp_path / "runs", device="cpu")
    assert not list((tmp_path / "runs").glob("*/stages/*/model"))


def test_every_objective_has_its_own_floors(tmp_path: Path) -> None:
    """Stages on the same rows share what is computed for them only where they are judged alike."""
    path = recipe(tmp_path, "scores")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["variants"] = {"classes": {"stages.task.objectives": [{"kind": "classification"}]}}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    records = [json.loads(file.read_text()) for file in folder.glob("stages/*/stage.json")]
    floors = {record["config"]["objectives"][0]["kind"]: set(record["floors"]["dev"]) for record in records}
    assert floors == {"regression": {"mean", "word_overlap"}, "classification": {"majority", "naive_bayes"}}


def test_special_tokens_alone_are_scored_alike_in_training_and_after(tmp_path: Path) -> None:
    path = recipe(tmp_path, "single")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    special = {"kind": "causal_lm", "scored": "special"}
    content["stages"]["task"]["objectives"] = [{"kind": "classification"}, special]
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    record = json.loads(next(folder.glob("stages/*/stage.json")).read_text())
    told = load(next(folder.glob("stages/*/model")), device="cpu").evaluate(tmp_path / "test.jsonl")
    assert told["causal_lm.loss"] == pytest.approx(record["results"]["test"]["causal_lm.loss"], abs=1e-5)
    content["stages"]["task"] |= {"data": {"kind": "text", "train": "test.jsonl"}, "objectives": [special]}
    content["stages"]["task"]["batch"] = "8 windows"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with pytest.raises(UserError, match="is for rows"):
        gradus.check(path, runs=tmp_path / "runs", device="cpu")
