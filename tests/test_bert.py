"""Law 8 for encoders: BERT's and RoBERTa's folders open in transformers and theirs open here, with the same
logits of every head and the same loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import (
    HEADS,
    LABELS,
    LENGTHS,
    PAD,
    ROWS,
    batch,
    build,
    head_of,
    opened,
    pooled,
    random_of,
    write,
)

from gradus.families import FAMILIES
from gradus.families.folder import ModelFolder, read_folder
from gradus.families.heads import Task
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer

transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def agree_on_tokens(ours: Transformer, theirs: Any) -> None:
    """Logits everywhere and the loss of chosen positions, to 1e-5 of fp32."""
    source, padded = batch(ours.config.segments)
    chosen = np.flatnonzero(np.arange(source.offsets[-1]) % 5 == 1)
    value = torch.from_numpy(np.random.default_rng(1).integers(5, 61, len(chosen)))
    labels = torch.full(padded["input_ids"].shape, -100)
    labels[padded["attention_mask"].bool()] = torch.full((int(source.offsets[-1]),), -100).scatter(
        0, torch.from_numpy(chosen), value
    )
    with torch.no_grad():
        answer = theirs(**padded)
        states = ours(source)
        logits = ours.logits(states)[: source.offsets[-1]]
        total = ours.token_loss(states[torch.from_numpy(chosen)], value, torch.ones(len(chosen)))
        expected = getattr(answer, "logits" if "logits" in answer else "prediction_logits")
        if "logits" in answer:
            loss = theirs(**padded, labels=labels).loss
        else:
            follows = torch.zeros(len(LENGTHS), dtype=torch.int64)
            right = torch.nn.functional.cross_entropy(answer.seq_relationship_logits, follows)
            loss = theirs(**padded, labels=labels, next_sentence_label=follows).loss - right
    assert (logits - expected[padded["attention_mask"].bool()]).abs().max() < 1e-5
    assert float(total) / len(chosen) == pytest.approx(float(loss), abs=1e-5)


def agree_on_heads(folder: ModelFolder, theirs: Any) -> None:
    """Logits and loss of the head, to 1e-5 of fp32."""
    ours, head = build(folder), head_of(folder)
    source, padded = batch(ours.config.segments)
    right = torch.tensor([0, 1, 1, 0])
    if folder.task == "number":
        right = torch.tensor([0.5, -1.0, 2.0, 0.0])
    with torch.no_grad():
        logits = head(pooled(ours, ours(source), source))
        if folder.task == "choices":
            logits, right = logits.view(2, 2), right[:2]
            padded = {key: part.view(2, 2, 40) for key, part in padded.items()}
        # The double-headed class has no loss of this head alone.
        label = {} if "ForPreTraining" in type(theirs).__name__ else {"labels": right}
        answer = theirs(**padded, **label)
    expected = answer["logits" if label else "seq_relationship_logits"]
    assert (logits - expected).abs().max() < 1e-5
    if folder.task == "number":
        assert float((logits[:, 0] - right).square().mean()) == pytest.approx(float(answer.loss), abs=1e-5)
    elif label:
        total = cross_entropy_sum(logits, right, torch.ones(len(right)))
        assert float(total) / len(right) == pytest.approx(float(answer.loss), abs=1e-5)


def same_bits(theirs: Any, back: Any) -> None:
    bits, found = theirs.state_dict(), back.state_dict()
    assert bits.keys() == found.keys() and all(torch.equal(part, bits[key]) for key, part in found.items())


@pytest.mark.parametrize("name", list(ROWS))
def test_their_language_model_opens_here_and_goes_back(tmp_path: Path, name: str) -> None:
    row = ROWS[name]
    theirs = row.made("ForMaskedLM")
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    folder = read_folder(tmp_path / "theirs")
    assert folder.config == row.own(pooler=False, dense_head=True) and folder.task is None
    assert folder.card is None and folder.labels is None
    agree_on_tokens(build(folder), theirs)
    write(tmp_path / "ours", folder.config, folder.tensors)
    same_bits(theirs, opened(tmp_path / "ours", row.kind("ForMaskedLM")))
    assert read_folder(tmp_path / "ours").config == folder.config


@pytest.mark.parametrize("name", list(ROWS))
def test_our_language_model_opens_there(tmp_path: Path, name: str) -> None:
    row = ROWS[name]
    config = row.own(embedding_dropout=0.4)
    assert FAMILIES[config.family].expressible(config) is None
    tensors = random_of(config)
    write(tmp_path / "model", config, tensors)
    extra = (f"{row.prefix}pooler.",) if config.pooler else ()
    theirs = opened(tmp_path / "model", row.kind("ForMaskedLM"), extra)
    assert theirs.config.pad_token_id == PAD
    folder = read_folder(tmp_path / "model")
    assert folder.config == config and folder.tensors.keys() == tensors.keys() and not folder.dropped
    assert all(torch.equal(folder.tensors[key], part) for key, part in tensors.items())
    agree_on_tokens(build(folder), theirs)


@pytest.mark.parametrize("name", list(ROWS))
def test_a_body_alone_both_ways(tmp_path: Path, name: str) -> None:
    row = ROWS[name]
    theirs = row.made("Model")
    theirs.save_pretrained(tmp_path / "theirs")
    folder = read_folder(tmp_path / "theirs")
    ours = build(folder)
    assert folder.config == row.own(output_transform=False, output_bias=False)
    left_out = ("pooler.dense.bias", "pooler.dense.weight") if name == "roberta" else ()
    assert sorted(folder.dropped) == list(left_out)
    source, padded = batch(ours.config.segments)
    write(tmp_path / "ours", folder.config, folder.tensors)
    back, report = row.kind("Model").from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert set(report["missing_keys"]) == set(left_out) and not report["unexpected_keys"]
    with torch.no_grad():
        answer, states = theirs(**padded), ours(source)
        again = back.eval()(**padded).last_hidden_state
    seen = padded["attention_mask"].bool()
    assert (states[: source.offsets[-1]] - answer.last_hidden_state[seen]).abs().max() < 1e-5
    assert torch.equal(again, answer.last_hidden_state)
    if ours.config.pooler:
        assert (pooled(ours, states, source) - answer.pooler_output).abs().max() < 1e-5


@pytest.mark.parametrize("task", list(HEADS))
@pytest.mark.parametrize("name", list(ROWS))
def test_their_head_opens_here_and_goes_back(tmp_path: Path, name: str, task: Task) -> None:
    row, names = ROWS[name], LABELS[:2] if task == "classes" else ["LABEL_0"]
    ids = {} if task == "choices" else {"id2label": dict(enumerate(names))}
    theirs = row.made(HEADS[task], **ids)
    theirs.save_pretrained(tmp_path / "theirs")
    folder = read_folder(tmp_path / "theirs")
    assert folder.task == task and folder.labels == (names if task == "classes" else None)
    assert folder.config == row.own(output_transform=False, output_bias=False) and not folder.dropped
    agree_on_heads(folder, theirs)
    write(tmp_path / "ours", folder.config, folder.tensors, task, folder.labels)
    same_bits(theirs, opened(tmp_path / "ours", row.kind(HEADS[task])))
    assert read_folder(tmp_path / "ours").config == folder.config


@pytest.mark.parametrize("task", list(HEADS))
@pytest.mark.parametrize("changes", [{}, {"pooler": False, "dense_head": True}], ids=["", "own layer"])
@pytest.mark.parametrize("name", list(ROWS))
def test_our_head_opens_there(tmp_path: Path, name: str, changes: dict[str, Any], task: Task) -> None:
    """The vocabulary's part is kept beside it."""
    row, names = ROWS[name], LABELS[:2] if task == "classes" else None
    config = row.own(**changes)
    assert FAMILIES[config.family].expressible(config, ["sst"]) is None
    tensors = random_of(config, len(names or "1"))
    write(tmp_path / "model", config, tensors, task, names)
    theirs = opened(tmp_path / "model", row.kind(HEADS[task]), ("cls.predictions.", "lm_head."))
    folder = read_folder(tmp_path / "model")
    assert folder.config == config and folder.task == task and folder.labels == names
    assert folder.tensors.keys() == tensors.keys()
    assert all(torch.equal(folder.tensors[key], part) for key, part in tensors.items())
    agree_on_heads(folder, theirs)
    auto = transformers.AutoModelForSequenceClassification
    if task == "classes":
        assert list(auto.from_pretrained(tmp_path / "model").config.id2label.values()) == names


