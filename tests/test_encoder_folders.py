"""BERT and RoBERTa beside parity: presets as large as their class and the paper, what is refused and why, the
files of the first release, and a run that starts from a folder of transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import LABELS, ROLES, ROWS, random_of, write
from safetensors.torch import load_file, save_file
from tiny import tiny

import gradus
from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.families import FAMILIES, fitted, preset
from gradus.families.folder import read_folder
from gradus.families.heads import Task
from gradus.nn.transformer import count_parameters
from gradus.objectives import ClassificationConfig, MultipleChoiceConfig, RegressionConfig
from gradus.pipeline.run import run
from gradus.tokenizers import Tokenizer

transformers = pytest.importorskip("transformers")


# BERT, section 3, and Turc et al. 2019, table 1: parameters in millions. RoBERTa, section 5, and fairseq.
PAPER = {
    "bert": "1.1e+02", "bert-large": "3.4e+02", "bert-medium": "41.7", "bert-small": "29.1",
    "bert-mini": "11.3", "bert-tiny": "4.4", "roberta": "125", "roberta-large": "355",
}  # fmt: skip
VOCABULARY = {"bert": 30_522, "roberta": 50_265}
PRESETS = [name for family in VOCABULARY for name in FAMILIES[family].PRESETS]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_as_large_as_their_class_and_the_paper(name: str) -> None:
    family = str(preset(name)["family"])
    config = ModelConfig.model_validate({"vocab_size": VOCABULARY[family]} | preset(name))
    task: Task | None = "next" if family == "bert" else None
    assert FAMILIES[family].expressible(config, ["next"] if task else []) is None
    content = FAMILIES[family].to_config_json(config, None, ROLES, task)
    assert content["architectures"] == ["BertForPreTraining" if task else "RobertaForMaskedLM"]
    with torch.device("meta"):
        made = transformers.AutoConfig.for_model(**content)
        theirs = getattr(transformers, content["architectures"][0])(made)
    count = count_parameters(config) + (2 * config.width + 2 if task else 0)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count
    if name in PAPER:
        digits = PAPER[name].split("e")[0].replace(".", "")
        assert f"{count / 1e6:.{len(digits)}g}" == PAPER[name]


WHY: tuple[tuple[dict[str, Any], str], ...] = (
    ({"norm": "before"}, "layer norm after each branch, not before"),
    ({"norm_kind": "rms"}, "layer norm, not rms"),
    ({"positions": "rotary"}, "learned positions, not rotary"),
    ({"positions": "relative"}, "learned positions, not relative"),
    ({"kv_heads": 2}, "each head, not for 2"),
    ({"head_width": 16}, "width / heads channels"),
    ({"gated": True}, "gated"),
    ({"biases": False}, "biases"),
    ({"attention_scale": False}, "attention_scale"),
    ({"embedding_norm": False}, "embedding_norm"),
    ({"arrangement": "decoder"}, "arrangement"),
    ({"tie_embeddings": False}, "tie_embeddings"),
    ({"output_scale": True}, "output_scale"),
    ({"output_transform": False}, "both, or neither"),
    ({"segments": 0}, "segments"),
    ({"tuned_width": 16}, "tuned width"),
    ({"pooler": True, "dense_head": True}, "dense_head"),
    ({"pooler": False, "dense_head": False}, "dense_head"),
)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_what_theirs_cannot_hold_is_said(name: str) -> None:
    expressible = FAMILIES[name].expressible
    for changes, why in WHY:
        assert why in str(expressible(ROWS[name].own(**changes), ["nli"])), changes
    assert "one head" in str(expressible(ROWS[name].own(), ["a", "b"]))
    assert expressible(ROWS[name].own(relative_buckets=16, feed_forward_dropout=0.5)) is None
    assert "position_offset" in str(
        expressible(ROWS[name].own(position_offset=0 if name == "roberta" else 2))
    )
    activation = "gelu_tanh" if name == "roberta" else None
    assert activation is None or "activations" in str(expressible(ROWS[name].own(activation=activation)))
    assert "with bias" in str(FAMILIES[name].TABLE.obstacle("classes", False))


def test_heads_have_a_bias_where_theirs_have() -> None:
    for kind, decoder in {
        ClassificationConfig: False,
        RegressionConfig: False,
        MultipleChoiceConfig: True,
    }.items():
        assert kind().biased(ROWS["bert"].own()) and kind().biased(ModelConfig()) is decoder
        assert not kind(bias=False).biased(ROWS["bert"].own())


def test_positions_of_a_new_roberta_begin_behind_its_padding() -> None:
    assert fitted(ROWS["roberta"].own(), 0).position_offset == 1
    assert fitted(ROWS["roberta"].own(), None).position_offset == 2
    assert fitted(ROWS["bert"].own(), 0) == ROWS["bert"].own()


def tensor(name: str, shape: tuple[int, ...] | None) -> Any:
    """Puts a tensor of zeros into a folder's weights, or takes it out."""

    def change(path: Path) -> None:
        weights = load_file(path / "model.safetensors")
        weights.pop(name, None)
        added = {} if shape is None else {name: torch.zeros(shape)}
        save_file(weights | added, path / "model.safetensors")

    return change


