"""Small model folders with random weights, of ours and of transformers, and rows to use them on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder
from gradus.data.formats import Pair, Single
from gradus.families.folder import write_folder
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, ClassificationConfig, Task
from gradus.pipeline.models.serving import Model, load, row_template
from gradus.tokenizers import Tokenizer
from gradus.training.learner import Learner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXTS = [
    "The film was a quiet joy from the first scene to the last.",
    "这部电影从头到尾都很安静，也很动人。",
    "A dull, noisy and far too long evening; we left early.",
    "故事太长，演员也没有精神，我们提前走了。",
    "Nobody expects a masterpiece, and nobody gets one 🙂.",
]
CONTEXT = 64
LABELS = ("坏", "好", "so-so")
SINGLE = Single(text="text", label="label")
PAIR = Pair(first="premise", second="hypothesis", label="label")


def written(
    path: Path, tokenizer: Tokenizer, form: Single | Pair | None, auxiliary: bool = True, **card
) -> Path:
    """A model folder as a stage leaves it, with random weights."""
    config = ModelConfig(
        layers=2, width=32, heads=2, context=CONTEXT, vocab_size=tokenizer.size, initial_deviation=0.3
    )
    labels = LABELS if form else ()
    objectives = [ClassificationConfig()] if form else [CausalLMConfig()]
    if form and auxiliary:
        objectives.append(CausalLMConfig(weight=0.5))
    task = Task(config, "finetune", labels)
    learner = Learner(Transformer(config), [one.build(task) for one in objectives]).initialise(5)
    about = {
        "format_version": 1, "stage": "finetune", "fingerprint": "f", "model": config.plain(),
        "roles": tokenizer.roles, "objectives": [one.plain() for one in objectives],
        "heads": {"finetune": {"objective": "classification", "labels": list(labels)}} if form else {},
        "labels": list(labels) or None,
    }  # fmt: skip
    if form is None:
        about |= {"windows": "contiguous", "encoding": "utf-8", "documents": "file"}
    else:
        about |= {"format": form.plain(), "long": "truncate", "reader": {}}
    template = row_template(form, config) if form else None
    with new_folder(path) as folder:
        write_folder(
            folder, config,
            {name.removeprefix("transformer."): tensor for name, tensor in learner.state_dict().items()},
            about | card, lambda to: tokenizer.save(to, template, config.context),
            labels=labels or None, pad_id=tokenizer.role("pad"),
        )  # fmt: skip
    return path


def foreign(path: Path, tokenizer: Tokenizer | None, kind: type, **options) -> PreTrainedModel:
    """Writes a folder as transformers does, with random weights; returns their model."""
    import transformers

    config = transformers.OpenAIGPTConfig(
        vocab_size=330, n_positions=40, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2, **options
    )
    torch.manual_seed(3)
    model = kind(config).eval()
    model.save_pretrained(path)
    if tokenizer is not None:
        tokenizer.save(path)
    return model


def use(folder: Path, **options) -> Model:
    """The model of a folder, on the CPU."""
    return load(folder, device="cpu", **options)


def rows_file(path: Path, count: int, labelled: bool = True) -> Path:
    """JSON lines of texts in turn, no two the same, and with `labelled` of labels in turn."""
    lines = []
    for number in range(count):
        label = {"label": LABELS[number % 3]} if labelled else {}
        lines.append(json.dumps({"text": f"{TEXTS[number % 5]} {number}", **label}, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
