"""BERT: presets, and how Hugging Face's Bert classes name its parts and numbers, both ways.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
section 3 and appendix A.2, and the code released with it. Which of their classes a folder is written for:

| our model | their class |
|---|---|
| without a head | `BertForMaskedLM`, or `BertModel` where it has no output transform |
| a next-sentence head | `BertForPreTraining`, or `BertForNextSentencePrediction` where it has none |
| classes or a number | `BertForSequenceClassification` |
| choices | `BertForMultipleChoice` |
| spans | `BertForQuestionAnswering` |
| tags | `BertForTokenClassification` |

A folder loses nothing: the pooler of a model that masked_lm alone has taught and the output transform beside
a classifier are written, too; the class that has no place for them leaves them out and says so. On a folder
of theirs without a pooler (`BertForMaskedLM` saves none) heads bring that layer along (`dense_head`), and it
is written as the pooler. The heads of spans and of tags read the states as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradus.core.model import ModelConfig
from gradus.families.heads import ROW_TASKS, SPANS, Shapes, Task, encoder_task
from gradus.families.settings import Settings
from gradus.families.table import Place, Table, joined

BODY: dict[str, Any] = {
    "arrangement": "encoder",
    "activation": "gelu",
    "embedding_norm": True,
    "norm_epsilon": 1e-12,
}
ARRANGED = BODY | {"segments": 2, "pooler": True, "output_transform": True, "output_bias": True}

PRESETS: dict[str, dict[str, Any]] = {
    # Section 3: "BERT-base (L=12, H=768, A=12, Total Parameters=110M)" with its 30,522 tokens.
    "bert": ARRANGED | {"layers": 12, "width": 768, "heads": 12, "context": 512},
    # "BERT-large (L=24, H=1024, A=16, Total Parameters=340M)"; counted, it has 336M.
    "bert-large": ARRANGED | {"layers": 24, "width": 1024, "heads": 16, "context": 512},
    # As released: `bert` with the 21,128 tokens of its Chinese vocabulary, most of them single characters.
    "bert-chinese": ARRANGED
    | {"layers": 12, "width": 768, "heads": 12, "context": 512}
    | {"vocab_size": 21128},
    # Turc et al. 2019, "Well-Read Students Learn Better", table 1: 41.7M, 29.1M, 11.3M and 4.4M parameters.
    "bert-medium": ARRANGED | {"layers": 8, "width": 512, "heads": 8, "context": 512},
    "bert-small": ARRANGED | {"layers": 4, "width": 512, "heads": 8, "context": 512},
    "bert-mini": ARRANGED | {"layers": 4, "width": 256, "heads": 4, "context": 512},
    "bert-tiny": ARRANGED | {"layers": 2, "width": 128, "heads": 2, "context": 512},
}

LAYERS: dict[str, str | Place] = {
    "blocks.*.attention.query_key_value": joined(
        "encoder.layer.*.attention.self.query",
        "encoder.layer.*.attention.self.key",
        "encoder.layer.*.attention.self.value",
    ),
    "blocks.*.attention.output": "encoder.layer.*.attention.output.dense",
    "blocks.*.attention_norm": "encoder.layer.*.attention.output.LayerNorm",
    "blocks.*.feed_forward.up": "encoder.layer.*.intermediate.dense",
    "blocks.*.feed_forward.down": "encoder.layer.*.output.dense",
    "blocks.*.feed_forward_norm": "encoder.layer.*.output.LayerNorm",
}
EMBEDDING = {
    "embedding.tokens": "embeddings.word_embeddings",
    "embedding.positions": "embeddings.position_embeddings",
    "embedding.segments": "embeddings.token_type_embeddings",
    "embedding.norm": "embeddings.LayerNorm",
}
POOLER = "pooler.dense"
ENDINGS = {".gamma": ".weight", ".beta": ".bias"}
"""What norms were called in TensorFlow and still are in the first released files."""

TABLE = Table(
    title="BERT",
    prefix="bert.",
    body={**EMBEDDING, **LAYERS, "pooler": POOLER},
    outside={
        "output_transform.dense": "cls.predictions.transform.dense",
        "output_transform.norm": "cls.predictions.transform.LayerNorm",
        "output_bias": "cls.predictions.bias",
        "unembedding": "cls.predictions.decoder",
    },
    heads={
        **dict.fromkeys(ROW_TASKS, {"dense": POOLER, "score": "classifier"}),
        "choices": {"dense": POOLER, "score": "classifier"},
        "spans": SPANS,
        "tags": {"score": "classifier"},
        "next": {"dense": POOLER, "score": "cls.seq_relationship"},
    },
    copies={"output_bias": ("cls.predictions.decoder.bias",)},
    no_weights=(r"embeddings\.position_ids",),
    endings=ENDINGS,
)

FIELDS: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 30522),
    "context": ("max_position_embeddings", 512),
    "width": ("hidden_size", 768),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "feed_forward": ("intermediate_size", 3072),
    "segments": ("type_vocab_size", 2),
    "activation": ("hidden_act", "gelu"),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    # They have none of its own: a key of ours, which their classes carry along.
    "embedding_dropout": ("embedding_dropout", None),
    "norm_epsilon": ("layer_norm_eps", 1e-12),
    "initial_deviation": ("initializer_range", 0.02),
}
"""Where transformers' BertConfig has a field, and its default."""

