# ruff: noqa: E501  (one mistake a line: the table is read across)
"""A CRF from the user's side: trained, resumed, kept in a folder, passed on, and told about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from test_token_classification import changed, recipe
from tiny import killed_and_whole, lines

import gradus
from gradus.core.errors import UserError
from gradus.data.tags import as_wanted, entities, may_follow
from gradus.pipeline.models.serving import load, predict_file
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import make_plan
from gradus.pipeline.recipes.reading import read_recipe

pytestmark = pytest.mark.usefixtures("alone")

CRF = {"kind": "token_classification", "loss": "crf"}
LEGAL = CRF | {"transitions": "legal"}
SOFTMAX = {"kind": "token_classification", "transitions": "legal"}


def record_of(folder: Path, stage: str = "task") -> tuple[Path, dict[str, Any]]:
    (path,) = folder.glob(f"stages/{stage}-*/stage.json")
    return path.parent, json.loads(path.read_text())


@pytest.mark.parametrize(
    ("preset", "form", "objective"),
    [("bert-tiny", "words", CRF), ("gpt2-tiny", "entities", LEGAL), ("bert-tiny", "words", SOFTMAX)],
)
def test_predict_evaluate_and_the_run_agree(
    tmp_path: Path, preset: str, form: str, objective: dict[str, Any], command: Callable[..., tuple[int, str]]
) -> None:
    path = recipe(tmp_path, preset, form, objectives=[objective])
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    stage, record = record_of(folder)
    results, kept = record["results"]["test"], lines(stage / "predictions-test.jsonl")
    if "transitions" in objective:
        assert all(
            entities(tags) == as_wanted(tags, "bio") for tags in (one["predicted_tags"] for one in kept)
        )
        assert results["strict_f1"] == results["f1"]
    model, file = load(stage / "model", device="cpu"), next(tmp_path.glob("test.*"))
    told = model.evaluate(file)
    assert {name: told[name] for name in results} == pytest.approx(results, abs=1e-5)
    assert predict_file(model, file, tmp_path / "said.jsonl")["rows"] == len(kept)
    for said, line in zip(lines(tmp_path / "said.jsonl"), kept, strict=True):
        assert said["tags"] == line["predicted_tags"] and all(0 < one <= 1 for one in said["probabilities"])
    (scores,) = model.logits([model.tokenizer.encode("第9回说")])
    assert scores.shape == (6, 5) and scores.dtype == np.float32
    assert command("report", folder)[0] == 0
    shown = f"token_classification ({', '.join([*objective.values()][1:])})"
    assert shown in (folder / "report.html").read_text()

    config, card = (
        json.loads((stage / "model" / name).read_text()) for name in ("config.json", "gradus.json")
    )
    chained = objective.get("loss") == "crf"
    assert (config["model_type"] == "gradus") == chained == card["heads"]["task"].get("crf", False)
    tensors = load_file(stage / "model" / "model.safetensors")
    assert chained == any(name.endswith("transitions") for name in tensors)
    assert not any("barred" in name for name in tensors)
    status, said = command("check", path, "--runs", tmp_path / "other")
    assert status == 0 and ("Hugging Face tools cannot open the model folder: its" in said) == chained


def test_killed_and_started_again_it_has_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe(tmp_path, objectives=[LEGAL], save={"every": "2 steps"})
    changed(path, "preset: bert-tiny", "preset: bert-tiny\n  dropout: 0.2")
    whole, again = killed_and_whole(path, "task", monkeypatch)
    assert whole.read_bytes() == again.read_bytes()
    moved = load_file(whole)["heads.task.chain.transitions"].numpy() != 0
    assert np.array_equal(moved, may_follow(["O", "B-LOC", "I-LOC", "B-PER", "I-PER"], "bio")[:-1, :-1])


def test_a_head_passes_on_only_with_its_chain(tmp_path: Path) -> None:
    path = recipe(tmp_path, objectives=[CRF])
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    later = {"from": "task", **content["stages"]["task"], "length": "1 steps"}
    content["stages"] |= {
        "alike": later | {"objectives": [LEGAL]},
        "other": later | {"objectives": [SOFTMAX]},
    }
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    folder = gradus.run(path, runs=tmp_path / "runs", device="cpu")
    found = {}
    for stage in ("alike", "other"):
        table = record_of(folder, stage)[1]["transfer"]
        found[stage] = sorted(
            (one["tensor"].split(".", 2)[2], one["what"]) for one in table if "heads." in one["tensor"]
        )
    parts = ["chain.ends", "chain.starts", "chain.transitions", "score.bias", "score.weight"]
    # The heads of both are their own by name: what came from `task` is loaded or dropped, never lost.
    assert found["alike"] == [(part, "loaded") for part in parts]
    dropped = [(part, "dropped") for part in parts]
    assert found["other"] == sorted([*dropped, ("score.bias", "new"), ("score.weight", "new")])


def test_fingerprints_are_those_of_before(tmp_path: Path) -> None:
    """What a recipe that knows nothing of chains had; a default written out changes nothing."""
    path = recipe(tmp_path)

    def fingerprint() -> str:
        plan = make_plan(read_recipe(path), Material(tmp_path, tmp_path / "cache"))
        (node,) = plan.nodes.values()
        return node.fingerprint

    before = fingerprint()
    said = "kind: token_classification"
    changed(path, said, f"{said}\n      loss: cross_entropy\n      transitions: any")
    assert fingerprint() == before
    changed(path, "loss: cross_entropy", "loss: crf")
    assert fingerprint() != before


def test_a_damaged_chain_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = gradus.run(
        recipe(tmp_path, objectives=[CRF], length="1 steps"), runs=tmp_path / "runs", device="cpu"
    )
    file = record_of(folder)[0] / "model" / "model.safetensors"
    (file.parent / "MANIFEST.json").unlink()
    tensors = load_file(file)
    whole = tensors["heads.task.chain.transitions"]
    save_file(
        {**tensors, "heads.task.chain.transitions": whole[:, 1:].contiguous()},
        file,
        metadata={"format": "pt"},
    )
    with pytest.raises(UserError, match="the head has shape 5 x 4, not 5 x 5"):
        load(file.parent, device="cpu")
    del tensors["heads.task.chain.ends"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"the weights lack a head.*heads.task.chain.ends"):
        load(file.parent, device="cpu")


MISTAKES = {
    "loss": ("loss: crf", "loss: crff", r"objectives.0.loss: "),
    "transitions": ("loss: crf", "transitions: none", r"objectives.0.transitions: "),
    "all tokens": ("kind: words", "kind: words\n        pieces: all", r"data.format.pieces: with `loss: crf` each word has one tag, and here all of its tokens have: 'all' (first, or in a decoder last)"),
    "no scheme": ("loss: crf", "loss: crf\n      transitions: legal", r"objectives.0.transitions: the scheme none has no rules which tag may follow which: 'legal'"),
    "classes": ("kind: token_classification", "kind: classification", r"objectives.0.loss: "),
    "weights": ("kind: rows", "kind: rows\n      weights: balanced", r"data.weights: a CRF has one probability for all tags of a row, so no tag weighs more (leave it out"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told(tmp_path: Path, case: str, command: Callable[..., tuple[int, str]]) -> None:
    scheme = {"format": {"scheme": "none"}} if case == "no scheme" else {}
    path = recipe(tmp_path, objectives=[CRF], **scheme)
    old, new, told = MISTAKES[case]
    changed(path, old, new)
    status, said = command("check", path, "--runs", tmp_path / "runs")
    assert status == 2 and told in said, said
