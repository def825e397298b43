# ruff: noqa: E501  (one mistake a line: the table is read across)
"""Tags of words from the user's side: a recipe trains it, predict and evaluate agree with the run, transformers
opens it, and mistakes are told with status 2."""

from __future__ import annotations

import json
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
from gradus.pipeline.models.serving import load, predict_file

pytestmark = pytest.mark.usefixtures("alone")

PEOPLE, PLACES = ["周瑜", "曹操", "刘备", "诸葛亮"], ["赤壁", "许昌", "成都", "五丈原"]


def sentence(number: int) -> list[tuple[str, str]]:
    """(word, tag) of a made-up sentence of single characters."""
    who, where = PEOPLE[number % 4], PLACES[number // 4 % 4]
    tagged = [(letter, "O") for letter in f"第{number}回说"]
    for text, kind in ((who, "PER"), ("在", ""), (where, "LOC"), ("。", "")):
        letters = ["B", *"I" * (len(text) - 1)]
        tagged += [(one, f"{letter}-{kind}" if kind else "O") for one, letter in zip(text, letters)]
    return tagged


def as_columns(rows: list[list[tuple[str, str]]]) -> str:
    return "\n\n".join("\n".join(f"{word} {tag}" for word, tag in row) for row in rows) + "\n"


def as_spans(rows: list[list[tuple[str, str]]]) -> str:
    lines = []
    for row in rows:
        text, spans = "".join(word for word, _ in row), []
        for place, (_, tag) in enumerate(row):
            if tag[0] == "B":
                spans.append({"start": place, "end": place + 1, "type": tag[2:]})
            elif tag[0] == "I":
                spans[-1]["end"] += 1
        lines.append(json.dumps({"text": text, "spans": spans}, ensure_ascii=False))
    return "\n".join(lines) + "\n"


FORMS: dict[str, tuple[str, Callable[..., str], dict[str, Any]]] = {
    "words": ("conll", as_columns, {"columns": ["word", "tag"], "format": {"kind": "words", "words": "word", "tags": "tag"}}),
    "entities": ("jsonl", as_spans, {"format": {"kind": "entities", "text": "text", "spans": "spans"}}),
}  # fmt: skip


def recipe(folder: Path, preset: str = "bert-tiny", form: str = "words", **changes: Any) -> Path:
    suffix, said, reading = FORMS[form]
    for split, numbers in (("train", range(40)), ("dev", range(50, 58)), ("test", range(80, 92))):
        text = said([sentence(number) for number in numbers])
        (folder / f"{split}.{suffix}").write_text(text, encoding="utf-8")
    data = {"kind": "rows", **{split: f"{split}.{suffix}" for split in ("train", "dev", "test")}, **reading}
    data = {**data, "leakage": "allow"}
    format = data["format"] | changes.pop("format", {})
    task = {"data": data | {"format": format}, "objectives": [{"kind": "token_classification"}]}
    return one_task(folder / "ner.yaml", preset, 32, "task", **{"length": "4 steps"} | task | changes)


CASES = [("bert-tiny", "words"), ("bert-tiny", "entities"), ("gpt1-tiny", "words"), ("gpt2-tiny", "entities")]


@pytest.mark.parametrize(("preset", "form"), CASES)
def test_predict_evaluate_and_the_run_agree(
    tmp_path: Path, preset: str, form: str, command: Callable[..., tuple[int, str]]
) -> None:
    stop = {"stop": {"metric": "strict_f1"}} if preset == "bert-tiny" else {}
    folder = gradus.run(recipe(tmp_path, preset, form, **stop), runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    record = json.loads((stage / "stage.json").read_text())
    assert record["data"]["train"]["entities"] == {"LOC": 40, "PER": 40}
    assert record["data"]["train"]["lost_words"] == 0
    assert record["labels"] == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert record["training"]["metric"] == ("strict_f1" if stop else "f1")
    assert set(record["floors"]["test"]) == {"majority", "word_majority"}
    results, kept = record["results"]["test"], lines(stage / "predictions-test.jsonl")
    assert set(results) == {"accuracy", "precision", "recall", "f1", "strict_f1", "loss"}
    alike = [one == other for line in kept for one, other in zip(line["tags"], line["predicted_tags"])]
    assert results["accuracy"] == pytest.approx(np.mean(alike))
    sequence = pytest.importorskip("seqeval.metrics")
    said = [line["predicted_tags"] for line in kept]
    assert results["f1"] == pytest.approx(sequence.f1_score([line["tags"] for line in kept], said))

    model, file = load(stage / "model", device="cpu"), tmp_path / f"test.{FORMS[form][0]}"
    told = model.evaluate(file)
    assert {name: told[name] for name in results} == pytest.approx(results, abs=1e-5)
    assert predict_file(model, file, tmp_path / "said.jsonl")["rows"] == len(kept)
    options = ReaderOptions(columns=["word", "tag"]) if form == "words" else ReaderOptions()
    rows = list(read_rows(file, options))
    for said, line, row in zip(lines(tmp_path / "said.jsonl"), kept, rows, strict=True):
        assert said["tags"] == line["predicted_tags"] and said["words"] == line["words"]
        assert all(0 < one <= 1 for one in said["probabilities"]) and "score" not in said
        for entity in said["entities"]:
            whole = said["words"] if form == "words" else row.fields["text"]
            assert "".join(whole[entity["start"] : entity["end"]]) == entity["text"]
            assert f"{entity['type']} {entity['text']}" in line["predicted"]
    asked = [line["words"] if form == "words" else "".join(line["words"]) for line in kept]
    column = "word" if form == "words" else "text"
    assert [one["tags"] for one in model.predict([{column: one} for one in asked])] == [
        line["predicted_tags"] for line in kept
    ]
    (bare,) = model.predict([" ".join(asked[0]) if form == "words" else asked[0]])
    assert bare["tags"] == kept[0]["predicted_tags"]
    assert command("report", folder)[0] == 0 and "strict F1" in (folder / "report.html").read_text()


@pytest.mark.parametrize("preset", ["bert-tiny", "roberta-mini", "gpt2-tiny", "llama-mini"])
def test_transformers_says_the_same_tags(tmp_path: Path, preset: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = gradus.run(recipe(tmp_path, preset, "entities"), runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(stage / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(stage / "model")
    ours, text = load(stage / "model", device="cpu"), "第9回说周瑜在赤壁。"
    encoded = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**encoded).logits[0].numpy()
    found, again = ours.logits([ours.tokenizer.encode(text)] * 2)
    assert encoded["input_ids"][0].tolist() == ours.tokenizer.encode(text).ids
    assert found.shape == expected.shape == (len(text) + 2, 5)
    assert np.abs(found - expected).max() < 1e-4 and np.abs(found - again).max() < 1e-6
    (said,) = ours.predict([text])
    assert said["tags"] == [theirs.config.id2label[int(row.argmax())] for row in expected[1:-1]]
    tagger = transformers.pipeline(
        "token-classification", model=theirs, tokenizer=tokenizer, ignore_labels=[]
    )
    piped = [one for one in tagger(text) if one["end"] > one["start"]]
    assert [one["entity"] for one in piped] == said["tags"]
    assert [one["score"] for one in piped] == pytest.approx(said["probabilities"], abs=1e-4)

    foreign = tmp_path / "theirs"
    theirs.save_pretrained(foreign)
    tokenizer.save_pretrained(foreign)
    reopened = load(foreign, device="cpu", recipe=tmp_path / "ner.yaml", stage="task")
    assert [one["tags"] for one in reopened.predict([text])] == [said["tags"]]


def test_parts_of_speech_have_an_accuracy_alone(
    tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    path = recipe(tmp_path, format={"scheme": "none"}, objectives=[{"kind": "token_classification"}])
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    record = json.loads((stage / "stage.json").read_text())
    assert set(record["results"]["test"]) == {"accuracy", "loss"}
    assert record["training"]["metric"] == "accuracy"
    (said,) = load(stage / "model", device="cpu").predict([{"word": "周 瑜"}])
    assert set(said) == {"words", "tags", "probabilities", "truncated"}
    path = recipe(tmp_path, format={"scheme": "none"}, stop={"metric": "f1"})
    status, told = command("check", path, "--runs", tmp_path / "other")
    assert status == 2 and "stop.metric: this stage reports no such metric: 'f1'" in told


def test_words_beyond_the_context_are_counted_and_told(
    tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    path = recipe(tmp_path)
    path.write_text(path.read_text().replace("context: 32", "context: 9"))
    status, told = command("check", path, "--runs", tmp_path / "runs")
    assert status == 0 and "rows (100.0%) longer than the context of 9 tokens" in told
    assert "of them beyond the context or without a token: lost; entities: LOC 40, PER 40" in told
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    for line in lines(stage / "predictions-test.jsonl"):
        assert None not in line["predicted_tags"][:7] and set(line["predicted_tags"][7:]) == {None}
        assert len(line["tags"]) == len(line["predicted_tags"]) and not line["correct"]
    told = load(stage / "model", device="cpu").evaluate(tmp_path / "test.conll")
    assert told["lost_words"] == told["words"] - 12 * 7 == told["truncated_tokens"]


def test_other_objectives_read_words_without_their_tags(tmp_path: Path) -> None:
    path = recipe(tmp_path, objectives=[{"kind": "masked_lm"}], format={"tags": "nothing"})
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    (record,) = (folder / "stages").glob("*/stage.json")
    assert set(json.loads(record.read_text())["results"]["dev"]) == {"loss", "perplexity", "accuracy"}


@pytest.mark.parametrize(
    ("preset", "pieces"), [("bert-tiny", "first"), ("bert-tiny", "all"), ("gpt2-tiny", "last")]
)
def test_a_few_sentences_are_learnt_by_heart(tmp_path: Path, preset: str, pieces: str) -> None:
    """Of tokens that are single bytes of a character a decoder knows the character at the last alone."""
    objectives = [{"kind": "token_classification"}]
    path = recipe(tmp_path, preset, format={"pieces": pieces}, length="60 steps", objectives=objectives)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["stages"]["task"]["data"] |= {"dev": "dev.conll", "train": "dev.conll", "test": None}
    content["model"] |= {"width": 32, "dropout": 0.0, "context": 96}
    content["tokenizer"] = {"kind": "bpe", "vocab_size": 280}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    (record,) = (folder / "stages").glob("*/stage.json")
    dev = json.loads(record.read_text())["results"]["dev"]
    assert dev["f1"] > 0.8 and dev["accuracy"] > 0.9


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


MISTAKES = {
    "transition": ("dev.conll", "B-PER", "O", r"dev.conll:1: tag: word 7, after O, begins no entity of the scheme bio: 'I-PER'"),
    "counts": ("train.conll", "瑜 I-PER", "瑜", r"train.conll:6: 1 column where the first line has 2: '瑜'"),
    "new": ("test.conll", "B-LOC", "B-ORG", r"test.conll:1: tag: "),
    "scheme": ("ner.yaml", "kind: words", "kind: words\n        scheme: bmes", r"tag: the scheme bmes has no such tag: 'I-PER' (`scheme: bio or iobes` has"),
    "pieces": ("ner.yaml", "kind: words", "kind: words\n        pieces: middle", r"format.pieces: "),
    "objective": ("ner.yaml", "kind: token_classification", "kind: classification", r"classification does not fit rows of the format words"),
    "format": ("ner.yaml", "kind: words\n        tags: tag\n        words: word", "kind: single\n        text: word\n        label: tag", r"token_classification does not fit rows of the format single"),
    "tags": ("ner.yaml", "        tags: tag\n", "", r"data.format.tags: the objective needs to know the column with the label (add `tags: COLUMN`)"),
    "window": ("ner.yaml", "kind: rows", "kind: rows\n      long: window", r"rows of the format words are read as one: 'window'"),
    "bart": ("ner.yaml", "preset: bert-tiny", "preset: bart-mini", r"an encoder-decoder cannot learn this: 'token_classification'"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told(tmp_path: Path, case: str, command: Callable[..., tuple[int, str]]) -> None:
    path = recipe(tmp_path)
    file, old, new, told = MISTAKES[case]
    changed(tmp_path / file, old, new)
    status, said = command("check", path, "--runs", tmp_path / "runs")
    assert status == 2 and told in said, said
