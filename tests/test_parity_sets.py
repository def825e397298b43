"""Law 8 for classifiers with any number of labels: of every family the folder opens in transformers with the
same logits and loss, and what transformers writes opens here with the same bits and says the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from test_every_family import FAMILIES
from test_label_sets import NAMES, marks, recipe, row

import gradus
from gradus.families.folder import read_folder
from gradus.pipeline.models.serving import load

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.parametrize("preset", FAMILIES)
def test_both_ways(tmp_path: Path, preset: str) -> None:
    path = recipe(tmp_path, preset)
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").iterdir()
    model, wanted = load(stage / "model", device="cpu"), marks([row(number)[1] for number in range(200, 216)])
    theirs, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        stage / "model", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["mismatched_keys"]
    assert theirs.config.problem_type == "multi_label_classification"
    assert [theirs.config.id2label[place] for place in range(3)] == NAMES
    losses = []
    for number, labels in zip(range(200, 216), wanted):
        ids = model.tokenizer.encode(row(number)[0])
        with torch.no_grad():
            answer = theirs.eval()(torch.tensor([ids.ids]), labels=torch.from_numpy(labels)[None].float())
        assert model.logits([ids])[0] == pytest.approx(answer.logits[0].numpy(), abs=1e-5)
        losses.append(answer.loss.item())
    mean = sum(losses) / len(losses)
    assert model.evaluate(tmp_path / "test.jsonl")["loss"] == pytest.approx(mean, rel=1e-5)

    theirs.save_pretrained(tmp_path / "theirs")
    for file in (stage / "model").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "theirs")
    found, own = read_folder(tmp_path / "theirs"), read_folder(stage / "model")
    assert found.task == "sets" and found.labels == NAMES and found.card is None
    back = {
        name.replace("heads.classification.", "heads.topics."): part for name, part in found.tensors.items()
    }
    assert back.keys() <= own.tensors.keys()
    assert all(torch.equal(part, own.tensors[name]) for name, part in back.items())
    again = load(tmp_path / "theirs", device="cpu", recipe=path, stage="topics")
    assert again.evaluate(tmp_path / "test.jsonl")["loss"] == pytest.approx(mean, rel=1e-5)
