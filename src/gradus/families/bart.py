"""BART: presets, and how Hugging Face's Bart classes name its parts and numbers, both ways.

Lewis et al. 2020, "BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation,
Translation, and Comprehension", section 2.1: the encoder-decoder of Vaswani et al. 2017 with GELU. As
released: the norm after each branch, a norm on the embeddings of both stacks, learned positions of which each
stack has a table with two idle rows at its head, and one matrix for all that reads or scores tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.families.heads import CLASSIFICATION_HEAD, ROW_TASKS, SPANS, Shapes, Task, classification_task
from gradus.families.settings import Settings
from gradus.families.table import Place, Table, joined

ARRANGED: dict[str, Any] = {
    "arrangement": "encoder_decoder",
    "position_offset": 2,
    "embedding_norm": True,
    "activation": "gelu",
    "dense_head": True,
    "delimiters": 2,
    "source_start": True,
}
# The released models say 0.1 of all three dropouts; the paper of none.
TRAINED = ARRANGED | {"feed_forward_dropout": 0.1}

PRESETS: dict[str, dict[str, Any]] = {
    # Section 2.1: 6 layers in each stack of the base model, 12 in those of the large one. With their 50,265
    # tokens 139M and 406M parameters.
    "bart-base": TRAINED | {"layers": 6, "width": 768, "heads": 12, "context": 1024},
    "bart-large": TRAINED | {"layers": 12, "width": 1024, "heads": 16, "context": 1024},
    # For a laptop's CPU: 7.5M parameters beside the vocabulary's.
    "bart-mini": TRAINED | {"layers": 4, "width": 256, "heads": 4, "context": 256},
}


def _attention(theirs: str) -> tuple[Place, str]:
    """Their names of the fused projections and of the output of a self attention."""
    return joined(*(f"{theirs}.{part}_proj" for part in "qkv")), f"{theirs}.out_proj"


def _stack(ours: str, theirs: str) -> dict[str, str | Place]:
    """What the encoder and the decoder both have."""
    block, layer = f"{ours}blocks.*", f"{theirs}.layers.*"
    projections, output = _attention(f"{layer}.self_attn")
    return {
        f"{ours}embedding.positions": f"{theirs}.embed_positions",
        f"{ours}embedding.norm": f"{theirs}.layernorm_embedding",
        f"{block}.attention.query_key_value": projections,
        f"{block}.attention.output": output,
        f"{block}.attention_norm": f"{layer}.self_attn_layer_norm",
        f"{block}.feed_forward.up": f"{layer}.fc1",
        f"{block}.feed_forward.down": f"{layer}.fc2",
        f"{block}.feed_forward_norm": f"{layer}.final_layer_norm",
    }


CROSS = "decoder.layers.*.encoder_attn"

TABLE = Table(
    title="BART",
    prefix="model.",
    body={
        "embedding.tokens": "shared",
        **_stack("encoder.", "encoder"),
        **_stack("", "decoder"),
        "blocks.*.cross_attention.query": f"{CROSS}.q_proj",
        "blocks.*.cross_attention.key_value": joined(f"{CROSS}.k_proj", f"{CROSS}.v_proj"),
        "blocks.*.cross_attention.output": f"{CROSS}.out_proj",
        "blocks.*.cross_attention_norm": f"{CROSS}_layer_norm",
    },
    outside={"unembedding": "lm_head"},
    heads={**dict.fromkeys(ROW_TASKS, CLASSIFICATION_HEAD), "spans": SPANS},
    copies={"embedding.tokens.weight": ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")},
    no_weights=(r"(encoder|decoder)\.version",),
    # A buffer of theirs that nothing trains.
    zeros=("final_logits_bias",),
)

SETTINGS = Settings(
    model_type="bart",
    title="BART",
    fields={
        "vocab_size": ("vocab_size", 50265),
        "context": ("max_position_embeddings", 1024),
        "width": ("d_model", 1024),
        "layers": ("encoder_layers", 12),
        "heads": ("encoder_attention_heads", 16),
        "feed_forward": ("encoder_ffn_dim", 4096),
        "activation": ("activation_function", "gelu"),
        "dropout": ("dropout", 0.1),
        "attention_dropout": ("attention_dropout", 0.0),
        "feed_forward_dropout": ("activation_dropout", 0.0),
        "initial_deviation": ("init_std", 0.02),
    },
    fixed=ARRANGED | {"family": "bart"},
    words={
        "activation": {
            "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
            "silu": "silu", "swish": "silu",
        }
    },
    # The last four are keys of transformers 2 and 3, which had mBART and Pegasus in the same class.
    only={
        "is_encoder_decoder": True, "scale_embedding": False, "tie_word_embeddings": True,
        "normalize_before": False, "normalize_embedding": True, "add_final_layer_norm": False,
        "static_position_embeddings": False,
    },
)  # fmt: skip

TWINS = {"layers": "decoder_layers", "heads": "decoder_attention_heads", "feed_forward": "decoder_ffn_dim"}
"""Ours -> their key for the decoder; that for the encoder stands in `SETTINGS`."""

CLASSES: dict[Task | None, str] = {
    None: "BartForConditionalGeneration",
    **dict.fromkeys(ROW_TASKS, "BartForSequenceClassification"),
    "spans": "BartForQuestionAnswering",
}


def expressible(config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
    """Why Hugging Face's Bart classes cannot hold this model with heads of these names; None where they
    can."""
    return SETTINGS.difference(config, heads)


def to_config_json(
    config: ModelConfig,
    labels: Sequence[str] | None,
    roles: Mapping[str, int] | None,
    task: Task | None = None,
) -> dict[str, Any]:
    """`config.json` as BartConfig reads it. The decoder begins with the token that ends a text, as released;
    their classifier reads the decoder's state at the last of these, and has the source for its input."""
    roles = roles or {}
    end = roles.get("end")
    said = SETTINGS.to_json(config, CLASSES[task], task, labels)
    return said | {
        **{theirs: said[SETTINGS.fields[ours][0]] for ours, theirs in TWINS.items()},
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "bos_token_id": roles.get("start"),
        "pad_token_id": roles.get("pad"),
        "eos_token_id": end,
        "decoder_start_token_id": end,
        "forced_eos_token_id": end,
    }


def from_config_json(content: Mapping[str, Any], shapes: Shapes, file: Path) -> ModelConfig:
    """Our config of BartConfig's JSON; what it leaves out has the default of that class. Raises UserError for
    what we cannot build, such as an encoder and a decoder that differ."""
    for ours, key in TWINS.items():
        of_encoder, default = SETTINGS.fields[ours]
        wanted = content.get(of_encoder, default)
        if (given := content.get(key, default)) != wanted:
            problem, hint = "encoder and decoder differ", f"{of_encoder} is {wanted}"
            raise UserError(problem, file=file, field=key, text=given, hint=hint)
    return SETTINGS.read(content, file)


task_of = classification_task
