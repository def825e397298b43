"""Model folders open in Hugging Face tools and theirs open here: same logits, same loss, same bits; bad
ones are refused.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradus.core.errors import UserError
from gradus.core.example import ragged
from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder
from gradus.families import FAMILIES, gpt1, preset
from gradus.families.folder import ModelFolder, read_folder, shapes, write_folder
from gradus.nn.heads import LinearHead
from gradus.nn.initialisation import initialise
from gradus.nn.losses import cross_entropy_sum, linear_cross_entropy
from gradus.nn.transformer import Transformer, count_parameters

transformers = pytest.importorskip("transformers")

LABELS = ["差评", "中立", "好评"]
PAD = 0
SHAPE: dict[str, Any] = {"layers": 2, "width": 32, "heads": 4, "context": 40, "vocab_size": 61}


def tensors_of(config: ModelConfig, head: str | None = None) -> dict[str, Tensor]:
    built = Transformer(config).initialise(3)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1
            )
    tensors = {name: parameter.detach() for name, parameter in built.named_parameters()}
    if head:
        made = LinearHead(config.width, len(LABELS))
        initialise(made, 3, ModelConfig(initial_deviation=0.3), f"heads.{head}.")
        tensors[f"heads.{head}.score.weight"] = made.score.weight.detach()
    return tensors


def save_tokenizer(path: Path) -> None:
    (path / "tokenizer.json").write_text('{"note": "你好"}', encoding="utf-8")


def written(path: Path, config: ModelConfig, head: str | None = None) -> dict[str, Tensor]:
    tensors = tensors_of(config, head)
    card = {
        "format_version": 1,
        "heads": {head: {"objective": "classification", "labels": LABELS}} if head else {},
    }
    with new_folder(path) as folder:
        write_folder(folder, config, tensors, card, save_tokenizer, LABELS if head else None, PAD)
    return tensors


def build(folder: ModelFolder) -> Transformer:
    built = Transformer(folder.config).eval()
    built.load_state_dict(
        {name: part for name, part in folder.tensors.items() if not name.startswith("heads.")}
    )
    return built


def rows() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(1, SHAPE["vocab_size"], length) for length in (9, 40, 1, 23)]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("activation", ["gelu_tanh", "relu"])
def test_our_language_model_in_their_class(tmp_path: Path, activation: str) -> None:
    config = ModelConfig(**SHAPE, activation=activation, norm_epsilon=1e-3)
    written(tmp_path / "model", config)
    theirs, report = transformers.OpenAIGPTLMHeadModel.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert theirs.config.pad_token_id == PAD and theirs.config.afn == {"gelu_tanh": "gelu"}.get(
        activation, activation
    )
    ours = build(read_folder(tmp_path / "model"))
    for row in rows()[:2]:
        tokens = torch.from_numpy(row)
        with torch.no_grad():
            answer = theirs.eval()(tokens[None], labels=tokens[None])
            states = ours(ragged([row]))[: len(row)]
            logits = states @ ours.output_weight.t()
            total = linear_cross_entropy(
                states[:-1], ours.output_weight, tokens[1:], torch.ones(len(row) - 1)
            )
        assert (logits - answer.logits[0]).abs().max() < 1e-5
        assert total / (len(row) - 1) == pytest.approx(answer.loss.item(), abs=1e-5)


def test_our_classifier_in_their_class(tmp_path: Path) -> None:
    config = ModelConfig(**SHAPE)
    written(tmp_path / "model", config, head="sst")
    theirs, report = transformers.OpenAIGPTForSequenceClassification.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert [theirs.config.id2label[index] for index in range(3)] == LABELS
    batch, labels = rows(), torch.tensor([0, 2, 1, 1])
    padded = torch.full((len(batch), 40), PAD)
    for place, row in enumerate(batch):
        padded[place, : len(row)] = torch.from_numpy(row)
    folder = read_folder(tmp_path / "model")
    assert folder.labels == LABELS and folder.card is not None
    source = ragged(batch)
    with torch.no_grad():
        answer = theirs.eval()(padded, attention_mask=(padded != PAD).long(), labels=labels)
        last = build(folder)(source)[torch.from_numpy(source.offsets[1:] - 1)]
        logits = last @ folder.tensors["heads.sst.score.weight"].t()
    assert (logits - answer.logits).abs().max() < 1e-5
    assert cross_entropy_sum(logits, labels, torch.ones(4)) / 4 == pytest.approx(answer.loss.item(), abs=1e-5)


@pytest.mark.parametrize("shards", [None, "20KB"])
@pytest.mark.parametrize(
    "name", ["OpenAIGPTLMHeadModel", "OpenAIGPTForSequenceClassification", "OpenAIGPTModel"]
)
def test_their_folder_comes_in_and_goes_out_with_the_same_bits(
    tmp_path: Path, name: str, shards: str | None
) -> None:
    made = transformers.OpenAIGPTConfig(
        vocab_size=61, n_positions=40, n_embd=32, n_layer=2, n_head=4, pad_token_id=PAD, attn_pdrop=0.2,
        id2label=dict(enumerate(LABELS)), label2id={label: index for index, label in enumerate(LABELS)},
    )  # fmt: skip
    theirs = getattr(transformers, name)(made).eval()
    theirs.save_pretrained(tmp_path / "theirs", **({"max_shard_size": shards} if shards else {}))
    assert (tmp_path / "theirs" / "model.safetensors").exists() == (shards is None)
    folder = read_folder(tmp_path / "theirs")
    assert (
        folder.card is None
        and folder.config.attention_dropout == 0.2
        and folder.config.embedding_dropout is None
    )
    assert folder.labels == (LABELS if "Classification" in name else None)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(rows()[0])[None])
        states = build(folder)(ragged([rows()[0]]))[:9]
    if name == "OpenAIGPTModel":
        assert (states - expected.last_hidden_state[0]).abs().max() < 1e-5
    with new_folder(tmp_path / "ours") as out:
        write_folder(out, folder.config, folder.tensors, {}, save_tokenizer, folder.labels, PAD)
    back = getattr(transformers, name).from_pretrained(tmp_path / "ours")
    assert same(theirs.state_dict(), back.state_dict())
    assert same(folder.tensors, read_folder(tmp_path / "ours").tensors)


def test_what_theirs_cannot_hold_keeps_our_own_names(tmp_path: Path) -> None:
    for changes, why in (
        ({"norm": "before"}, "layer norm"),
        ({"tie_embeddings": False}, "of its own"),
        ({"body": "lstm", "units": 24}, "LSTM"),
        ({"positions": "sinusoidal"}, "sinusoidal"),
        ({"positions": "none"}, "learned positions"),
        ({"feed_forward": 48}, "feed-forward"),
        ({"activation": "gelu"}, "activations"),
    ):
        config = ModelConfig(**SHAPE, **changes)
        assert why in str(gpt1.expressible(config, ["nli"]))
        tensors = written(tmp_path / "model", config, head="nli")
        folder = read_folder(tmp_path / "model")
        assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "gradus"
        assert folder.config == config and folder.labels == LABELS and same(folder.tensors, tensors)
    assert gpt1.expressible(ModelConfig(**SHAPE), ["a"]) is None
    assert "one head" in str(gpt1.expressible(ModelConfig(**SHAPE), ["a", "b"]))


def test_an_untied_folder_of_theirs_opens(tmp_path: Path) -> None:
    written(tmp_path / "model", ModelConfig(**SHAPE))
    weights = load_file(tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "MANIFEST.json").unlink()
    copy = weights["transformer.tokens_embed.weight"].clone()
    save_file(weights | {"lm_head.weight": copy}, tmp_path / "model" / "model.safetensors")
    folder = read_folder(tmp_path / "model")
    assert folder.dropped == ("lm_head.weight",) and "unembedding.weight" not in folder.tensors
    save_file(weights | {"lm_head.weight": copy + 1}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(UserError, match="tied but differs"):
        read_folder(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    folder = read_folder(tmp_path / "model")
    assert not folder.config.tie_embeddings and torch.equal(folder.tensors["unembedding.weight"], copy + 1)


def test_masks_of_old_files_are_dropped_and_half_precision_is_widened(tmp_path: Path) -> None:
    tensors = written(tmp_path / "model", ModelConfig(**SHAPE))
    (tmp_path / "model" / "MANIFEST.json").unlink()
    weights = {
        name: part.half() for name, part in load_file(tmp_path / "model" / "model.safetensors").items()
    }
    save_file(weights | {"h.0.attn.bias": torch.ones(1, 1, 40, 40)}, tmp_path / "model" / "model.safetensors")
    folder = read_folder(tmp_path / "model")
    assert folder.dropped == ("h.0.attn.bias",)
    assert same(folder.tensors, {name: tensors[name].half().float() for name in folder.tensors})


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    for name in ("first", "second"):
        written(tmp_path / name, ModelConfig(**SHAPE), head="sst")
    for file in ("model.safetensors", "config.json", "gradus.json", "MANIFEST.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert "差评" in (tmp_path / "first" / "config.json").read_text(encoding="utf-8")


def without(tensor: str) -> Any:
    def change(path: Path) -> None:
        weights = load_file(path / "model.safetensors")
        del weights[tensor]
        save_file(weights, path / "model.safetensors")

    return change


def with_tensor(tensor: str, shape: tuple[int, ...]) -> Any:
    def change(path: Path) -> None:
        weights = load_file(path / "model.safetensors")
        save_file(weights | {tensor: torch.zeros(shape)}, path / "model.safetensors")

    return change


def with_config(**changes: Any) -> Any:
    def change(path: Path) -> None:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
        (path / "config.json").write_text(json.dumps(content | changes), encoding="utf-8")

    return change


def cut(path: Path) -> None:
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:-100])


def pickled(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def indexed(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text('{"weight_map": ["model.safetensors"]}')


BAD = {
    "no config": (lambda path: (path / "config.json").unlink(), "no model folder.*config.json"),
    "config is no JSON": (lambda path: (path / "config.json").write_text("{"), "config.json.*cannot be read"),
    "config is a list": (lambda path: (path / "config.json").write_text("[]"), "should hold a JSON object"),
    "unknown family": (with_config(model_type="openai-gtp"), "model_type.*'openai-gtp'.*mean 'openai-gpt'"),
    "no family": (with_config(model_type=None), "model_type"),
    "unknown activation": (with_config(afn="silu"), "afn.*'silu'.*gelu_new, relu"),
    "no such heads": (with_config(n_head=5), "make no model.*not a multiple of heads"),
    "other width": (with_config(n_embd=64), "has shape 61 x 32, not 61 x 64.*tokens_embed"),
    "deeper": (with_config(n_layer=3), "lack a tensor.*blocks.2"),
    "shallower": (with_config(n_layer=1), "no place for a tensor.*h.1"),
    "family is a list": (with_config(model_type=["openai-gpt"]), "model_type.*not supported"),
    "no vocabulary": (with_config(vocab_size=None), "config.json: vocab_size: this should be a number"),
    "labels without numbers": (with_config(id2label={"好": "评"}), "id2label: .*number.*'好'"),
    "labels in a text": (with_config(id2label="差评"), "id2label: this should be a JSON object: '差评'"),
    "fewer labels": (with_config(id2label={"0": "a"}), "3 rows for 1 labels.*score.weight"),
    "missing tensor": (without("transformer.h.1.mlp.c_fc.bias"), "lack a tensor.*1.feed_forward.up.bias"),
    "foreign tensor": (with_tensor("transformer.wte.weight", (2, 2)), "no such tensor.*wte.weight"),
    "transposed": (with_tensor("transformer.h.0.attn.c_attn.weight", (96, 32)), "32 x 96.*c_attn.weight"),
    "negative": (with_config(n_layer=-2), "config.json: n_layer: these numbers make no model"),
    "cut": (cut, "model.safetensors: .*truncated or damaged"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "no model.safetensors"),
    "index is a list": (indexed, "index.json: weight_map: this should be a JSON object"),
    "pickle": (pickled, "pickled weights are never opened.*save_pretrained"),
}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "模型"
    written(path, ModelConfig(**SHAPE), head="sst")
    return path


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_folder_is_refused_in_one_line(good: Path, tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    path = tmp_path / "model"
    shutil.copytree(good, path)
    (path / "MANIFEST.json").unlink()
    read_folder(path)
    change(path)
    with pytest.raises(UserError, match=message) as caught:
        read_folder(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_an_altered_folder_is_refused_by_its_manifest(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(good, path)
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-7] ^= 1
    (path / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="model.safetensors: this file was altered or cut"):
        read_folder(path)
    (path / "tokenizer.json").unlink()
    (path / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="tokenizer.json: a file is missing"):
        read_folder(path)


def test_writing_refuses_what_is_no_whole_model(tmp_path: Path) -> None:
    config = ModelConfig(**SHAPE)
    tensors = tensors_of(config)
    del tensors["embedding.positions.weight"]
    with (
        pytest.raises(ValueError, match="embedding.positions.weight"),
        new_folder(tmp_path / "model") as folder,
    ):
        write_folder(folder, config, tensors, {}, save_tokenizer)
    assert not list(tmp_path.iterdir())


def test_presets_are_models_and_the_papers_size_is_right() -> None:
    for name in gpt1.PRESETS:
        config = ModelConfig.model_validate(preset(name) | {"vocab_size": 40478})
        assert (gpt1.expressible(config) is None) == (config.body == "transformer")
    full = ModelConfig.model_validate(preset("gpt1") | {"vocab_size": 40478})
    assert count_parameters(full) == 116_534_784 and full.hidden == 3072
    smaller = ModelConfig.model_validate(preset("gpt1") | {"layers": 4, "width": 256, "heads": 4})
    assert smaller.hidden == 1024
    with pytest.raises(UserError, match="gtp1.*did you mean 'gpt1'"):
        preset("gtp1")
    assert FAMILIES["gpt1"].SETTINGS.model_type == "openai-gpt"


def test_shapes_are_those_of_the_model() -> None:
    config = ModelConfig(**SHAPE)
    assert shapes(config) == {name: tuple(tensor.shape) for name, tensor in tensors_of(config).items()}
    assert sum(int(np.prod(shape)) for shape in shapes(config).values()) == count_parameters(config)
