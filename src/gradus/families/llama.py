"""Llama: presets, and how Hugging Face's Llama classes name its parts and numbers, both ways.

Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", section 2.2: RMS norm before each
branch, a feed-forward gated by SiLU, rotary positions, no biases; since Llama 2 (Touvron et al. 2023, 2.2)
heads share keys and values. Today's inference engines run this form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.families.files import object_at
from gradus.families.heads import ROW_TASKS, SPANS, Shapes, Task, generative_task, own_output
from gradus.families.settings import Settings
from gradus.families.table import Table, joined

ARRANGED: dict[str, Any] = {
    "positions": "rotary",
    "norm": "before",
    "norm_kind": "rms",
    "activation": "silu",
    "gated": True,
    "biases": False,
    "dropout": 0.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    # For a laptop's CPU. The gated feed-forward has three matrices, so 8/3 x width keeps GPT's size (Touvron
    # et al. 2023, section 2.2), here rounded up to a multiple of 64.
    "llama-mini": ARRANGED
    | {"layers": 4, "width": 256, "heads": 4, "kv_heads": 2, "feed_forward": 704, "context": 256},
    # As released, with 32,000 tokens.
    "llama-2-7b": ARRANGED
    | {"layers": 32, "width": 4096, "heads": 32, "feed_forward": 11008, "context": 4096}
    | {"tie_embeddings": False},
    # As released, with 128,256 tokens, but for the scaling of its turns ("rope_type": "llama3"), which
    # stretches a context of 8,192 to 131,072 and which we do not have.
    "llama-3.2-1b": ARRANGED
    | {"layers": 16, "width": 2048, "heads": 32, "kv_heads": 8, "feed_forward": 8192, "context": 8192}
    | {"rotary_base": 500_000.0},
}

TABLE = Table(
    title="Llama",
    prefix="model.",
    # The name of their class's body was another once, and stays.
    prefixes={"spans": "transformer."},
    body={
        "embedding.tokens": "embed_tokens",
        "blocks.*.attention.query_key_value": joined(
            "layers.*.self_attn.q_proj", "layers.*.self_attn.k_proj", "layers.*.self_attn.v_proj"
        ),
        "blocks.*.attention.output": "layers.*.self_attn.o_proj",
        "blocks.*.attention_norm": "layers.*.input_layernorm",
        "blocks.*.feed_forward.gate": "layers.*.mlp.gate_proj",
        "blocks.*.feed_forward.up": "layers.*.mlp.up_proj",
        "blocks.*.feed_forward.down": "layers.*.mlp.down_proj",
        "blocks.*.feed_forward_norm": "layers.*.post_attention_layernorm",
        "final_norm": "norm",
    },
    outside={"unembedding": "lm_head"},
    heads={
        **dict.fromkeys(ROW_TASKS, {"score.weight": "score.weight"}),
        "spans": SPANS,
        "tags": {"score": "score"},
    },
    no_weights=(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
)

SETTINGS = Settings(
    model_type="llama",
    title="Llama",
    fields={
        "vocab_size": ("vocab_size", 32000),
        "context": ("max_position_embeddings", 2048),
        "width": ("hidden_size", 4096),
        "layers": ("num_hidden_layers", 32),
        "heads": ("num_attention_heads", 32),
        "kv_heads": ("num_key_value_heads", None),
        "head_width": ("head_dim", None),
        "feed_forward": ("intermediate_size", 11008),
        "rotary_base": ("rope_theta", 10_000.0),
        "activation": ("hidden_act", "silu"),
        "attention_dropout": ("attention_dropout", 0.0),
        # Theirs have no other dropout: keys of ours, which they carry along.
        "dropout": ("dropout", 0.0),
        "embedding_dropout": ("embedding_dropout", 0.0),
        "norm_epsilon": ("rms_norm_eps", 1e-6),
        "initial_deviation": ("initializer_range", 0.02),
        "tie_embeddings": ("tie_word_embeddings", False),
    },
    fixed=ARRANGED | {"family": "llama"},
    words={
        "activation": {
            "silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu",
            "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
        }
    },
    only={"attention_bias": False, "mlp_bias": False, "partial_rotary_factor": 1.0},
)  # fmt: skip

CLASSES: dict[Task | None, str] = {
    None: "LlamaForCausalLM",
    **dict.fromkeys(ROW_TASKS, "LlamaForSequenceClassification"),
    "spans": "LlamaForQuestionAnswering",
    "tags": "LlamaForTokenClassification",
}


def expressible(config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
    """Why Hugging Face's Llama classes cannot hold this model with heads of these names; None where they
    can."""
    if config.width % config.heads:
        return f"its Llama has a width that is a multiple of its heads, not {config.width} for {config.heads}"
    return SETTINGS.difference(config, heads)


def to_config_json(
    config: ModelConfig,
    labels: Sequence[str] | None,
    roles: Mapping[str, int] | None,
    task: Task | None = None,
) -> dict[str, Any]:
    """`config.json` as LlamaConfig reads it. Their classifier reads the last token that is no padding."""
    roles = roles or {}
    end = roles.get("end")
    ids = {"bos_token_id": roles.get("start", end), "eos_token_id": end, "pad_token_id": roles.get("pad")}
    # As transformers 5 says it; `rope_theta` stands beside it for tools that read what transformers 4 wrote.
    turns = {"rope_parameters": {"rope_theta": config.rotary_base, "rope_type": "default"}}
    return SETTINGS.to_json(config, CLASSES[task], task, labels) | turns | ids


def from_config_json(content: Mapping[str, Any], shapes: Shapes, file: Path) -> ModelConfig:
    """Our config of LlamaConfig's JSON; what it leaves out has the default of that class. Raises UserError
    for what we cannot build, such as turns that are scaled."""
    changes = own_output(content, shapes, "lm_head.weight")
    return SETTINGS.read({**content, "rope_theta": _base_of_turns(content, file)}, file, **changes)


def _base_of_turns(content: Mapping[str, Any], file: Path) -> Any:
    """`rope_parameters` says it since transformers 5; before, `rope_theta` beside a `rope_scaling`."""
    base: Any = content.get("rope_theta", 10_000.0)
    for key in ("rope_parameters", "rope_scaling"):
        given = object_at(content, key, file)
        kind = given.get("rope_type", given.get("type", "default"))
        if kind != "default" or given.get("partial_rotary_factor", 1) != 1:
            field, text = ("rope_type", kind) if kind != "default" else ("partial_rotary_factor", given)
            hint = "only turns of every channel that are not scaled are: 'default'"
            raise UserError("this is not supported", file=file, field=f"{key}.{field}", text=text, hint=hint)
        base = given.get("rope_theta", base)
    return base


def task_of(content: Mapping[str, Any], shapes: Shapes, file: Path) -> Task | None:
    """What the head among tensors of these names and shapes answers; see `generative_task`."""
    return generative_task(content, shapes, TABLE.prefix, file)
