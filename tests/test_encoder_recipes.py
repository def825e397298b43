"""Encoders from raw text to predictions: recipes on built-in data, what they refuse, real Chinese text."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import tiny

from gradus.cli import main
from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.data.builtin import builtin_rows
from gradus.pipeline.check import check
from gradus.pipeline.models.evaluating import evaluate_file
from gradus.pipeline.models.serving import load
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import make_plan
from gradus.pipeline.planning.prepare import prepare
from gradus.pipeline.recipes.reading import read_recipe
from gradus.pipeline.run import run

pytestmark = pytest.mark.usefixtures("alone")
ENCODER: dict[str, Any] = {
    "preset": "gpt1-tiny", "layers": 1, "width": 16, "heads": 2, "context": 40, "arrangement": "encoder",
    "segments": 2, "embedding_norm": True, "pooler": True, "output_transform": True, "output_bias": True,
    "dropout": 0.0, "initial_deviation": 0.1,
}  # fmt: skip
BERT: dict[str, Any] = {
    "model": ENCODER,
    "stages.pretrain.objectives": [{"kind": "masked_lm"}, {"kind": "next_sentence"}],
    "stages.pretrain.data.windows": "sentence_pairs",
    "stages.finetune.objectives": [{"kind": "classification"}],
    "stages.finetune.optimizer.lr": 1e-2,
    "stages.finetune.length": "80 steps",
}
TEXTS = ["the film in the town was very lovely .", "城里的电影非常糟糕。"]


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of BERT's two stages."""
    folder = tmp_path_factory.mktemp("bert")
    return run(tiny(folder / "bert.yaml", BERT), runs=folder / "runs")


def stage(folder: Path, name: str) -> Path:
    (found,) = (folder / "stages").glob(f"{name}-*")
    return found


def test_both_losses_fall_and_are_told(journey: Path) -> None:
    lines = [
        json.loads(line) for line in (stage(journey, "pretrain") / "metrics.jsonl").read_text().splitlines()
    ]
    train = [line["loss"]["masked_lm"] for line in lines if line["kind"] == "train"]
    assert train[-1] < train[0]
    record = json.loads((stage(journey, "pretrain") / "stage.json").read_text())
    dev = record["results"]["dev"]
    assert set(dev) == {"loss", "perplexity", "accuracy", "next_sentence.loss", "next_sentence.accuracy"}
    assert record["data"]["train"]["sentences"] == 40 * 25


def test_the_floor_of_hidden_tokens_names_the_same_ones(journey: Path, tmp_path: Path) -> None:
    """By counting: how often each token of train stands where dev hides one, roles aside."""
    file = read_recipe(journey / "recipe.yaml")
    material = Material(tmp_path, tmp_path)
    (node,) = (node for node in make_plan(file, material).nodes.values() if node.name == "pretrain")
    prepared = prepare(node, material)
    train, dev = (prepared.splits[name] for name in ("train", "dev"))
    roles = {prepared.tokenizer.role(name) for name in prepared.tokenizer.roles}
    assert train.store is not None
    known = Counter(token for token in train.store.read(0, train.store.total).tolist() if token not in roles)
    hidden: list[int] = []
    for index in range(len(dev.source)):
        key = keyed_generator("corrupt", "masked_lm", "evaluate", 0, index)
        example = prepared.objectives[0].corrupt(dev.source.example(index), key)
        assert example.chosen is not None
        hidden += example.chosen[1].tolist()
    total = sum(known.values()) + prepared.tokenizer.size
    nats = [-math.log((known[token] + 1) / total) for token in hidden]
    usual = max(sorted(known), key=lambda token: known[token])
    record = json.loads((stage(journey, "pretrain") / "stage.json").read_text())
    floor = record["floors"]["dev"]["unigram"]
    assert set(floor) == {"loss", "perplexity", "accuracy"}
    assert floor["loss"] == pytest.approx(np.mean(nats))
    assert floor["accuracy"] == pytest.approx(hidden.count(usual) / len(hidden)) and usual in hidden
    counted = record["results"]["dev"]["accuracy"] * len(hidden)
    assert counted == pytest.approx(round(counted))


