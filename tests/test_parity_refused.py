"""What a family cannot hold is said in words, and a folder of theirs that is bad is refused in one line.

The good folders are those of `test_parity.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_parity import ROWS, random_of, write

from gradus.core.errors import UserError
from gradus.families import FAMILIES
from gradus.families.folder import read_folder

WHY = {
    "gpt2": (
        ({"norm": "after"}, "layer norm before"),
        ({"positions": "rotary"}, "learned positions, not rotary"),
        ({"kv_heads": 2}, "each head, not for 2"),
        ({"head_width": 16}, "heads of width / heads channels, not 16"),
        ({"gated": True}, "gated"),
        ({"biases": False}, "biases"),
        ({"norm_kind": "rms"}, "layer norm, not rms"),
        ({"arrangement": "encoder"}, "arrangement"),
        ({"tie_embeddings": False}, "of its own"),
        ({"body": "lstm"}, "LSTM"),
        ({"segments": 2}, "segments"),
    ),
    "llama": (
        ({"biases": True}, "biases"),
        ({"gated": False}, "gated"),
        ({"positions": "learned"}, "rotary positions, not learned"),
        ({"norm_kind": "layer"}, "rms norm"),
        ({"window": 7}, "banded"),
        ({"attention_scale": False}, "attention_scale"),
        ({"width": 30, "head_width": 8}, "multiple of its heads"),
    ),
}


@pytest.mark.parametrize("name", list(WHY))
def test_what_theirs_cannot_hold_is_said(name: str) -> None:
    for changes, why in WHY[name]:
        config = ROWS[name].own(**changes)
        assert why in str(FAMILIES[name].expressible(config, ["nli"])), changes
    assert "one head" in str(FAMILIES[name].expressible(ROWS[name].own(), ["a", "b"]))
    unused = ROWS[name].own(relative_buckets=16, feed_forward_dropout=0.5)
    assert FAMILIES[name].expressible(unused) is None
    assert FAMILIES["llama"].TABLE.obstacle("choices", True) == "its Llama has no head for choices"


def tensor(name: str, shape: tuple[int, ...] | None, value: float = 0.0) -> Any:
    """Puts a tensor of zeros, or of `value`, into a folder's weights, or takes it out."""

    def change(path: Path) -> None:
        weights = load_file(path / "model.safetensors")
        weights.pop(name, None)
        added = {} if shape is None else {name: torch.full(shape, value)}
        save_file(weights | added, path / "model.safetensors")

    return change


def said(**changes: Any) -> Any:
    """Changes what config.json says."""

    def change(path: Path) -> None:
        content = json.loads((path / "config.json").read_text("utf-8"))
        (path / "config.json").write_text(json.dumps(content | changes), encoding="utf-8")

    return change


LAYER = "model.layers.1.self_attn"
BAD = {
    "gpt2 scale": ("gpt2", said(scale_attn_by_inverse_layer_idx=True), "layer_idx: .*'True'"),
    "gpt2 upcast": ("gpt2", said(reorder_and_upcast_attn=True), "reorder_and_upcast_attn: this is not"),
    "gpt2 crosses": ("gpt2", said(add_cross_attention=True), "add_cross_attention: this is not"),
    "gpt2 activation": ("gpt2", said(activation_function="mish"), "activation_function: .*'mish'.*gelu_new"),
    "gpt2 layers": ("gpt2", said(n_layer="many"), "config.json: n_layer: these numbers make no model"),
    "gpt2 inner": ("gpt2", said(n_inner=0), "config.json: n_inner: these numbers"),
    "gpt2 unknown": ("gpt2", tensor("transformer.h.0.attn.q.weight", (2, 2)), "no such tensor: .*attn.q"),
    "gpt2 missing": ("gpt2", tensor("transformer.ln_f.bias", None), "lack a tensor: 'transformer.ln_f.bias'"),
    "gpt2 twice": ("gpt2", tensor("ln_f.bias", (32,)), "with and without a prefix"),
    "gpt2 tags": ("gpt2", tensor("classifier.weight", (3, 32)), "no place for a tensor: 'classifier.weight'"),
    "llama turns": (
        "llama", said(rope_parameters={"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}),
        "config.json: rope_parameters.rope_type: this is not supported: 'llama3'",
    ),
    "llama old turns": (
        "llama", said(rope_parameters=None, rope_scaling={"type": "linear", "factor": 2.0}),
        "rope_scaling.rope_type: this is not supported: 'linear'",
    ),
    "llama no turns": ("llama", said(rope_parameters=[1]), "rope_parameters: this should be a JSON object"),
    "llama base": ("llama", said(rope_parameters={"rope_theta": "far"}), "rope_theta: these numbers"),
    "llama biases": ("llama", said(attention_bias=True), "attention_bias: this is not supported"),
    "llama shared": ("llama", said(num_key_value_heads=3), "not a multiple of kv_heads"),
    "llama half": ("llama", tensor(f"{LAYER}.k_proj.weight", None), f"lack a tensor: '{LAYER}.k_proj"),
    "llama long": ("llama", tensor(f"{LAYER}.v_proj.weight", (32, 32)), "32 x 32, not 16 x 32: .*v_proj"),
    "llama swapped": ("llama", said(num_key_value_heads=1), "has shape 16 x 32, not 8 x 32.*k_proj"),
    "llama biased": ("llama", tensor(f"{LAYER}.q_proj.bias", (32,)), "no place for a tensor: .*q_proj.bias"),
    "llama output": ("llama", tensor("lm_head.weight", None), "lack a tensor: 'lm_head.weight'"),
    "llama tied": ("llama", said(tie_word_embeddings=True), "tied but differs from model.embed_tokens"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_folder_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    name, change, message = BAD[case]
    config = ROWS[name].own()
    write(tmp_path / "model", config, random_of(config))
    (tmp_path / "model/MANIFEST.json").unlink()
    change(tmp_path / "model")
    with pytest.raises(UserError, match=message) as caught:
        read_folder(tmp_path / "model")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_both_forms_of_turns_are_read_and_old_files_too(tmp_path: Path) -> None:
    config = ROWS["llama"].own(rotary_base=700.0)
    write(tmp_path / "model", config, random_of(config))
    (tmp_path / "model/MANIFEST.json").unlink()
    for turns in (
        {"rope_theta": 700.0, "rope_scaling": None, "rope_parameters": None},
        {"rope_theta": 1.0, "rope_scaling": None, "rope_parameters": {"rope_theta": 700, "type": "default"}},
    ):
        said(**turns)(tmp_path / "model")
        assert read_folder(tmp_path / "model").config == config
    old = "model.layers.0.self_attn.rotary_emb.inv_freq"
    tensor(old, (4,))(tmp_path / "model")
    assert read_folder(tmp_path / "model").dropped == (old,)
    config = ROWS["gpt2"].own()
    write(tmp_path / "old", config, random_of(config))
    (tmp_path / "old/MANIFEST.json").unlink()
    tensor("h.2.attn.masked_bias", ())(tmp_path / "old")
    assert read_folder(tmp_path / "old").dropped == ("h.2.attn.masked_bias",)
