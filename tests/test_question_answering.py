# ruff: noqa: E501  (one mistake a line: the table is read across)
"""Question answering from the user's side: a recipe trains it, predict and evaluate agree with the run,
transformers opens it, and mistakes are told with status 2."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import lines, one_task

import gradus
from gradus.data.reader_options import ReaderOptions
from gradus.data.readers import read_rows
from gradus.evaluation.spans import span_scores
from gradus.pipeline.models.serving import load, predict_file

pytestmark = pytest.mark.usefixtures("alone")

PEOPLE, PLACES = ["周瑜", "曹操", "刘备", "孙权"], ["赤壁", "许昌", "成都", "建业"]
FORM: dict[str, Any] = {
    "kind": "question", "question": "question", "context": "context", "answers": "texts", "starts": "starts",
}  # fmt: skip
FIELDS = {
    "context": "data/*/paragraphs/*/context",
    "texts": "data/*/paragraphs/*/qas/*/answers/*/text",
    "starts": "data/*/paragraphs/*/qas/*/answers/*/answer_start",
}


def squad(count: int, shift: int, unanswerable: bool) -> dict[str, Any]:
    """Contexts as SQuAD nests them; some ask for who is not there."""
    paragraphs = []
    for number in range(shift, shift + count):
        pairs = [(PEOPLE[(number + at) % 4], PLACES[(number // 4 + at) % 4]) for at in range(3)]
        context = "。".join(f"第{number}回说{who}在{where}" for who, where in pairs) + "。"
        qas = []
        for who, where in pairs[: 1 + number % 2]:
            starts = [{"text": where, "answer_start": context.index(f"在{where}") + 1}]
            qas.append({"question": f"{who}在哪里？", "answers": starts})
        if unanswerable and number % 3 == 0:
            qas.append({"question": "诸葛亮在哪里？", "answers": []})
        paragraphs.append({"context": context, "qas": qas})
    return {"data": [{"title": "演义", "paragraphs": paragraphs}]}


def recipe(folder: Path, preset: str = "bert-tiny", unanswerable: bool = False, **changes: Any) -> Path:
    for split, count, shift in (("train", 24, 0), ("dev", 8, 50), ("test", 8, 80)):
        text = json.dumps(squad(count, shift, unanswerable), ensure_ascii=False)
        (folder / f"{split}.json").write_text(text, encoding="utf-8")
    data = {"kind": "rows", **{split: f"{split}.json" for split in ("train", "dev", "test")}}
    data |= {"rows": "data/*/paragraphs/*/qas/*", "fields": FIELDS, "long": "window"}
    data["format"] = FORM | {"stride": 8} | ({"unanswerable": True} if unanswerable else {})
    task = {"data": data, "objectives": [{"kind": "question_answering", "longest": 4}], "length": "4 steps"}
    return one_task(folder / "qa.yaml", preset, 32, "task", **task | changes)


CASES = [
    ("bert-tiny", False),
    ("bert-tiny", True),
    ("gpt1-tiny", False),
    ("gpt2-tiny", True),
    ("bart-mini", False),
]


@pytest.mark.parametrize(("preset", "unanswerable"), CASES)
def test_predict_evaluate_and_the_run_agree(
    tmp_path: Path, preset: str, unanswerable: bool, command: Callable[..., tuple[int, str]]
) -> None:
    stop = {"stop": {"metric": "exact_match"}} if preset == "bert-tiny" else {}
    folder = gradus.run(recipe(tmp_path, preset, unanswerable, **stop), runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    record = json.loads((stage / "stage.json").read_text())
    assert record["data"]["train"]["windows"] > record["data"]["train"]["rows"]
    assert record["data"]["train"]["truncated_tokens"] == 0
    results, kept = record["results"]["test"], lines(stage / "predictions-test.jsonl")
    assert {"exact_match", "f1", "loss"} <= set(results) and (
        "no_answer" in record["floors"]["test"]
    ) == unanswerable
    for metric, key in (("exact_match", "correct"), ("f1", "f1")):
        assert results[metric] == pytest.approx(np.mean([line[key] for line in kept]))

    model = load(stage / "model", device="cpu")
    told = model.evaluate(tmp_path / "test.json")
    assert {name: told[name] for name in results} == pytest.approx(results, abs=1e-5)

    assert predict_file(model, tmp_path / "test.json", tmp_path / "said.jsonl")["rows"] == len(kept)
    rows = list(
        read_rows(tmp_path / "test.json", ReaderOptions(rows="data/*/paragraphs/*/qas/*", fields=FIELDS))
    )
    for said, line, row in zip(lines(tmp_path / "said.jsonl"), kept, rows, strict=True):
        assert said["text"] == line["predicted"] and 0 <= said["probability"] <= 1
        right = json.loads(row.fields["texts"])
        assert line["label"] == (right[0] if right else "")
        assert line["f1"] == pytest.approx(span_scores(said["text"], right, row.fields["context"])[1])
        if said["start"] is not None:
            assert said["text"] == row.fields["context"][said["start"] : said["end"]]
            assert 1 <= len(said["text"]) <= 4
        else:
            assert said["text"] == "" and said["no_answer_score"] > said["score"]
        assert ("no_answer_score" in said) == unanswerable
    asked = [{"question": row.fields["question"], "context": row.fields["context"]} for row in rows]
    assert [one["text"] for one in model.predict(asked)] == [line["predicted"] for line in kept]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    predict_file(model, tmp_path / "asked.jsonl", tmp_path / "again.jsonl")
    assert [one["text"] for one in lines(tmp_path / "again.jsonl")] == [line["predicted"] for line in kept]
    assert command("report", folder)[0] == 0


@pytest.mark.parametrize("preset", ["bert-tiny", "roberta-mini", "gpt2-tiny", "llama-mini"])
def test_transformers_finds_the_same_logits(tmp_path: Path, preset: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = gradus.run(recipe(tmp_path, preset), runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(stage / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(stage / "model")
    ours = load(stage / "model", device="cpu")
    question, context = "周瑜在哪里？", "第9回说周瑜在赤壁。"
    encoded = tokenizer(question, context, return_tensors="pt")
    with torch.no_grad():
        answer = theirs(**encoded)
    expected = np.stack([answer.start_logits[0], answer.end_logits[0]], 1)
    pair = ours.tokenizer.encode(question, context)
    found, again = ours.logits([pair, pair])
    assert encoded["input_ids"][0].tolist() == pair.ids and found.shape == (len(pair.ids), 2)
    assert np.abs(found - expected).max() < 1e-4 and np.abs(found - again).max() < 1e-6

    foreign = tmp_path / "theirs"
    theirs.save_pretrained(foreign)
    tokenizer.save_pretrained(foreign)
    reopened = load(foreign, device="cpu", recipe=tmp_path / "qa.yaml", stage="task")
    asked = [{"question": question, "context": context}]
    assert np.abs(reopened.logits([pair])[0] - expected).max() < 1e-4
    (said,) = reopened.predict(asked)
    assert context[said["start"] : said["end"]] == said["text"]


def test_other_objectives_read_questions_without_their_answers(tmp_path: Path) -> None:
    path = recipe(tmp_path, objectives=[{"kind": "masked_lm"}])
    changed(tmp_path, "answers: texts", "answers: nothing", "qa.yaml")
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    (record,) = (folder / "stages").glob("*/stage.json")
    assert set(json.loads(record.read_text())["results"]["dev"]) == {"loss", "perplexity", "accuracy"}


def test_an_empty_context_holds_nothing(tmp_path: Path) -> None:
    folder = gradus.run(recipe(tmp_path), runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    (said,) = load(stage / "model", device="cpu").predict([{"question": "谁？", "context": ""}])
    assert said["text"] == "" and said["start"] is said["end"] is said["score"] is None


def test_a_few_questions_are_learnt_by_heart(tmp_path: Path) -> None:
    path = recipe(tmp_path, unanswerable=True, length="150 steps", optimizer={"kind": "adamw", "lr": 5e-3})
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["stages"]["task"]["data"] |= {"dev": "train.json", "test": None, "limit": 6}
    content["model"] |= {"layers": 2, "width": 64, "dropout": 0.0}
    text = json.dumps(squad(4, 0, True), ensure_ascii=False)
    (tmp_path / "train.json").write_text(text, encoding="utf-8")
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    (record,) = (folder / "stages").glob("*/stage.json")
    dev = json.loads(record.read_text())["results"]["dev"]
    assert dev["exact_match"] > 0.7 and dev["f1"] > 0.7


def changed(folder: Path, old: str, new: str, file: str = "train.json") -> None:
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")


MISTAKES = {
    "nowhere": (("train.json", '"text": "赤壁"', '"text": "汴京"'), r"train.json:1: texts: .* said to start: '汴京'"),
    "none": (("dev.json", '"text": "许昌", "answer_start"', '"text": "", "answer_start"'), r"dev.json:1: texts: the question has no answer: '"),
    "column": (("qa.yaml", "context: context", "context: passage"), "there is no such column: 'passage'"),
    "starts": (("qa.yaml", "/answers/*/answer_start", "/answers/*/text"), "starts: a whole number of characters is wanted"),
    "objective": (("qa.yaml", "kind: question_answering\n      longest: 4", "kind: classification"), "classification does not fit rows of the format question"),
    "format": (("qa.yaml", "kind: question\n", "kind: pair\n"), "first"),
    "stride": (("qa.yaml", "stride: 8", "stride: 15"), "stages.task.data.format.stride: beside a question of 14 tokens a window has 15"),
    "stride alone": (("qa.yaml", "long: window", "long: truncate"), "stages.task.data.format.stride: without further windows .*: '8'"),
    "negative": (("qa.yaml", "stride: 8", "stride: -1"), "stride"),
    "answer read": (("qa.yaml", "answers: texts", "answers: context"), "this column is one of the texts"),
    "metric": (("qa.yaml", "length: 4 steps", "length: 4 steps\n    stop: {metric: accuracy}"), "reports no such metric: 'accuracy'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, case: str, command: Callable[..., tuple[int, str]]
) -> None:
    path = recipe(tmp_path)
    (file, old, new), told = MISTAKES[case]
    changed(tmp_path, old, new, file)
    status, error = command("check", path, "--runs", tmp_path / "runs")
    assert status == 2 and "Traceback" not in error and re.search(told, error), error
