"""Law 8 from the user's side: what a run leaves opens offline in transformers and says the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny

import gradus
from gradus.pipeline.run import run

TEXTS = [
    "a good day, and a better evening",
    "这本书很好，我很喜欢。" * 8,
    "<|end|> is text here, <|extract|> too",
    "x",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model folders of a finished run, by stage."""
    folder = tmp_path_factory.mktemp("models")
    patch = {
        "model.layers": 2,
        "model.width": 32,
        "stages.pretrain.length": "30 steps",
        "stages.finetune.length": "30 steps",
    }
    done = run(tiny(folder / "tiny.yaml", patch), runs=folder / "runs", device="cpu")
    return {path.name.split("-")[0]: path / "model" for path in (done / "stages").iterdir()}


def test_the_language_model_has_the_same_logits(models: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(models["pretrain"]).eval()
    assert type(theirs).__name__ == "OpenAIGPTLMHeadModel"
    ours = gradus.load(models["pretrain"])
    for ids in ([7, 30, 200, 11], list(range(20, 50))):
        expected = theirs(torch.tensor([ids])).logits[0].detach().numpy()
        assert np.abs(ours.logits([ids])[0] - expected).max() < 1e-4


def test_greedy_text_is_the_same(models: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(models["pretrain"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(models["pretrain"])
    ours = gradus.load(models["pretrain"])
    for prompt in ("The day", "今天"):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        said = theirs.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        assert ours.generate(prompt, tokens=12, temperature=0) == tokenizer.decode(
            said, skip_special_tokens=True
        )


def test_the_classifier_has_the_same_logits_on_its_own_tokens(models: dict[str, Path]) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = AutoModelForSequenceClassification.from_pretrained(models["finetune"]).eval()
    assert type(theirs).__name__ == "OpenAIGPTForSequenceClassification"
    tokenizer = AutoTokenizer.from_pretrained(models["finetune"])
    ours = gradus.load(models["finetune"])
    for text, answer in zip(TEXTS, ours.predict([{"text": text} for text in TEXTS])):
        encoded = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        expected = theirs(**encoded).logits[0].detach().numpy()
        found = np.array([answer["scores"][label] for label in theirs.config.label2id])
        assert np.abs(found - expected).max() < 1e-4, text


def test_the_pipeline_says_what_predict_says(models: dict[str, Path]) -> None:
    from transformers import pipeline

    theirs = pipeline(
        "text-classification", model=str(models["finetune"]), device="cpu", truncation=True, top_k=None
    )
    ours = gradus.load(models["finetune"])
    for expected, answer in zip(
        theirs(TEXTS, batch_size=1), ours.predict([{"text": text} for text in TEXTS])
    ):
        for entry in expected:
            assert answer["probabilities"][entry["label"]] == pytest.approx(entry["score"], abs=1e-4)


def test_batches_with_padding_say_the_same(models: dict[str, Path]) -> None:
    from transformers import pipeline

    theirs = pipeline(
        "text-classification", model=str(models["finetune"]), device="cpu", truncation=True, top_k=None
    )
    alone, together = theirs(TEXTS, batch_size=1), theirs(TEXTS, batch_size=4)
    for a, b in zip(alone, together):
        for one, two in zip(a, b):
            assert one["label"] == two["label"] and one["score"] == pytest.approx(two["score"], abs=1e-4)


def test_a_stage_starts_from_their_folder(models: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = tmp_path / "theirs"
    AutoModelForCausalLM.from_pretrained(models["pretrain"]).save_pretrained(theirs)
    AutoTokenizer.from_pretrained(models["pretrain"]).save_pretrained(theirs)
    recipe = tmp_path / "start.yaml"
    recipe.write_text(
        "stages:\n"
        "  finetune:\n"
        f"    from: {{folder: {theirs}}}\n"
        "    data:\n"
        '      {kind: rows, train: "builtin:tiny", dev: "builtin:tiny",\n'
        "      format: {kind: single, text: text, label: label}}\n"
        "    objectives: [{kind: classification}]\n"
        "    length: 2 steps\n"
    )
    folder = run(recipe, runs=tmp_path / "runs", device="cpu")
    record = json.loads(next((folder / "stages").glob("*/stage.json")).read_text())
    what = [moved["what"] for moved in record["transfer"]]
    assert what.count("new") == 1 and set(what) == {"new", "loaded"}
