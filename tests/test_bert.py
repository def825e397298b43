"""Law 8 for encoders: BERT's and RoBERTa's folders open in transformers and theirs open here, with the same
logits of every head and the same loss; every preset is as large as their class of that shape.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradus.core.errors import UserError
from gradus.core.example import Ragged, ragged
from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder
from gradus.families import FAMILIES, fitted, preset
from gradus.families.folder import ModelFolder, read_folder, shapes, write_folder
from gradus.families.heads import Task
from gradus.nn.heads import LinearHead
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer, count_parameters

transformers = pytest.importorskip("transformers")

LABELS = ["差评", "中立", "好评"]
PAD, MASK = 1, 4
ROLES = {"pad": PAD, "start": 0, "end": 2}
LENGTHS = (9, 40, 2, 23)
SHAPE: dict[str, Any] = {"layers": 3, "width": 32, "heads": 4, "context": 40, "vocab_size": 61}
SIZES = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 48, "pad_token_id": PAD,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A preset of ours, with `ours` changed, and the classes of theirs that `theirs` configures."""

    preset: str
    names: str
    theirs: dict[str, Any]
    ours: dict[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        return f"{self.names.lower()}."

    def own(self, **changes: Any) -> ModelConfig:
        return ModelConfig.model_validate(
            preset(self.preset) | SHAPE | {"feed_forward": 48} | self.ours | changes
        )

    def kind(self, name: str) -> Any:
        return getattr(transformers, f"{self.names}{name}")

    def made(self, name: str, **changes: Any) -> Any:
        """A random model of theirs; gains and biases are random, too."""
        model = self.kind(name)(self.kind("Config")(**SIZES, **self.theirs, **changes))
        torch.manual_seed(3)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.normal_(1.0 if "norm.weight" in key.lower() else 0.0, 0.15)
        return model.eval()


ROWS = {
    "bert": Row("bert-mini", "Bert", {"max_position_embeddings": 40}),
    "bert relu": Row(
        "bert-mini", "Bert",
        {"max_position_embeddings": 40, "hidden_act": "relu", "layer_norm_eps": 1e-3, "type_vocab_size": 3}
        | {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3},
        {"activation": "relu", "norm_epsilon": 1e-3, "segments": 3, "dropout": 0.2, "attention_dropout": 0.3},
    ),
    "roberta": Row(
        "roberta-mini", "Roberta",
        {"max_position_embeddings": 42, "layer_norm_eps": 1e-5, "type_vocab_size": 1},
    ),
}  # fmt: skip
HEADS: dict[Task, str] = {
    "classes": "ForSequenceClassification",
    "number": "ForSequenceClassification",
    "choices": "ForMultipleChoice",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_of(config: ModelConfig, outputs: int = 0) -> dict[str, Tensor]:
    """Random tensors of ours, by name, and with `outputs` those of a head."""
    wanted = dict(shapes(config))
    if outputs:
        head = LinearHead(config.width, outputs, bias=True, dense=config.dense_head)
        wanted |= {f"heads.sst.{name}": tuple(part.shape) for name, part in head.named_parameters()}
    random, tensors = torch.Generator().manual_seed(5), {}
    for name, shape in wanted.items():
        centre = 1.0 if "norm.weight" in name else 0.0
        tensors[name] = torch.empty(shape).normal_(centre, 0.15, generator=random)
    return tensors


def write(
    path: Path,
    config: ModelConfig,
    tensors: dict[str, Tensor],
    task: Task | None = None,
    labels: list[str] | None = None,
    objective: str = "classification",
) -> None:
    card = {"format_version": 1, "heads": {"sst": {"objective": objective}} if task else {}}
    with new_folder(path) as folder:
        write_folder(
            folder, config, tensors, card, lambda path: None,
            labels=labels, task=None if task == "next" else task, roles=ROLES,
        )  # fmt: skip


def build(folder: ModelFolder) -> Transformer:
    built = Transformer(folder.config).eval()
    built.load_state_dict({name: part for name, part in folder.tensors.items() if name[:5] != "heads"})
    return built


def head_of(folder: ModelFolder) -> LinearHead:
    parts = {name.split(".", 2)[2]: part for name, part in folder.tensors.items() if name[:5] == "heads"}
    outputs = len(parts["score.weight"])
    head = LinearHead(folder.config.width, outputs, bias=True, dense=folder.config.dense_head)
    head.load_state_dict(parts)
    return head.eval()


def opened(path: Path, kind: Any, unexpected: tuple[str, ...] = ()) -> Any:
    """Their model of a folder; nothing may be missing or misshapen, and only what begins so unexpected."""
    model, report = kind.from_pretrained(path, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    assert all(name.startswith(unexpected) for name in report["unexpected_keys"] if unexpected), report
    assert bool(report["unexpected_keys"]) == bool(unexpected), report
    return model.eval()


def batch(segments: int = 2) -> tuple[Ragged, dict[str, Tensor]]:
    """Rows of different lengths: ours end to end, theirs padded."""
    random = np.random.default_rng(0)
    rows = [random.integers(5, SHAPE["vocab_size"], length) for length in LENGTHS]
    types = [(np.arange(length) * segments // (length + 1)).astype(np.int64) for length in LENGTHS]
    tokens, belongs = (torch.full((len(rows), 40), fill) for fill in (PAD, 0))
    seen = torch.zeros(len(rows), 40, dtype=torch.int64)
    for at, (row, kind) in enumerate(zip(rows, types)):
        tokens[at, : len(row)], belongs[at, : len(row)] = torch.from_numpy(row), torch.from_numpy(kind)
        seen[at, : len(row)] = 1
    padded = {"input_ids": tokens, "attention_mask": seen, "token_type_ids": belongs}
    return ragged(rows, segments=types if segments > 1 else ()), padded


def pooled(ours: Transformer, states: Tensor, source: Ragged) -> Tensor:
    return ours.pooled(states[torch.from_numpy(source.offsets[:-1])])


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
    ({"tuned_width": 16}, "tuned_width"),
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
    "tags": ("bert", said(architectures=["BertForTokenClassification"]), "architectures: .*'BertForToken"),
    "spans": ("bert", said(architectures=["BertForQuestionAnswering"]), "architectures: this head is not"),
    "labels": ("bert", said(problem_type="multi_label_classification"), "problem_type: .*multi_label"),
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
