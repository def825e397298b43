"""What BART's and T5's classes cannot hold is said in words, and a folder of theirs that is bad is refused in
one line.

The good folders are those of `test_parity_seq2seq.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from test_parity import build, opened, random_of, write
from test_parity_refused import said, tensor
from test_parity_seq2seq import CLASS, ROWS, agree

from gradus.core.errors import UserError
from gradus.families import FAMILIES
from gradus.families.folder import read_folder

SELF = "encoder.block.1.layer.0.SelfAttention"
CROSS = "model.decoder.layers.1.encoder_attn"
WHY = {
    "bart": (
        ({"norm": "before"}, "layer norm after"),
        ({"positions": "relative"}, "learned positions, not relative"),
        ({"position_offset": 0}, "`position_offset: 2`"),
        ({"embedding_norm": False}, "embedding_norm"),
        ({"tie_embeddings": False}, "tie_embeddings"),
        ({"output_bias": True}, "output_bias"),
        ({"output_scale": True}, "output_scale"),
        ({"gated": True}, "gated"),
        ({"biases": False}, "biases"),
        ({"norm_kind": "rms"}, "layer norm, not rms"),
        ({"norm_epsilon": 1e-6}, "norm_epsilon"),
        ({"kv_heads": 2}, "each head, not for 2"),
        ({"head_width": 16}, "head_width|heads of width / heads"),
        ({"attention_scale": False}, "attention_scale"),
        ({"dense_head": False}, "dense_head"),
        ({"pooler": True}, "pooler"),
        ({"arrangement": "encoder"}, "arrangement"),
        ({"segments": 2}, "segments"),
    ),
    "t5": (
        ({"norm": "after"}, "layer norm before"),
        ({"norm_kind": "layer"}, "rms norm"),
        ({"positions": "rotary"}, "relative positions, not rotary"),
        ({"biases": True}, "biases"),
        ({"attention_scale": True}, "attention_scale"),
        ({"activation": "gelu", "gated": True}, "not a gated gelu"),
        ({"tie_embeddings": False}, "of its own beside a head"),
        ({"dense_head": False}, "dense_head"),
        ({"kv_heads": 2}, "each head, not for 2"),
        ({"output_bias": True}, "output_bias"),
        ({"output_transform": True}, "output_transform"),
        ({"embedding_norm": True}, "embedding_norm"),
        ({"arrangement": "decoder"}, "arrangement"),
    ),
}


@pytest.mark.parametrize("name", list(WHY))
def test_what_theirs_cannot_hold_is_said(name: str) -> None:
    family = FAMILIES[name]
    for changes, why in WHY[name]:
        config = ROWS[name].own(**{"dense_head": True} | changes)
        reason = str(family.expressible(config, ["nli"]))
        assert any(part in reason for part in why.split("|")), (changes, reason)
    assert "one head" in str(family.expressible(ROWS[name].own(dense_head=True), ["a", "b"]))
    assert "no head for choices" in str(family.TABLE.obstacle("choices", True))
    assert "with bias" in str(family.TABLE.obstacle("classes", False))
    assert family.expressible(ROWS[name].own(dense_head=True, rotary_base=7.0), ["a"]) is None
    scaled = ROWS["t5 v1.1"].own(output_scale=True)
    assert "tied output only" in str(FAMILIES["t5"].expressible(scaled))


BAD = {
    "bart scale": ("bart", said(scale_embedding=True), "config.json: scale_embedding: this is not supported"),
    "bart deep": ("bart", said(decoder_layers=2), "decoder_layers: encoder and decoder differ.*encoder_l"),
    "bart heads": ("bart", said(decoder_attention_heads=2), "decoder_attention_heads: encoder and decoder"),
    "bart wide": ("bart", said(decoder_ffn_dim=64), "decoder_ffn_dim: .*'64'.*encoder_ffn_dim is 48"),
    "bart untied": ("bart", said(tie_word_embeddings=False), "tie_word_embeddings: this is not supported"),
    "bart mbart": ("bart", said(normalize_before=True), "normalize_before: this is not supported"),
    "bart alone": ("bart", said(is_encoder_decoder=False), "is_encoder_decoder: this is not supported"),
    "bart word": ("bart", said(activation_function="mish"), "activation_function: .*'mish'.*gelu_new"),
    "bart number": ("bart", said(d_model="many"), "d_model: these numbers make no model"),
    "bart context": ("bart", said(max_position_embeddings=64), "202 x 32, not 66 x 32: .*embed_positions"),
    "bart biased": ("bart", tensor("final_logits_bias", (1, 61), 1.0), "all zeros: 'final_logits_bias'"),
    "bart copy": ("bart", tensor("model.encoder.embed_tokens.weight", (61, 32)), "tied but differs.*shared"),
    "bart missing": ("bart", tensor("model.shared.weight", None), "lack a tensor: 'model.shared.weight'"),
    "bart half": ("bart", tensor(f"{CROSS}.k_proj.bias", None), f"lack a tensor: '{CROSS}.k_proj.bias'"),
    "bart answers": ("bart", tensor("qa_outputs.weight", (2, 32)), "lack a tensor: 'qa_outputs.bias'"),
    "t5 deep": ("t5", said(num_decoder_layers=2), "num_decoder_layers: encoder and decoder differ.*is 3"),
    "t5 word": ("t5", said(feed_forward_proj="gated-mish"), "feed_forward_proj: .*'gated-mish'.*gated-gelu,"),
    "t5 function": ("t5", said(dense_act_fn="gelu_new"), "dense_act_fn: this is not supported.*'relu'"),
    "t5 gate": ("t5", said(is_gated_act=True), "is_gated_act: this is not supported"),
    "t5 gated": ("t5", said(feed_forward_proj="gated-gelu"), "lack a tensor: .*wi_1.weight"),
    "t5 width": ("t5", said(d_kv=16), "has shape 32 x 32, not 64 x 32: .*q.weight"),
    "t5 number": ("t5", said(d_kv=-1), "d_kv: these numbers make no model"),
    "t5 biased": ("t5", tensor(f"{SELF}.o.bias", (32,)), "no place for a tensor"),
    "t5 places": ("t5", tensor(f"{SELF}.relative_attention_bias.weight", (32, 4)), "no such tensor"),
    "t5 output": ("t5", tensor("lm_head.weight", (61, 32)), "tied but differs from shared.weight"),
    "v1.1 output": ("t5 v1.1", tensor("lm_head.weight", None), "lack a tensor: 'lm_head.weight'"),
    "v1.1 ungated": ("t5 v1.1", said(feed_forward_proj="gelu_new"), "lack a tensor: .*wi.weight"),
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


def test_old_files_of_t5_and_copies_are_read(tmp_path: Path) -> None:
    """Before transformers 5 `tie_word_embeddings` said whether states are scaled, too, and files held copies
    and a table that nothing reads; `n_positions` is the length of its training."""
    for name, tied in (("t5", True), ("t5 v1.1", False)):
        config = ROWS[name].own(context=384)
        write(tmp_path / name, config, random_of(config))
        (tmp_path / name / "MANIFEST.json").unlink()
        file = tmp_path / name / "config.json"
        content = json.loads(file.read_text("utf-8"))
        assert content["n_positions"] == 384 and content["tie_word_embeddings"] is tied
        del content["scale_decoder_outputs"], content["num_decoder_layers"]
        file.write_text(json.dumps(content), encoding="utf-8")
        unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        tensor(unread, (32, 4))(tmp_path / name)
        weights = load_file(tmp_path / name / "model.safetensors")
        copies = [f"{stack}.embed_tokens.weight" for stack in ("encoder", "decoder")]
        copies += ["lm_head.weight"] if tied else []
        added = {copy: weights["shared.weight"].clone() for copy in copies}
        save_file(weights | added, tmp_path / name / "model.safetensors")
        folder = read_folder(tmp_path / name)
        assert folder.config == config and set(folder.dropped) == {unread, *copies}


def test_every_feed_forward_that_theirs_has_is_read_and_said(tmp_path: Path) -> None:
    for word, activation, gated in (
        ("relu", "relu", False), ("gated-relu", "relu", True), ("gated-gelu", "gelu_tanh", True),
        ("gelu", "gelu", False), ("gelu_new", "gelu_tanh", False), ("gated-silu", "silu", True),
    ):  # fmt: skip
        config = ROWS["t5"].own(activation=activation, gated=gated)
        write(tmp_path / word, config, random_of(config))
        content = json.loads((tmp_path / word / "config.json").read_text("utf-8"))
        assert content["feed_forward_proj"] == word
        assert read_folder(tmp_path / word).config == config
        agree(build(read_folder(tmp_path / word)), opened(tmp_path / word, CLASS["t5"]))


def test_the_ids_are_those_of_the_roles() -> None:
    """The decoder begins as the released models' do where no token has that for its role."""
    roles = {"pad": 1, "start": 0, "end": 2, "mask": 60}
    content = FAMILIES["bart"].to_config_json(ROWS["bart"].own(), None, roles)
    names = ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id", "forced_eos_token_id")
    assert [content[name] for name in names] == [0, 1, 2, 2, 2]
    content = FAMILIES["t5"].to_config_json(ROWS["t5"].own(), None, roles)
    assert [content[name] for name in names[1:4]] == [1, 2, 0]
    content = FAMILIES["t5"].to_config_json(ROWS["t5"].own(), None, {"pad": 0, "end": 1})
    assert [content[name] for name in names[1:4]] == [0, 1, 0]