ONLY = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}

OUTPUT = frozenset({"output_transform", "output_bias"})
"""Both are there, or neither."""

SETTINGS = Settings(
    model_type="bert",
    title="BERT",
    fields=FIELDS,
    fixed=BODY | {"family": "bert"},
    words={
        "activation": {
            "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
            "relu": "relu", "silu": "silu", "swish": "silu",
        }
    },
    only=ONLY,
    free=OUTPUT | {"pooler", "dense_head"},
)  # fmt: skip

CLASSES: dict[Task | None, tuple[str, str]] = {
    None: ("BertForMaskedLM", "BertModel"),
    "next": ("BertForPreTraining", "BertForNextSentencePrediction"),
    **dict.fromkeys(ROW_TASKS, ("BertForSequenceClassification",) * 2),
    "choices": ("BertForMultipleChoice",) * 2,
    "spans": ("BertForQuestionAnswering",) * 2,
    "tags": ("BertForTokenClassification",) * 2,
}
"""Their class for a head, with an output transform and without."""


def expressible(config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
    """Why Hugging Face's Bert classes cannot hold this model with heads of these names; None where they can.

    A model without output transform and head goes as `BertModel`, whose states say nothing of a vocabulary.
    """
    if (config.pooler and config.dense_head) or (heads and not config.pooler and not config.dense_head):
        return "its BERT has one layer before a head: its pooler, or in its place that of `dense_head`"
    return encoder_difference(SETTINGS, config, heads)


def encoder_difference(settings: Settings, config: ModelConfig, heads: Sequence[str]) -> str | None:
    """What the classes of BERT and RoBERTa lack, but for the layers before a head."""
    title = f"its {settings.title} has"
    if config.output_transform != config.output_bias:
        return f"{title} `output_transform` and `output_bias` both, or neither"
    if not config.segments:
        return f"{title} at least one of `segments`, not 0"
    return settings.difference(config, heads)


def to_config_json(
    config: ModelConfig,
    labels: Sequence[str] | None,
    roles: Mapping[str, int] | None,
    task: Task | None = None,
) -> dict[str, Any]:
    """`config.json` as BertConfig reads it; `labels` in order."""
    content = encoder_json(CLASSES, SETTINGS, config, labels, task)
    content["pad_token_id"] = (roles or {}).get("pad")
    # The file's tensors do not say whether a pooler is the body's or a head's.
    return content if config.pooler else content | {"dense_head": config.dense_head}


def encoder_json(
    classes: Mapping[Task | None, tuple[str, str]],
    settings: Settings,
    config: ModelConfig,
    labels: Sequence[str] | None,
    task: Task | None,
) -> dict[str, Any]:
    """What the config.json of BERT and RoBERTa have in common."""
    named = classes[task][0 if config.output_transform else 1]
    content = settings.to_json(config, named, task, labels)
    if content["embedding_dropout"] == content["hidden_dropout_prob"]:
        del content["embedding_dropout"]
    return content


def from_config_json(content: Mapping[str, Any], shapes: Shapes, file: Path) -> ModelConfig:
    """Our config of BertConfig's JSON; what it leaves out has the default of that class. Which of pooler and
    output transform there are, the tensors say. `classifier_dropout` is not read: a recipe says it as the
    objective's `dropout`.

    Raises UserError for an activation that we do not have, for positions that are not absolute, for a decoder
    and for numbers that make no model.
    """
    found = {TABLE.loose(name) for name in shapes}
    pooled, output = f"{POOLER}.weight" in found, "cls.predictions.transform.dense.weight" in found
    of_head = content.get("dense_head", not pooled)
    return SETTINGS.read(
        content, file, pooler=pooled and of_head is not True, dense_head=of_head, output_transform=output,
        output_bias=output,
    )  # fmt: skip


def task_of(content: Mapping[str, Any], shapes: Shapes, file: Path) -> Task | None:
    """What the head among tensors of these names and shapes answers; see `encoder_task`."""
    if "cls.seq_relationship.weight" in shapes and "classifier.weight" not in shapes:
        return "next"
    return encoder_task(content, shapes, "classifier.weight", file)
