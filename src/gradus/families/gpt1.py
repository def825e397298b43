"""GPT-1: presets, and the names that Hugging Face's OpenAIGPT classes give its parts, both ways.

Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training".
Their projections are `Conv1D`: the weight is stored [in, out] where ours is [out, in].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.families.heads import Task

if TYPE_CHECKING:
    from torch import Tensor

MODEL_TYPE = "openai-gpt"

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

ACTIVATIONS = {"gelu_tanh": "gelu", "relu": "relu"}
"""Ours -> theirs. Their "gelu" is the tanh form; they have no exact one."""
_THEIR_ACTIVATIONS = {"gelu": "gelu_tanh", "gelu_new": "gelu_tanh", "relu": "relu"}

_OUTER = {"embedding.tokens": "tokens_embed", "embedding.positions": "positions_embed"}
_UNEMBEDDING, _THEIR_UNEMBEDDING = "unembedding.weight", "lm_head.weight"
_INNER = {
    "attention.query_key_value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "attention_norm": "ln_1",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
    "feed_forward_norm": "ln_2",
}
_HEADS: dict[Task, str] = {
    "classes": "score",
    "number": "score",
    "choices": "multiple_choice_head.summary",
}
_SUMMARY: dict[str, Any] = {
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "summary_activation": None,
    "summary_proj_to_labels": True,
}
"""How the double-headed class reads the extract token: a linear layer with one output, and nothing else."""
_THEIR_OUTER = {theirs: ours for ours, theirs in _OUTER.items()}
_THEIR_INNER = {theirs: ours for ours, theirs in _INNER.items()}
_OUR_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_THEIR_BLOCK = re.compile(r"h\.(\d+)\.(.+)\.(weight|bias)")


def expressible(config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
    """Why Hugging Face's OpenAIGPT classes cannot hold this model with heads of these names; None where
    they can.
    """
    if config.body != "transformer":
        return "its GPT-1 is a transformer, not an LSTM"
    if config.arrangement != "decoder":
        return f"its GPT-1 is a decoder, not an {config.arrangement.replace('_', '-')}"
    if config.positions != "learned":
        return f"its GPT-1 has learned positions, not {config.positions}"
    if config.norm != "after":
        return "its GPT-1 has layer norm after the residual sum only"
    if not config.tie_embeddings and heads:
        return "its GPT-1 has no output embedding of its own beside a head"
    if config.hidden != 4 * config.width:
        return f"its GPT-1 has a feed-forward of 4 x width ({4 * config.width}), not {config.hidden}"
    if config.activation not in ACTIVATIONS:
        return f"its GPT-1 knows the activations {', '.join(ACTIVATIONS)}, not {config.activation}"
    if len(heads) > 1:
        return f"its GPT-1 has one head, not {len(heads)}"
    return None


def obstacle(task: Task, bias: bool) -> str | None:
    """Why those classes cannot hold a head for this task, with or without a bias; None where they can."""
    if bias == (task == "choices"):
        return None
    return f"its GPT-1 has a linear layer {'without' if bias else 'with'} bias there"


def to_config_json(
    config: ModelConfig, labels: Sequence[str] | None, pad_id: int | None, task: Task | None = None
) -> dict[str, Any]:
    """`config.json` as OpenAIGPTConfig reads it: that of a sequence classifier with `labels` (in order), of
    its regression, or of the double-headed class.
    """
    content: dict[str, Any] = {
        "model_type": MODEL_TYPE,
        "architectures": ["OpenAIGPTLMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "afn": ACTIVATIONS[config.activation],
        "resid_pdrop": config.dropout,
        "attn_pdrop": config.dropout if config.attention_dropout is None else config.attention_dropout,
        "embd_pdrop": config.dropout if config.embedding_dropout is None else config.embedding_dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "initializer_range": config.initial_deviation,
        "tie_word_embeddings": config.tie_embeddings,
        "dtype": "float32",
    }
    if config.embedding_dropout_on != "sum":  # a key of ours, which theirs carry along
        content["embedding_dropout_on"] = config.embedding_dropout_on
    if pad_id is not None:
        content["pad_token_id"] = pad_id
    if task == "choices":
        return content | _SUMMARY | {"architectures": ["OpenAIGPTDoubleHeadsModel"]}
    if task is not None:
        content["architectures"] = ["OpenAIGPTForSequenceClassification"]
        content["problem_type"] = "regression" if task == "number" else "single_label_classification"
        names = ["LABEL_0"] if task == "number" else labels or ()
        content["id2label"] = {str(index): label for index, label in enumerate(names)}
        content["label2id"] = {label: index for index, label in enumerate(names)}
    return content


def task_of(content: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], file: Path) -> Task | None:
    """What the head among tensors of these names and shapes answers, None where there is none.

    As `OpenAIGPTForSequenceClassification` has it, one output without a `problem_type` is a number. Raises
    UserError for several labels or numbers a row, and for a summary of choices that is no linear layer on
    the last token.
    """
    rows = {name.removeprefix("transformer."): shape[0] for name, shape in shapes.items() if shape}
    if "multiple_choice_head.summary.weight" in rows:
        for key, usual in _SUMMARY.items():
            given = content.get(key, usual)
            if given != usual and (key, given) != ("summary_type", "last"):
                hint = f"only {usual!r} is"
                raise UserError("this head is not supported", file=file, field=key, text=given, hint=hint)
        return "choices"
    if "score.weight" not in rows:
        return None
    kind = content.get("problem_type")
    if kind == "multi_label_classification" or (kind == "regression" and rows["score.weight"] > 1):
        hint = "one label or number a row is"
        raise UserError("this head is not supported", file=file, field="problem_type", text=kind, hint=hint)
    return "number" if kind == "regression" or (kind is None and rows["score.weight"] == 1) else "classes"


def from_config_json(content: Mapping[str, Any], file: Path) -> ModelConfig:
    """Our config of OpenAIGPTConfig's JSON; what it leaves out has the default of that class.

    Raises UserError for an activation that we do not have and for numbers that make no model.
    """
    theirs = str(content.get("afn", "gelu"))
    if theirs not in _THEIR_ACTIVATIONS:
        legal = "one of " + ", ".join(_THEIR_ACTIVATIONS)
        raise UserError("this activation is not supported", file=file, field="afn", text=theirs, hint=legal)
    dropout = content.get("resid_pdrop", 0.1)
    attention, embedding = content.get("attn_pdrop", 0.1), content.get("embd_pdrop", 0.1)
    fields = {
        "family": "gpt1",
        "vocab_size": content.get("vocab_size", 40478),
        "context": content.get("n_positions", 512),
        "width": content.get("n_embd", 768),
        "layers": content.get("n_layer", 12),
        "heads": content.get("n_head", 12),
        "activation": _THEIR_ACTIVATIONS[theirs],
        "dropout": dropout,
        "attention_dropout": None if attention == dropout else attention,
        "embedding_dropout": None if embedding == dropout else embedding,
        "embedding_dropout_on": content.get("embedding_dropout_on", "sum"),
        "norm_epsilon": content.get("layer_norm_epsilon", 1e-5),
        "initial_deviation": content.get("initializer_range", 0.02),
        "tie_embeddings": content.get("tie_word_embeddings", True),
    }
    try:
        return ModelConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or None
        raise UserError(f"these numbers make no model: {first['msg']}", file=file, field=where) from None


def to_names(tensors: Mapping[str, Tensor], task: Task | None = None) -> dict[str, Tensor]:
    """Our tensors under Hugging Face's names; the one head `heads.NAME.score` becomes `score`, or the summary
    of choices."""
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith("heads."):
            renamed[f"{_HEADS[task or 'classes']}.{name.rsplit('.', 1)[1]}"] = tensor
            continue
        if name == _UNEMBEDDING:
            renamed[_THEIR_UNEMBEDDING] = tensor
            continue
        block = _OUR_BLOCK.fullmatch(name)
        if block:
            theirs = f"transformer.h.{block[1]}.{_INNER[block[2]]}.{block[3]}"
            renamed[theirs] = tensor.t() if tensor.dim() == 2 else tensor
        else:
            outer, kind = name.rsplit(".", 1)
            renamed[f"transformer.{_OUTER[outer]}.{kind}"] = tensor
    return renamed


def from_name(name: str) -> tuple[str, bool] | None:
    """Our name of one of theirs, and whether its matrix is transposed.

    The head is `score`, that of the double-headed class, too, and `lm_head.weight` is `unembedding.weight`.
    None for what is no weight of the model: the causal masks of old files. Raises KeyError for a name that
    the family does not have.
    """
    bare = name.removeprefix("transformer.")
    if bare == _THEIR_UNEMBEDDING:
        return _UNEMBEDDING, False
    head, _, kind = bare.rpartition(".")
    if head in _HEADS.values() and (kind == "weight" or head != "score"):
        return f"score.{kind}", False
    if re.fullmatch(r"h\.\d+\.attn\.bias", bare):
        return None
    block = _THEIR_BLOCK.fullmatch(bare)
    if block:
        matrix = block[3] == "weight" and not block[2].startswith("ln_")
        return f"blocks.{block[1]}.{_THEIR_INNER[block[2]]}.{block[3]}", matrix
    outer, _, kind = bare.rpartition(".")
    if kind != "weight":
        raise KeyError(name)
    return f"{_THEIR_OUTER[outer]}.weight", False
