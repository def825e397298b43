"""`gradus evaluate`: likelihoods are sums over tokens, and a model is measured as its training did."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import CONTEXT, LABELS, SINGLE, TEXTS, foreign, rows_file, use, written
from tiny import tiny

import gradus
from gradus.core.errors import UserError
from gradus.core.storage import read_json
from gradus.evaluation.metrics import classification_metrics
from gradus.pipeline.models.serving import evaluate_file
from gradus.tokenizers import Tokenizer


def test_the_likelihood_of_a_text_is_the_sum_of_its_tokens(language: Path):
    model = use(language)
    texts = [*TEXTS, "", "a", " ".join(TEXTS) * 2]
    for text, (likelihood, tokens) in zip(texts, model.score(texts)):
        ids = model.tokens.encode([text])[0].tolist()
        assert tokens == max(len(ids) - 1, 0)
        wanted = 0.0
        for start in range(0, max(len(ids) - 1, 0), CONTEXT):
            part = ids[start : start + CONTEXT + 1]
            logits = torch.from_numpy(model.logits([part[:-1]])[0]).double().log_softmax(1)
            wanted += float(logits[torch.arange(len(part) - 1), torch.tensor(part[1:])].sum())
        assert likelihood == pytest.approx(wanted, rel=1e-5, abs=1e-9)
    assert model.score([]) == []


def test_evaluating_text_is_perplexity_and_bits_per_byte_in_the_windows_of_training(
    language: Path, tmp_path: Path
):
    for name, text in (("b.txt", TEXTS[0]), ("a.txt", TEXTS[1])):
        (tmp_path / name).write_text(text * 3, encoding="utf-8")
    model = use(language)
    found = evaluate_file(model, str(tmp_path / "*.txt"))
    end = model.tokens.role("end")
    ids = [
        token
        for text in (TEXTS[1], TEXTS[0])
        for token in [*model.tokens.encode([text * 3])[0].tolist(), end]
    ]
    nats = 0.0
    for start in range(0, len(ids) - 1, CONTEXT):
        part = ids[start : start + CONTEXT + 1]
        logits = torch.from_numpy(model.logits([part[:-1]])[0]).double().log_softmax(1)
        nats -= float(logits[torch.arange(len(part) - 1), torch.tensor(part[1:])].sum())
    size = sum(len(text.encode()) * 3 for text in TEXTS[:2])
    assert found["loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert found["bytes"] == size and found["tokens"] == len(ids)
    assert model.evaluate("builtin:tiny", "dev")["bytes"] != model.evaluate("builtin:tiny")["bytes"]


def test_evaluating_rows_gives_the_metrics_of_the_predictions(classifier: Path, tmp_path: Path):
    model = use(classifier)
    found = evaluate_file(model, rows_file(tmp_path / "rows.jsonl", 40))
    answers = list(model.predict(f"{TEXTS[number % 5]} {number}" for number in range(40)))
    predicted = [LABELS.index(one["label"]) for one in answers]
    odds = np.array([list(one["probabilities"].values()) for one in answers])
    truth = [number % 3 for number in range(40)]
    wanted = classification_metrics(truth, predicted, odds, LABELS)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
    assert found["loss"] == pytest.approx(-np.log(odds[range(40), truth]).mean(), rel=1e-4)
    assert found["rows"] == 40 and found["causal_lm.loss"] > 1


def test_without_a_token_for_end_each_document_is_scored_alone(tmp_path: Path, tokenizer: Tokenizer):
    transformers = pytest.importorskip("transformers")
    bare = Tokenizer(tokenizer.inner, {})
    foreign(tmp_path / "model", None, transformers.OpenAIGPTLMHeadModel)
    bare.save(tmp_path / "model")
    model = use(tmp_path / "model")
    for number in (0, 1):
        (tmp_path / f"{number}.txt").write_text(TEXTS[number], encoding="utf-8")
    found = evaluate_file(model, [str(tmp_path / "0.txt"), str(tmp_path / "1.txt")])
    nats = -sum(likelihood for likelihood, _ in model.score(TEXTS[:2]))
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / len("".join(TEXTS[:2]).encode()))
    with pytest.raises(UserError, match="the prompt is empty"):
        model.generate("")


def test_a_stage_s_model_is_evaluated_as_its_training_did(tmp_path: Path):
    rows = {"kind": "rows", "train": "builtin:tiny", "test": "builtin:tiny"}
    patch = {
        "model.context": 64,
        "stages.pretrain.length": "2 steps",
        "stages.finetune.data": rows | {"format": {"kind": "single", "text": "text", "label": "label"}},
        "stages.finetune.length": "2 steps",
    }
    recipe = tiny(tmp_path / "tiny.yaml", patch)
    folder = gradus.run(recipe, runs=tmp_path / "runs", device="cpu")
    for stage, split in (("pretrain", "dev"), ("finetune", "test")):
        (home,) = (folder / "stages").glob(f"{stage}-*")
        found = use(home / "model", precision="auto").evaluate("builtin:tiny", split)
        results = read_json(home / "stage.json")["results"][split]
        assert {name: found[name] for name in results} == pytest.approx(results, rel=1e-6)


def test_rows_without_the_label_column_are_told_before_what_training_dropped_and_that_is_counted(
    tokenizer: Tokenizer, tmp_path: Path
):
    reader = {"drop": {"label": ["", "-"]}, "bad_rows": "skip up to 1", "map": {"label": {"0": "坏"}}}
    model = use(written(tmp_path / "model", tokenizer, SINGLE, reader=reader))
    (tmp_path / "a.csv").write_text("id,text\n1,好\n", encoding="utf-8")
    told = "a.csv: evaluating needs the label column 'label' .the columns are id, text"
    with pytest.raises(UserError, match=told):
        evaluate_file(model, tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("label,text\n0,好\n-,不\n,无\n坏\n好,很\n", encoding="utf-8")
    found = evaluate_file(model, tmp_path / "a.csv")
    assert (found["rows"], found["dropped_rows"], found["skipped_rows"]) == (2, 2, 1)
    (tmp_path / "a.csv").write_text("label,text\n-,好\n", encoding="utf-8")
    with pytest.raises(UserError, match="leaves none of the 1 row"):
        evaluate_file(model, tmp_path / "a.csv")


def test_reader_and_encoding_of_what_is_evaluated(classifier: Path, language: Path, tmp_path: Path):
    (tmp_path / "a.dat").write_bytes("text\tlabel\n电影很好看\t好\n".encode("gb18030"))
    assert evaluate_file(use(classifier), tmp_path / "a.dat", reader="tsv", encoding="gb18030")["rows"] == 1
    found = evaluate_file(use(language), tmp_path / "a.dat", encoding="gb18030")
    assert found["bytes"] == len("text\tlabel\n电影很好看\t好\n".encode())
    with pytest.raises(UserError, match="--reader: a language model is evaluated on text"):
        evaluate_file(use(language), tmp_path / "a.dat", reader="tsv")