def test_the_report_shows_the_floor_of_hidden_tokens(journey: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.argv", ["gradus", "report", str(journey)])
    main()
    line = next(line for line in capsys.readouterr().out.splitlines() if "unigram" in line)
    record = json.loads((stage(journey, "pretrain") / "stage.json").read_text())
    floor = record["floors"]["dev"]["unigram"]
    assert f"{100 * floor['accuracy']:.1f}" in line and f"{floor['loss']:.3f}" in line


def test_fine_tuning_reads_the_first_state_through_the_pooler(journey: Path) -> None:
    record = json.loads((stage(journey, "finetune") / "stage.json").read_text())
    assert record["results"]["dev"]["accuracy"] > 0.9
    moved = {one["tensor"]: one["what"] for one in record["transfer"]}
    assert moved["transformer.pooler.weight"] == "loaded"
    assert moved["heads.finetune.score.weight"] == "new"


def test_predict_and_logits_agree_with_each_other(journey: Path) -> None:
    model = load(stage(journey, "finetune") / "model")
    answers = list(model.predict(TEXTS))
    assert [answer["label"] for answer in answers] == ["positive", "negative"]
    encodings = model.tokenizer.encode_batch(TEXTS)
    assert encodings[0].tokens[0] == "<|start|>" and encodings[1].tokens[-1] == "<|end|>"
    for answer, logits in zip(answers, model.logits(encodings)):
        assert np.allclose(list(answer["scores"].values()), logits, atol=1e-5)
    with pytest.raises(UserError, match="sees a text from both sides"):
        model.generate("the film")


def test_evaluation_repeats_what_training_said(journey: Path) -> None:
    for name in ("pretrain", "finetune"):
        told = json.loads((stage(journey, name) / "stage.json").read_text())["results"]["dev"]
        found = evaluate_file(load(stage(journey, name) / "model"), "builtin:tiny", "dev")
        again = evaluate_file(load(stage(journey, name) / "model"), "builtin:tiny", "dev")
        assert found == again and "bits_per_byte" not in found
        for metric, value in told.items():
            assert found[metric] == pytest.approx(value, rel=2e-2), metric  # bf16 there, fp32 here


def test_a_language_model_folder_of_an_encoder_has_states_of_the_vocabulary(journey: Path) -> None:
    model = load(stage(journey, "pretrain") / "model")
    (logits,) = model.logits([model.tokens.encode([TEXTS[0]])[0].tolist()])
    assert logits.shape[1] == model.opened.folder.config.vocab_size
    settings = json.loads((stage(journey, "pretrain") / "model" / "tokenizer_config.json").read_text())
    assert settings["model_input_names"] == ["input_ids", "token_type_ids", "attention_mask"]
    with pytest.raises(UserError, match="sees a text from both sides"):
        model.score(TEXTS)


def test_other_tools_lay_out_a_pair_as_the_encoder_does(tmp_path: Path) -> None:
    changes = BERT | {
        "stages.pretrain.objectives": [{"kind": "masked_lm", "unit": "span", "draw": "static"}],
        "stages.pretrain.data.windows": "document",
        "stages.pretrain.length": "2 steps",
        "stages.finetune.data.format": {
            "kind": "pair",
            "first": "text",
            "second": "label_text",
            "label": "label",
        },
        "stages.finetune.length": "2 steps",
    }
    rows = "text\tlabel_text\tlabel\n" + "".join(f"你好{at}\tgood {at}\t{at % 2}\n" for at in range(8))
    (tmp_path / "rows.tsv").write_text(rows, encoding="utf-8")
    changes |= {"stages.finetune.data.train": "rows.tsv", "stages.finetune.data.dev": "rows.tsv"}
    folder = run(tiny(tmp_path / "pair.yaml", changes), runs=tmp_path / "runs")
    model = load(stage(folder, "finetune") / "model")
    row = {"text": "你好3", "label_text": "good 3"}
    (answer,) = model.predict([row])
    encoding = model.tokenizer.encode(*row.values())
    assert encoding.type_ids[0] == 0 and encoding.type_ids[-1] == 1
    (logits,) = model.logits([encoding])
    assert np.allclose(list(answer["scores"].values()), logits, atol=1e-5)
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(stage(folder, "finetune") / "model")(*row.values())
    assert theirs["input_ids"] == encoding.ids and theirs["token_type_ids"] == encoding.type_ids


@pytest.mark.parametrize("unit", ["token", "word"])
def test_sentence_order_pretrains(unit: str, tmp_path: Path) -> None:
    changes = BERT | {
        "stages.pretrain.objectives": [{"kind": "masked_lm", "unit": unit}, {"kind": "sentence_order"}],
        "stages.pretrain.data.windows": "sentence_order",
        "stages.pretrain.length": "3 steps",
        "stages.finetune.length": "2 steps",
    }
    folder = run(tiny(tmp_path / "albert.yaml", changes), runs=tmp_path / "runs")
    card = json.loads((stage(folder, "pretrain") / "model" / "gradus.json").read_text())
    head = {"objective": "sentence_order", "labels": ["in order", "swapped"], "bias": True}
    assert card["heads"] == {"pretrain": head} and card["windows"] == "sentence_order"


def test_next_sentence_alone_is_judged_by_its_accuracy(tmp_path: Path) -> None:
    changes = BERT | {"stages.pretrain.objectives": [{"kind": "next_sentence"}],
                      "stages.pretrain.stop": {"metric": "accuracy"}, "stages.pretrain.length": "3 steps",
                      "stages.finetune.length": "2 steps"}  # fmt: skip
    folder = run(tiny(tmp_path / "alone.yaml", changes), runs=tmp_path / "runs")
    record = json.loads((stage(folder, "pretrain") / "stage.json").read_text())
    assert 0 <= record["results"]["dev"]["accuracy"] <= 1
    assert "accuracy" in evaluate_file(load(stage(folder, "pretrain") / "model"), "builtin:tiny", "dev")


REFUSED = {
    "windows without pairs": (
        {"stages.pretrain.data.windows": "contiguous"},
        "pretrain.data.windows.*next_sentence reads the label of another kind.*windows: sentence_pairs"),
    "the other windows": (
        {"stages.pretrain.data.windows": "sentence_order"}, "next_sentence reads the label of another kind"),
    "rows": (
        {"stages.finetune.objectives": [{"kind": "next_sentence"}]}, "reads the label of windows of text"),
    "sentences of plain windows": (
        {"stages.pretrain.data.windows": "document", "stages.pretrain.data.sentences": "lines",
         "stages.pretrain.objectives": [{"kind": "masked_lm"}]}, "not made of sentences"),
    "bits per byte": (
        {"stages.pretrain.stop": {"metric": "bits_per_byte"}}, "no such metric"),
    "no such unit": (
        {"stages.pretrain.objectives": [{"kind": "masked_lm", "unit": "letter"}]}, "unit"),
    "more than all": (
        {"stages.pretrain.objectives": [{"kind": "masked_lm", "random": 0.5}]}, "more than all of the chos"),
    "a context too short": ({"model": ENCODER | {"context": 4}}, "no room for two segments"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_is_refused_before_the_first_step(name: str, tmp_path: Path) -> None:
    patch, told = REFUSED[name]
    with pytest.raises(UserError) as mistake:
        check(tiny(tmp_path / "bad.yaml", BERT | patch), runs=tmp_path / "runs")
    assert re.search(told, str(mistake.value), re.DOTALL), str(mistake.value)


def test_documents_of_one_sentence_are_told(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(
        "他走了。\n她也走了。\n\n一句。\n\nOne.\nTwo.\nThree.\n" * 4, encoding="utf-8"
    )
    changes = {"stages.pretrain.data.train": "text.txt", "stages.pretrain.data.documents": "blank line",
               "stages.pretrain.data.dev": None}  # fmt: skip
    notes = check(tiny(tmp_path / "one.yaml", BERT | changes), runs=tmp_path / "runs").notes
    assert any("have one sentence and begin no pair" in note for note in notes)


@pytest.mark.data
def test_real_chinese_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLUECorpusSmall: one sentence a line, blank lines between documents."""
    root = DATA
    if root is None or not (Path(root) / "LM_zh_CLUECorpusSmall").is_dir():
        pytest.skip("GRADUS_DATA names no folder of public data sets")
    recipe = {
        "tokenizer": {"kind": "char"}, "model": {**ENCODER, "context": 128},
        "stages": {"pretrain": {
            "data": {"kind": "text", "train": "LM_zh_CLUECorpusSmall/*.txt", "dev": "5 %",
                     "documents": "blank line", "windows": "sentence_pairs"},
            "objectives": [{"kind": "masked_lm", "unit": "word"}, {"kind": "next_sentence"}],
            "length": "1 epoch"}},
    }  # fmt: skip
    (tmp_path / "clue.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    material = Material(Path(root), tmp_path / "cache")
    (node,) = make_plan(read_recipe(tmp_path / "clue.yaml"), material).nodes.values()
    prepared = prepare(node, material)
    counts = prepared.splits["train"].counts
    assert counts["documents"] > 500 and counts["sentences"] > 3 * counts["documents"]
    assert counts["documents_of_one_sentence"] < counts["documents"] / 2
    masked, source = prepared.objectives[0], prepared.train
    share, labels = [], []
    for index in range(0, len(source), 7):
        example = source.example(index)
        hidden = masked.corrupt(example, np.random.default_rng(index))
        share.append(len(hidden.chosen[0]) / (len(example.sequences[0]) - 3))
        labels.append(example.label)
        assert len(example.sequences[0]) <= 128
    assert abs(np.mean(share) - 0.15) < 0.01 and abs(np.mean(labels) - 0.5) < 0.1


DATA = os.environ.get("GRADUS_DATA")
"""Read before a test takes it away."""


@pytest.mark.parametrize("windows", ["sentence_pairs", "sentence_order"])
def test_windows_whose_label_nobody_reads_are_refused(windows: str, tmp_path: Path) -> None:
    """Half of them join texts that do not belong together: a decoder would learn to go on wrongly."""
    reader = {"sentence_pairs": "next_sentence", "sentence_order": "sentence_order"}[windows]
    path = tiny(tmp_path / "recipe.yaml", {"stages.pretrain.data.windows": windows})
    with pytest.raises(UserError, match=rf"no objective reads the label of these windows.*{reader}"):
        check(path, runs=tmp_path / "runs", device="cpu")


def test_rows_whose_tokens_are_hidden_have_a_floor_and_are_evaluated(tmp_path: Path, capsys: Any) -> None:
    """Rows without labels: a domain's own texts. `predict` has nothing to say of them, and says so."""
    patch = {"model": ENCODER, "stages.pretrain.objectives": [{"kind": "masked_lm"}],
             "stages.pretrain.length": "2 steps", "stages.finetune.objectives": [{"kind": "masked_lm"}],
             "stages.finetune.data.format": {"kind": "single", "text": "text"},
             "stages.finetune.precision": "fp32", "stages.finetune.stop": {"metric": "accuracy"}}  # fmt: skip
    folder = run(tiny(tmp_path / "rows.yaml", patch), runs=tmp_path / "runs", device="cpu")
    record = json.loads((stage(folder, "finetune") / "stage.json").read_text())
    assert set(record["floors"]["dev"]["unigram"]) == {"loss", "perplexity", "accuracy"}
    assert record["training"]["metric"] == "accuracy"
    model = load(folder, device="cpu")
    found = evaluate_file(model, "builtin:tiny", "dev")
    for metric, value in record["results"]["dev"].items():
        assert found[metric] == pytest.approx(value, rel=1e-5), metric
    with pytest.raises(UserError, match=r"it names hidden tokens \(`gradus evaluate` fits it\)"):
        model.predict(TEXTS)


def test_a_bert_of_other_tools_is_evaluated_as_they_would(tmp_path: Path) -> None:
    """One window of Chinese, the same tokens hidden: loss and accuracy from transformers' logits."""
    transformers = pytest.importorskip("transformers")
    text = "城里的电影非常糟糕。今天天气很好，我们去看书。"
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(text)]
    (tmp_path / "vocab.txt").write_text("\n".join(known), encoding="utf-8")
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    shape = transformers.BertConfig(
        vocab_size=len(known), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=40, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(1)
    theirs = transformers.BertForMaskedLM(shape).eval()
    theirs.save_pretrained(tmp_path / "bert")
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    model = load(tmp_path / "bert", device="cpu")
    found = evaluate_file(model, str(tmp_path / "text.txt"))
    ids = np.array([2, *(known.index(one) for one in text), 3])
    key = keyed_generator("corrupt", "masked_lm", "evaluate", 0, 0)
    hidden = model.opened.learner.objectives[0].corrupt(Example(0, (ids,)), key)
    assert hidden.chosen is not None and found["tokens"] >= len(text)
    places, truth = (torch.from_numpy(part.astype(np.int64)) for part in hidden.chosen)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(hidden.sequences[0])[None]).logits[0, places]
    assert found["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, truth)), rel=1e-4)
    assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == truth).double().mean()))


def test_a_class_is_judged_on_the_whole_row_though_another_objective_hides_tokens(tmp_path: Path) -> None:
    both = [{"kind": "classification"}, {"kind": "masked_lm", "share": 0.5}]
    patch = {"model.arrangement": "encoder", "stages.pretrain.objectives": [{"kind": "masked_lm"}],
             "stages.finetune.objectives": both, "stages.finetune.precision": "fp32"}  # fmt: skip
    folder = run(tiny(tmp_path / "one.yaml", patch), runs=tmp_path / "runs", device="cpu")
    (stage,) = (folder / "stages").glob("finetune-*")
    lines = [json.loads(line) for line in (stage / "predictions-dev.jsonl").read_text("utf-8").splitlines()]
    rows = builtin_rows("tiny", "dev")
    said = list(load(stage / "model", device="cpu").predict([{"text": row.fields["text"]} for row in rows]))
    for line, answer in zip(lines, said):
        assert line["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-6)
    dev = json.loads((stage / "stage.json").read_text())["results"]["dev"]
    assert dev["masked_lm.loss"] > 0 and 0 <= dev["masked_lm.accuracy"] <= 1
