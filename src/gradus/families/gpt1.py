"""GPT-1: presets, and how Hugging Face's OpenAIGPT classes name its parts and numbers, both ways.

Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training".
Their projections are `Conv1D`: the weight is stored [in, out] where ours is [out, in].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradus.core.model import ModelConfig
from gradus.families.heads import ROW_TASKS, SUMMARY, Shapes, Task, generative_task, own_output
from gradus.families.settings import Settings
from gradus.families.table import Place, Table, transposed

PRESETS: dict[str, dict[str, Any]] = {
    # The paper's section 4.1: 117M parameters with its 40,478 tokens. The feed-forward is 4 x width: 3072.
    "gpt1": {"layers": 12, "width": 768, "heads": 12, "context": 512},
    # Section 5 and table 5: "a single layer 2048 unit LSTM using the same framework".
    "lstm": {"body": "lstm", "layers": 1, "units": 2048, "width": 768, "context": 512},
    # Pre-trains to useful states on a laptop's CPU in an hour: 3.2M parameters beside the vocabulary's.
    "gpt1-mini": {"layers": 4, "width": 256, "heads": 4, "context": 256},
    # For trying a recipe and for tests: 0.4M parameters beside the vocabulary's.
    "gpt1-tiny": {"layers": 2, "width": 128, "heads": 2, "context": 128},
}

LAYERS: dict[str, str | Place] = {
    "blocks.*.attention.query_key_value": transposed("h.*.attn.c_attn"),
    "blocks.*.attention.output": transposed("h.*.attn.c_proj"),
    "blocks.*.attention_norm": "h.*.ln_1",
    "blocks.*.feed_forward.up": transposed("h.*.mlp.c_fc"),
    "blocks.*.feed_forward.down": transposed("h.*.mlp.c_proj"),
    "blocks.*.feed_forward_norm": "h.*.ln_2",
}
HEADS: dict[Task, dict[str, str]] = {
    **dict.fromkeys(ROW_TASKS, {"score.weight": "score.weight"}),
    "choices": {"score": "multiple_choice_head.summary"},
}

TABLE = Table(
    title="GPT-1",
    prefix="transformer.",
    body={
        "embedding.tokens": "tokens_embed",
        "embedding.positions": "positions_embed",
        **LAYERS,
    },
    outside={"unembedding": "lm_head"},
    heads=HEADS,
    no_weights=(r"h\.\d+\.attn\.bias",),
)

FIELDS: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 40478),
    "context": ("n_positions", 512),
    "width": ("n_embd", 768),
    "layers": ("n_layer", 12),
    "heads": ("n_head", 12),
    "activation": ("afn", "gelu"),
    "dropout": ("resid_pdrop", 0.1),
    "attention_dropout": ("attn_pdrop", 0.1),
    "embedding_dropout": ("embd_pdrop", 0.1),
    "norm_epsilon": ("layer_norm_epsilon", 1e-5),
    "initial_deviation": ("initializer_range", 0.02),
    "tie_embeddings": ("tie_word_embeddings", True),
}
"""Where transformers' OpenAIGPTConfig has a field, and its default."""

SETTINGS = Settings(
    model_type="openai-gpt",
    title="GPT-1",
    fields=FIELDS,
    fixed={"family": "gpt1"},
    # Their "gelu" is the tanh form; they have no exact one.
    words={"activation": {"gelu": "gelu_tanh", "gelu_new": "gelu_tanh", "relu": "relu"}},
)

CLASSES: dict[Task | None, str] = {
    None: "OpenAIGPTLMHeadModel",
    **dict.fromkeys(ROW_TASKS, "OpenAIGPTForSequenceClassification"),
    "choices": "OpenAIGPTDoubleHeadsModel",
}


def expressible(config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
    """Why Hugging Face's OpenAIGPT classes cannot hold this model with heads of these names; None where
    they can.
    """
    if not config.tie_embeddings and heads:
        return "its GPT-1 has no output embedding of its own beside a head"
    return SETTINGS.difference(config, heads)


def to_config_json(
    config: ModelConfig,
    labels: Sequence[str] | None,
    roles: Mapping[str, int] | None,
    task: Task | None = None,
) -> dict[str, Any]:
    """`config.json` as OpenAIGPTConfig reads it: that of a sequence classifier with `labels` (in order), of
    its regression, or of the double-headed class.
    """
    content = SETTINGS.to_json(config, CLASSES[task], task, labels)
    if roles and "pad" in roles:
        content["pad_token_id"] = roles["pad"]
    return content | (SUMMARY if task == "choices" else {})


def from_config_json(content: Mapping[str, Any], shapes: Shapes, file: Path) -> ModelConfig:
    """Our config of OpenAIGPTConfig's JSON; what it leaves out has the default of that class.

    Raises UserError for an activation that we do not have and for numbers that make no model.
    """
    return SETTINGS.read(content, file, **own_output(content, shapes, "lm_head.weight"))


def task_of(content: Mapping[str, Any], shapes: Shapes, file: Path) -> Task | None:
    """What the head among tensors of these names and shapes answers; see `generative_task`."""
    return generative_task(content, shapes, TABLE.prefix, file)