@pytest.mark.parametrize("kind", ["ForPreTraining", "ForNextSentencePrediction"])
def test_next_sentence_both_ways(tmp_path: Path, kind: str) -> None:
    row, both = ROWS["bert"], kind == "ForPreTraining"
    theirs = row.made(kind)
    theirs.save_pretrained(tmp_path / "theirs")
    folder = read_folder(tmp_path / "theirs")
    assert folder.task == "next" and folder.labels == ["next", "other"] and not folder.dropped
    assert folder.config == row.own(output_transform=both, output_bias=both)
    assert "heads.next_sentence.score.bias" in folder.tensors
    agree_on_heads(folder, theirs)
    if both:
        agree_on_tokens(build(folder), theirs)
    write(tmp_path / "ours", folder.config, folder.tensors, "next", folder.labels, "next_sentence")
    same_bits(theirs, opened(tmp_path / "ours", row.kind(kind)))
    again = read_folder(tmp_path / "ours")
    assert again.task == "next" and "heads.sst.score.weight" in again.tensors


def test_a_next_sentence_head_that_theirs_lacks_keeps_our_own_form(tmp_path: Path) -> None:
    config = ROWS["roberta"].own()
    tensors = random_of(config, 2)
    write(tmp_path / "model", config, tensors, "next", ["next", "other"], "next_sentence")
    assert json.loads((tmp_path / "model/config.json").read_text("utf-8"))["model_type"] == "gradus"
    folder = read_folder(tmp_path / "model")
    assert folder.task == "next" and folder.config == config and folder.labels == ["next", "other"]
