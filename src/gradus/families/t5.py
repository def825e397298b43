"""T5 and its version 1.1: presets, and how Hugging Face's T5 classes name its parts and numbers, both ways.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
section 2.1: RMS norm before each branch, no biases, a learned number for each bucket of distances in place
of positions; section 3.1.1: dropout wherever it can stand. As released, scores are not divided by
sqrt(head width), and the tied output reads states divided by sqrt(width). Version 1.1 (Shazeer 2020 and its
release) has a feed-forward gated by GELU and an output of its own, which is not scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.families.heads import (
    CLASSIFICATION_HEAD,
    ROW_TASKS,
    SPANS,
    Shapes,
    Task,
    classification_task,
    own_output,
)
from gradus.families.settings import Settings, only
from gradus.families.table import Place, Table, joined

ARRANGED: dict[str, Any] = {
    "arrangement": "encoder_decoder",
    "positions": "relative",
    "norm": "before",
    "norm_kind": "rms",
    "norm_epsilon": 1e-6,
    "biases": False,
    "attention_scale": False,
    "initialisation": "t5",
}
# The scale of `output_scale` and of the embeddings' start belong together.
FIRST = ARRANGED | {"activation": "relu", "output_scale": True, "context": 512}
SECOND = ARRANGED | {"activation": "gelu_tanh", "gated": True, "tie_embeddings": False, "context": 512}
# Section 3.1.1: 10 % "everywhere dropout is applied". The layer before a head is that of Hugging Face's
# class: the paper has no heads.
TRAINED = {"feed_forward_dropout": 0.1, "output_dropout": 0.1, "dense_head": True}

PRESETS: dict[str, dict[str, Any]] = {
    # Section 3.7, with 32,128 tokens. It says 60M, 220M, 770M, 3B and 11B parameters; they are 61M, 223M,
    # 738M, 2.9B and 11.3B: the 770M is odd.
    "t5-small": FIRST | TRAINED | {"layers": 6, "width": 512, "heads": 8},
    "t5-base": FIRST | TRAINED | {"layers": 12, "width": 768, "heads": 12},
    "t5-large": FIRST | TRAINED | {"layers": 24, "width": 1024, "heads": 16},
    "t5-3b": FIRST | TRAINED
    | {"layers": 24, "width": 1024, "heads": 32, "head_width": 128, "feed_forward": 16384},
    "t5-11b": FIRST | TRAINED
    | {"layers": 24, "width": 1024, "heads": 128, "head_width": 128, "feed_forward": 65536},
    # As released, with two matrices for 32,128 tokens: 77M, 248M and 783M. Its dropout was off in
    # pre-training and is 0.1 in fine-tuning.
    "t5-v1.1-small": SECOND | TRAINED
    | {"layers": 8, "width": 512, "heads": 6, "head_width": 64, "feed_forward": 1024},
    "t5-v1.1-base": SECOND | TRAINED | {"layers": 12, "width": 768, "heads": 12, "feed_forward": 2048},
    "t5-v1.1-large": SECOND | TRAINED | {"layers": 24, "width": 1024, "heads": 16, "feed_forward": 2816},
    # For a laptop's CPU: 7.3M parameters beside the vocabulary's.
    "t5-mini": FIRST | TRAINED | {"layers": 4, "width": 256, "heads": 4, "context": 256},
}  # fmt: skip


def _stack(ours: str, theirs: str, last: int) -> dict[str, str | Place]:
    """What the encoder and the decoder both have; `last` is the number of the feed-forward in a block."""
    block, own = f"{ours}blocks.*", f"{theirs}.block.*.layer.0"
    attention, feed_forward = f"{own}.SelfAttention", f"{theirs}.block.*.layer.{last}"
    return {
        f"{ours}relative": f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias",
        f"{block}.attention.query_key_value": joined(*(f"{attention}.{part}" for part in "qkv")),
        f"{block}.attention.output": f"{attention}.o",
        f"{block}.attention_norm": f"{own}.layer_norm",
        f"{block}.feed_forward.up": f"{feed_forward}.DenseReluDense.wi",
        f"{block}.feed_forward.down": f"{feed_forward}.DenseReluDense.wo",
        f"{block}.feed_forward_norm": f"{feed_forward}.layer_norm",
        f"{ours}final_norm": f"{theirs}.final_layer_norm",
    }


def _gated(ours: str, theirs: str, last: int) -> dict[str, str | Place]:
    """Version 1.1 applies the activation to `wi_0`."""
    feed_forward = f"{theirs}.block.*.layer.{last}.DenseReluDense"
    return {
        f"{ours}blocks.*.feed_forward.gate": f"{feed_forward}.wi_0",
        f"{ours}blocks.*.feed_forward.up": f"{feed_forward}.wi_1",
    }


CROSS = "decoder.block.*.layer.1"

TABLE = Table(
    title="T5",
    # Only the classifier has a prefix.
    prefix="transformer.",
    prefixes={None: "", "spans": ""},
    body={
        "embedding.tokens": "shared",
        **_stack("encoder.", "encoder", 1),
        **_stack("", "decoder", 2),
        "blocks.*.cross_attention.query": f"{CROSS}.EncDecAttention.q",
        "blocks.*.cross_attention.key_value": joined(
            f"{CROSS}.EncDecAttention.k", f"{CROSS}.EncDecAttention.v"
        ),
        "blocks.*.cross_attention.output": f"{CROSS}.EncDecAttention.o",
        "blocks.*.cross_attention_norm": f"{CROSS}.layer_norm",
    },
    gated={**_gated("encoder.", "encoder", 1), **_gated("", "decoder", 2)},
    outside={"unembedding": "lm_head"},
    heads={**dict.fromkeys(ROW_TASKS, CLASSIFICATION_HEAD), "spans": SPANS},
    copies={"embedding.tokens.weight": ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")},
    # A table of distances to the encoder's tokens, which old files have and no code reads.
    no_weights=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
)

SETTINGS = Settings(
    model_type="t5",
    title="T5",
    fields={
        "vocab_size": ("vocab_size", 32128),
        # Their distances have no end; old files say with what length the model was taught.
        "context": ("n_positions", 512),
        "width": ("d_model", 512),
        "layers": ("num_layers", 6),
        "heads": ("num_heads", 8),
        "head_width": ("d_kv", 64),
        "feed_forward": ("d_ff", 2048),
        "relative_buckets": ("relative_attention_num_buckets", 32),
        "relative_distance": ("relative_attention_max_distance", 128),
        "norm_epsilon": ("layer_norm_epsilon", 1e-6),
        "dropout": ("dropout_rate", 0.1),
    },
    fixed=ARRANGED | {"family": "t5", "activation": "relu", "output_scale": True},
    only={"is_encoder_decoder": True},
    free=frozenset({"activation", "gated", "dense_head", "tie_embeddings", "output_scale"}),
)

FORMS: dict[str, tuple[str, bool]] = {
    "relu": ("relu", False), "gated-gelu": ("gelu_tanh", True), "gelu": ("gelu", False),
    "gelu_new": ("gelu_tanh", False), "silu": ("silu", False), "gated-relu": ("relu", True),
    "gated-silu": ("silu", True), "gated-gelu_new": ("gelu_tanh", True),
}  # fmt: skip
"""Their `feed_forward_proj` -> our activation and whether it gates. "gated-gelu" is the tanh form."""

DROPOUTS = ("attention_dropout", "embedding_dropout", "feed_forward_dropout", "output_dropout")
"""All of them are `dropout_rate` in theirs; one that differs stands under our own name."""

CLASSES: dict[Task | None, str] = {
    None: "T5ForConditionalGeneration",
    **dict.fromkeys(ROW_TASKS, "T5ForSequenceClassification"),
    "spans": "T5ForQuestionAnswering",
}


def expressible(config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
    """Why Hugging Face's T5 classes cannot hold this model with heads of these names; None where they can."""
    if heads and not config.tie_embeddings:
        return "its T5 has no output embedding of its own beside a head"
    if heads and not config.dense_head:
        return "its T5 has `dense_head: True`, not False"
    if config.output_scale and not config.tie_embeddings:
        return "its T5 scales the states before a tied output only"
    form = (config.activation, config.gated)
    if form not in FORMS.values():
        return f"its T5 knows the feed-forwards {', '.join(FORMS)}, not a gated {config.activation}"
    return SETTINGS.difference(config, heads)