def said(**changes: Any) -> Any:
    """Changes what config.json says."""

    def change(path: Path) -> None:
        content = json.loads((path / "config.json").read_text("utf-8"))
        (path / "config.json").write_text(json.dumps(content | changes), encoding="utf-8")

    return change


LAYER = "bert.encoder.layer.1.attention.self"
BAD = {
    "positions": ("bert", said(position_embedding_type="relative_key"), "embedding_type: .*'relative_key'"),
    "activation": ("bert", said(hidden_act="mish"), "hidden_act: .*'mish' .one of gelu, "),
    "decoder": ("bert", said(is_decoder=True), "is_decoder: this is not supported: 'True'"),
    "crosses": ("bert", said(add_cross_attention=True), "add_cross_attention: this is not"),
    "untied": ("bert", said(tie_word_embeddings=False), "tie_word_embeddings: this is not"),
    "numbers": ("bert", said(problem_type="regression"), "problem_type: .*'regression' .one number a row"),
    "segments": ("bert", said(type_vocab_size=4), "shape 2 x 32, not 4 x 32.*token_type_embeddings"),
    "layers": ("bert", said(num_hidden_layers="many"), "num_hidden_layers: these numbers make no model"),
    "head layer": ("bert", said(dense_head="yes, please"), "config.json: dense_head: these numbers make no"),
    "query": ("bert", tensor(f"{LAYER}.query.weight", None), f"lack a tensor: '{LAYER}.query.weight'"),
    "unknown": ("bert", tensor("bert.encoder.relative", (3, 3)), "no such tensor: 'bert.encoder.relative'"),
    "bias": ("bert", tensor("cls.predictions.decoder.bias", (61,)), "tied but differs from cls.predictions"),
    "head": ("bert", tensor("classifier.bias", None), "lack a tensor: 'classifier.bias'"),
    "wide": ("bert", tensor("classifier.weight", (2, 31)), "2 x 31, not 2 x 32.*classifier.weight"),
    "two heads": ("bert", tensor("cls.seq_relationship.weight", (2, 32)), "no place for a tensor: 'cls.seq_"),
    "padding": ("roberta", said(pad_token_id=None), "pad_token_id: this should be a token's id"),
    "long": ("roberta", said(max_position_embeddings=60), "shape 42 x 32, not 60 x 32.*position_embeddings"),
    "short": ("roberta", said(max_position_embeddings=2), "max_position_embeddings: these numbers make no"),
    "gelu": ("roberta", said(hidden_act="gelu_new"), "hidden_act: .*'gelu_new'"),
    "dense": ("roberta", tensor("classifier.dense.bias", None), "lack a tensor: 'classifier.dense.bias'"),
    "square": ("roberta", tensor("classifier.dense.weight", (32, 31)), "32 x 31, not 32 x 32.*classifier"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_folder_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    name, change, message = BAD[case]
    config = ROWS[name].own()
    write(tmp_path / "model", config, random_of(config, 2), "classes", LABELS[:2])
    (tmp_path / "model/MANIFEST.json").unlink()
    change(tmp_path / "model")
    with pytest.raises(UserError, match=message) as caught:
        read_folder(tmp_path / "model")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_the_names_of_the_first_released_files_are_read(tmp_path: Path) -> None:
    config = ROWS["bert"].own()
    tensors = random_of(config, 2)
    write(tmp_path / "model", config, tensors, "next", None, "next_sentence")
    (tmp_path / "model/MANIFEST.json").unlink()
    weights = load_file(tmp_path / "model/model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): part
        for name, part in weights.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(40)[None]
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"].clone()
    save_file(old, tmp_path / "model/model.safetensors")
    folder = read_folder(tmp_path / "model")
    assert set(folder.dropped) == {"bert.embeddings.position_ids", "cls.predictions.decoder.weight"}
    assert all(torch.equal(folder.tensors[key], part) for key, part in tensors.items())


ENCODER = {"stages.finetune.objectives": [{"kind": "classification"}], "stages.finetune.length": "4 steps"}
SENTENCES = ["a good day", "这本书好"]


def tuned(folder: Path, name: str, **patch: Any) -> Path:
    """The model folder of a run that teaches a classifier: from scratch, or with `start` from that folder."""
    start = patch.pop("start", None)
    changes = ENCODER | {"stages.finetune.from": {"folder": str(start)} if start else "scratch"} | patch
    recipe = tiny(folder / f"{name}.yaml", changes)
    done = run(recipe, runs=folder / "runs", device="cpu", until="finetune")
    return next((done / "stages").glob("finetune-*")) / "model"


def says_the_same(model: Path) -> None:
    """Their pipeline and our `predict`."""
    theirs = transformers.pipeline("text-classification", model=str(model), top_k=None, device="cpu")
    found = gradus.load(model).predict([{"text": text} for text in SENTENCES])
    for ours, answer in zip(found, theirs(SENTENCES), strict=True):
        for one in answer:
            assert ours["probabilities"][one["label"]] == pytest.approx(one["score"], abs=1e-5)


@pytest.mark.parametrize("name", ["bert-tiny", "roberta-mini"])
def test_a_classifier_opens_in_their_pipeline(tmp_path: Path, name: str) -> None:
    model = tuned(tmp_path, name, **{"model.preset": name})
    content = json.loads((model / "config.json").read_text("utf-8"))
    assert content["architectures"][0].endswith("ForSequenceClassification")
    assert content["pad_token_id"] == 0
    says_the_same(model)


@pytest.mark.parametrize("name", ["bart-mini", "t5-mini"])
def test_a_classifier_on_an_encoder_decoder_opens_in_their_pipeline(tmp_path: Path, name: str) -> None:
    model = tuned(tmp_path, name, **{"model.preset": name})
    content = json.loads((model / "config.json").read_text("utf-8"))
    assert content["architectures"][0].endswith("ForSequenceClassification")
    says_the_same(model)
    ours, tokenizer = gradus.load(model), transformers.AutoTokenizer.from_pretrained(model)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    ids = tokenizer(SENTENCES[0]).input_ids
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    assert ours.logits([ids])[0] == pytest.approx(expected, abs=1e-5)


def test_a_classifier_from_a_masked_language_model_of_theirs(tmp_path: Path) -> None:
    """Its files hold no pooler: the head brings one, and their classifier finds it where it looks."""
    made = tuned(tmp_path, "first", **{"model.preset": "bert-tiny"})
    size = json.loads((made / "config.json").read_text("utf-8"))["vocab_size"]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=size, pad_token_id=0, **sizes))
    theirs.save_pretrained(tmp_path / "theirs")
    Tokenizer.load(made).save(tmp_path / "theirs")
    model = tuned(tmp_path, "second", start=tmp_path / "theirs")
    transferred = json.loads((model.parent / "stage.json").read_text("utf-8"))["transfer"]
    assert {one["tensor"] for one in transferred if one["what"] != "loaded"} == {
        f"heads.finetune.{part}.{kind}" for part in ("dense", "score") for kind in ("weight", "bias")
    }
    assert "bert.pooler.dense.weight" in load_file(model / "model.safetensors")
    says_the_same(model)
