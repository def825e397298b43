"""Small encoders, ours and transformers', and rows of different lengths to use them on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradus.core.example import Ragged, ragged
from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder
from gradus.families import preset
from gradus.families.folder import ModelFolder, shapes, write_folder
from gradus.families.heads import Task
from gradus.nn.heads import LinearHead
from gradus.nn.transformer import Transformer

LABELS = ["差评", "中立", "好评"]
PAD = 1
ROLES = {"pad": PAD, "start": 0, "end": 2}
LENGTHS = (9, 40, 2, 23)
SHAPE: dict[str, Any] = {"layers": 3, "width": 32, "heads": 4, "context": 40, "vocab_size": 61}
SIZES = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 48, "pad_token_id": PAD,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A preset of ours, with `ours` changed, and the classes of theirs that `theirs` configures."""

    preset: str
    names: str
    theirs: dict[str, Any]
    ours: dict[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        return f"{self.names.lower()}."

    def own(self, **changes: Any) -> ModelConfig:
        return ModelConfig.model_validate(
            preset(self.preset) | SHAPE | {"feed_forward": 48} | self.ours | changes
        )

    def kind(self, name: str) -> Any:
        import transformers

        return getattr(transformers, f"{self.names}{name}")

    def made(self, name: str, **changes: Any) -> Any:
        """A random model of theirs; gains and biases are random, too."""
        model = self.kind(name)(self.kind("Config")(**SIZES, **self.theirs, **changes))
        torch.manual_seed(3)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                parameter.normal_(1.0 if "norm.weight" in key.lower() else 0.0, 0.15)
        return model.eval()


ROWS = {
    "bert": Row("bert-mini", "Bert", {"max_position_embeddings": 40}),
    "bert relu": Row(
        "bert-mini", "Bert",
        {"max_position_embeddings": 40, "hidden_act": "relu", "layer_norm_eps": 1e-3, "type_vocab_size": 3}
        | {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3},
        {"activation": "relu", "norm_epsilon": 1e-3, "segments": 3, "dropout": 0.2, "attention_dropout": 0.3},
    ),
    "roberta": Row(
        "roberta-mini", "Roberta",
        {"max_position_embeddings": 42, "layer_norm_eps": 1e-5, "type_vocab_size": 1},
    ),
}  # fmt: skip
HEADS: dict[Task, str] = {
    "classes": "ForSequenceClassification",
    "number": "ForSequenceClassification",
    "choices": "ForMultipleChoice",
}


def random_of(config: ModelConfig, outputs: int = 0) -> dict[str, Tensor]:
    """Random tensors of ours, by name, and with `outputs` those of a head."""
    wanted = dict(shapes(config))
    if outputs:
        head = LinearHead(config.width, outputs, bias=True, dense=config.dense_head)
        wanted |= {f"heads.sst.{name}": tuple(part.shape) for name, part in head.named_parameters()}
    random, tensors = torch.Generator().manual_seed(5), {}
    for name, shape in wanted.items():
        centre = 1.0 if "norm.weight" in name else 0.0
        tensors[name] = torch.empty(shape).normal_(centre, 0.15, generator=random)
    return tensors


def write(
    path: Path,
    config: ModelConfig,
    tensors: dict[str, Tensor],
    task: Task | None = None,
    labels: list[str] | None = None,
    objective: str = "classification",
) -> None:
    card = {"format_version": 1, "heads": {"sst": {"objective": objective}} if task else {}}
    with new_folder(path) as folder:
        write_folder(
            folder, config, tensors, card, lambda path: None,
            labels=labels, task=None if task == "next" else task, roles=ROLES,
        )  # fmt: skip


def build(folder: ModelFolder) -> Transformer:
    built = Transformer(folder.config).eval()
    built.load_state_dict({name: part for name, part in folder.tensors.items() if name[:5] != "heads"})
    return built


def head_of(folder: ModelFolder) -> LinearHead:
    parts = {name.split(".", 2)[2]: part for name, part in folder.tensors.items() if name[:5] == "heads"}
    outputs = len(parts["score.weight"])
    head = LinearHead(folder.config.width, outputs, bias=True, dense=folder.config.dense_head)
    head.load_state_dict(parts)
    return head.eval()


def opened(path: Path, kind: Any, unexpected: tuple[str, ...] = ()) -> Any:
    """Their model of a folder; nothing may be missing or misshapen, and only what begins so unexpected."""
    model, report = kind.from_pretrained(path, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    assert all(name.startswith(unexpected) for name in report["unexpected_keys"] if unexpected), report
    assert bool(report["unexpected_keys"]) == bool(unexpected), report
    return model.eval()


def batch(segments: int = 2) -> tuple[Ragged, dict[str, Tensor]]:
    """Rows of different lengths: ours end to end, theirs padded."""
    random = np.random.default_rng(0)
    rows = [random.integers(5, SHAPE["vocab_size"], length) for length in LENGTHS]
    types = [(np.arange(length) * segments // (length + 1)).astype(np.int64) for length in LENGTHS]
    tokens, belongs = (torch.full((len(rows), 40), fill) for fill in (PAD, 0))
    seen = torch.zeros(len(rows), 40, dtype=torch.int64)
    for at, (row, kind) in enumerate(zip(rows, types)):
        tokens[at, : len(row)], belongs[at, : len(row)] = torch.from_numpy(row), torch.from_numpy(kind)
        seen[at, : len(row)] = 1
    padded = {"input_ids": tokens, "attention_mask": seen, "token_type_ids": belongs}
    return ragged(rows, segments=types if segments > 1 else ()), padded


def pooled(ours: Transformer, states: Tensor, source: Ragged) -> Tensor:
    return ours.pooled(states[torch.from_numpy(source.offsets[:-1])])