def to_config_json(
    config: ModelConfig,
    labels: Sequence[str] | None,
    roles: Mapping[str, int] | None,
    task: Task | None = None,
) -> dict[str, Any]:
    """`config.json` as T5Config reads it. The decoder begins with the token whose role is that, in the
    released models with the padding; their classifier's decoder reads the source."""
    roles = roles or {}
    pad = roles.get("pad")
    form = next(theirs for theirs, ours in FORMS.items() if ours == (config.activation, config.gated))
    content: dict[str, Any] = {
        **SETTINGS.to_json(config, CLASSES[task], task, labels),
        "num_decoder_layers": config.layers,
        "feed_forward_proj": form,
        # Before transformers 5 the first of these said the second, too.
        "tie_word_embeddings": config.tie_embeddings,
        "scale_decoder_outputs": config.output_scale,
        "is_encoder_decoder": True,
        "pad_token_id": pad,
        "eos_token_id": roles.get("end"),
        "decoder_start_token_id": roles.get("start", pad),
    }
    content |= {name: getattr(config, name) for name in DROPOUTS}
    usual = (None, config.dropout)
    content = {name: said for name, said in content.items() if name not in DROPOUTS or said not in usual}
    return content | ({"dense_head": True} if config.dense_head else {})


def from_config_json(content: Mapping[str, Any], shapes: Shapes, file: Path) -> ModelConfig:
    """Our config of T5Config's JSON; what it leaves out has the default of that class. Raises UserError for
    what we cannot build, such as an encoder and a decoder of different depth."""
    layers, key = content.get("num_layers", 6), "num_decoder_layers"
    if (given := content.get(key)) not in (None, layers):
        problem, hint = "encoder and decoder differ", f"num_layers is {layers}"
        raise UserError(problem, file=file, field=key, text=given, hint=hint)
    activation, gated = _form(content, file)
    rate = content.get("dropout_rate", 0.1)
    return SETTINGS.read(
        content, file, activation=activation, gated=gated, **_output(content, shapes),
        dense_head=content.get(
            "dense_head", bool({"classification_head.dense.weight", "qa_outputs.weight"} & shapes.keys())
        ),
        **{name: content.get(name, rate) for name in DROPOUTS},
    )  # fmt: skip


