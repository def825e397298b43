"""RoBERTa: presets, and how Hugging Face's Roberta classes name its parts and numbers, both ways.

Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach", and fairseq's code: BERT's layers
without segments and next sentences. It is written as `RobertaForMaskedLM` (`RobertaModel` without an output
transform), `RobertaForSequenceClassification`, `RobertaForMultipleChoice`, `RobertaForQuestionAnswering` or
`RobertaForTokenClassification`. Their table of segments has one row. Positions are counted from the padding's
id + 1 on (`position_offset`: 2 as released), so the table has that many rows more than the context. Heads,
but for those of spans and tags, have a layer of their own; that of choices is called pooler, which no other
class has: elsewhere nothing has taught it, and it is left out and told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.families.bert import (
    BODY,
    EMBEDDING,
    ENDINGS,
    FIELDS,
    LAYERS,
    ONLY,
    OUTPUT,
    POOLER,
    encoder_difference,
    encoder_json,
)
from gradus.families.heads import ROW_TASKS, SPANS, Shapes, Task, encoder_task
from gradus.families.settings import Settings
from gradus.families.table import Table

ARRANGED = BODY | {
    "norm_epsilon": 1e-5,
    "segments": 1,
    "position_offset": 2,
    "dense_head": True,
    "delimiters": 2,
    "output_transform": True,
    "output_bias": True,
}

PRESETS: dict[str, dict[str, Any]] = {
    # Section 4 has the shapes of BERT, and 4.4 50,265 tokens: 125M and (section 5) 355M parameters.
    "roberta": ARRANGED | {"layers": 12, "width": 768, "heads": 12, "context": 512},
    "roberta-large": ARRANGED | {"layers": 24, "width": 1024, "heads": 16, "context": 512},
    # For a laptop's CPU: the shape of `bert-mini`.
    "roberta-mini": ARRANGED | {"layers": 4, "width": 256, "heads": 4, "context": 512},
}

CLASSIFIER = {"dense": "classifier.dense", "score": "classifier.out_proj"}

TABLE = Table(
    title="RoBERTa",
    prefix="roberta.",
    # No model of ours has a pooler here: its name stands for the layer before choices.
    body={**EMBEDDING, **LAYERS, "pooler": POOLER},
    outside={
        "output_transform.dense": "lm_head.dense",
        "output_transform.norm": "lm_head.layer_norm",
        "output_bias": "lm_head.bias",
        "unembedding": "lm_head.decoder",
    },
    heads={
        **dict.fromkeys(ROW_TASKS, CLASSIFIER),
        "choices": {"dense": POOLER, "score": "classifier"},
        "spans": SPANS,
        "tags": {"score": "classifier"},
    },
    copies={"output_bias": ("lm_head.decoder.bias",)},
    no_weights=(r"embeddings\.position_ids", r"pooler\.dense\.(weight|bias)"),
    endings=ENDINGS,
)

SETTINGS = Settings(
    model_type="roberta",
    title="RoBERTa",
    positions_follow_padding=True,
    fields=FIELDS | {"vocab_size": ("vocab_size", 50265)},
    fixed=BODY | {"family": "roberta", "dense_head": True, "delimiters": 2},
    # Their layer before the vocabulary knows no other.
    words={"activation": {"gelu": "gelu", "gelu_python": "gelu"}},
    only=ONLY,
    free=OUTPUT | {"position_offset"},
)

CLASSES: dict[Task | None, tuple[str, str]] = {
    None: ("RobertaForMaskedLM", "RobertaModel"),
    **dict.fromkeys(ROW_TASKS, ("RobertaForSequenceClassification",) * 2),
    "choices": ("RobertaForMultipleChoice",) * 2,
    "spans": ("RobertaForQuestionAnswering",) * 2,
    "tags": ("RobertaForTokenClassification",) * 2,
}
"""Their class for a head, with an output transform and without."""


def expressible(config: ModelConfig, heads: Sequence[str] = ()) -> str | None:
    """Why Hugging Face's Roberta classes cannot hold this model with heads of these names; None where they
    can."""
    if config.pooler:
        return "its RoBERTa has `pooler: False`, not True: heads have a layer of their own (`dense_head`)"
    if not config.position_offset:
        return "its RoBERTa has a `position_offset` of at least 1: the padding's id + 1"
    return encoder_difference(SETTINGS, config, heads)


def to_config_json(
    config: ModelConfig,
    labels: Sequence[str] | None,
    roles: Mapping[str, int] | None,
    task: Task | None = None,
) -> dict[str, Any]:
    """`config.json` as RobertaConfig reads it; `labels` in order."""
    content, roles = encoder_json(CLASSES, SETTINGS, config, labels, task), roles or {}
    content["max_position_embeddings"] += config.position_offset
    content["pad_token_id"] = config.position_offset - 1
    return content | {"bos_token_id": roles.get("start"), "eos_token_id": roles.get("end")}


def from_config_json(content: Mapping[str, Any], shapes: Shapes, file: Path) -> ModelConfig:
    """Our config of RobertaConfig's JSON; what it leaves out has the default of that class.
    `classifier_dropout` is not read: a recipe says it as the objective's `dropout`.

    Raises UserError for what we cannot build, and without a `pad_token_id`, on which positions depend.
    """
    pad, rows = content.get("pad_token_id", 1), content.get("max_position_embeddings", 512)
    if not isinstance(pad, int) or pad < 0:
        hint = "positions are counted from the padding's id + 1 on"
        raise UserError("this should be a token's id", file=file, field="pad_token_id", text=pad, hint=hint)
    if isinstance(rows, int):
        content = {**content, "max_position_embeddings": rows - pad - 1}
    output = any(name.endswith("lm_head.dense.weight") for name in shapes)
    offset = {"position_offset": pad + 1}
    return SETTINGS.read(content, file, output_transform=output, output_bias=output, **offset)


def task_of(content: Mapping[str, Any], shapes: Shapes, file: Path) -> Task | None:
    """What the head among tensors of these names and shapes answers; see `encoder_task`."""
    return encoder_task(content, shapes, "classifier.out_proj.weight", file, "classifier.weight")