def _form(content: Mapping[str, Any], file: Path) -> tuple[str, bool]:
    """The activation and whether it gates. `dense_act_fn` and `is_gated_act`, which follow from the first
    key, have the last word in their code where they stand beside it."""
    said = str(content.get("feed_forward_proj", "relu"))
    if said not in FORMS:
        problem, hint = "this feed-forward is not supported", "one of " + ", ".join(FORMS)
        raise UserError(problem, file=file, field="feed_forward_proj", text=said, hint=hint)
    word = "gelu_new" if said == "gated-gelu" else said.split("-")[-1]
    only(content, {"dense_act_fn": word, "is_gated_act": FORMS[said][1]}, file)
    return FORMS[said]


def _output(content: Mapping[str, Any], shapes: Shapes) -> dict[str, bool]:
    """Whether the output is tied and scaled. `tie_word_embeddings` said both before transformers 5; what that
    writes always has it true, and the output is one of its own where the files hold two matrices that
    differ."""
    tied = content.get("tie_word_embeddings", True) is not False
    scaled = content.get("scale_decoder_outputs", tied)
    own = not tied or ("lm_head.weight" in shapes and not scaled)
    said = {"tie_embeddings": not own, "output_scale": scaled}
    return said | own_output(content, shapes, "lm_head.weight")


task_of = classification_task
