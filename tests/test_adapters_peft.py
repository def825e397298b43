"""Adapters against the `peft` library: what a stage leaves opens there, on the folder it began with, and the
logits are those of the merged folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file
from test_adapters import EVERYWHERE, moved
from test_parity import END, PAD, one_thread  # noqa: F401
from tiny import tiny

import gradus
from gradus.core.model import ModelConfig
from gradus.families import preset
from gradus.families.adapter import write_adapter
from gradus.families.folder import read_folder, write_folder
from gradus.families.heads import Task as HeadTask
from gradus.nn.adapters import Adapters, merged
from gradus.nn.transformer import Transformer
from gradus.objectives import (
    ClassificationConfig,
    MultipleChoiceConfig,
    ObjectiveConfig,
    QuestionAnsweringConfig,
    Task,
    TokenClassificationConfig,
)
from gradus.training.learner import Learner

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

LABELS = ["差评", "中立", "好评"]
ROLES = {"pad": PAD, "end": END, "start": END}
SHAPE = {"layers": 2, "width": 32, "heads": 4, "context": 40, "vocab_size": 61, "initial_deviation": 0.2}
ANSWERS: dict[HeadTask, ObjectiveConfig] = {
    "classes": ClassificationConfig(), "tags": TokenClassificationConfig(),
    "spans": QuestionAnsweringConfig(), "choices": MultipleChoiceConfig(),
}  # fmt: skip
ROWS: list[tuple[str, HeadTask | None, list[str]]] = [
    ("bert-mini", "classes", ["query", "value"]),
    ("bert-mini", "classes", EVERYWHERE),
    ("bert-mini", "tags", ["key", "output"]),
    ("roberta-mini", "classes", EVERYWHERE),
    ("gpt1-mini", "classes", ["query", "value"]),
    ("gpt2-mini", "classes", ["query", "value"]),
    ("gpt2-mini", "classes", EVERYWHERE),
    ("gpt2-mini", "spans", ["*.blocks.0.*.key", "*.blocks.1.*.query", "*.blocks.1.*.value"]),
    ("gpt2-mini", "choices", ["value"]),
    ("gpt2-mini", None, EVERYWHERE),
    ("llama-mini", "classes", EVERYWHERE),
    ("llama-mini", None, ["query", "value"]),
    ("bart-mini", "classes", EVERYWHERE),
    ("t5-mini", "classes", EVERYWHERE),
    ("t5-mini", "spans", ["cross_attention"]),
    ("t5-v1.1-small", None, EVERYWHERE),
]


def learner(config: ModelConfig, task: HeadTask | None) -> Learner:
    made = Task(config, "sst", labels=tuple(LABELS) if task in ("classes", "tags") else ())
    objectives = [ANSWERS[task].build(made)] if task else []
    return Learner(Transformer(config), objectives).initialise(4).eval()


def write(path: Path, config: ModelConfig, tensors: dict[str, torch.Tensor], task: HeadTask | None) -> None:
    own = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    own = {name: tensor for name, tensor in own.items() if task or not name.startswith("heads.")}
    labels = LABELS if task in ("classes", "tags") else None
    write_folder(path, config, own, {"format_version": 1}, lambda path: None, labels, task=task, roles=ROLES)


def logits(model: Any, decoder: int | None) -> torch.Tensor:
    random = np.random.default_rng(0)
    found = []
    for length in (9, 23, 4):
        ids = torch.from_numpy(random.integers(8, 61, length))[None]
        ids[0, -1] = END
        inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if decoder else {})
        if "DoubleHeads" in model.config.architectures[0]:
            inputs = {"input_ids": ids[None], "mc_token_ids": torch.tensor([[length - 1]])}
        with torch.no_grad():
            answer = model.eval()(**inputs)
        names = ("mc_logits", "start_logits", "logits")
        found.append(next(answer[name] for name in names if name in answer).flatten())
    return torch.cat(found)


@pytest.mark.parametrize("name, task, on", ROWS, ids=lambda part: str(part)[:24])
def test_peft_opens_them_on_the_folder_they_began_with(
    name: str, task: HeadTask | None, on: list[str], tmp_path: Path
) -> None:
    config = ModelConfig.model_validate(preset(name) | SHAPE)
    made, adapters = learner(config, task), Adapters(rank=3, alpha=6, projections=on)
    write(tmp_path / "base", config, made.state_dict(), None)
    made.lighten(adapters, (), 1)
    moved(made, 0.1)
    write(tmp_path / "model", config, merged(made), task)
    whole = {name: tensor for name, tensor in made.state_dict().items() if name.startswith("heads.")}
    (tmp_path / "adapter").mkdir()
    write_adapter(tmp_path / "adapter", adapters, made.transformer, read_folder(tmp_path / "model"), whole,
                  tmp_path / "base")  # fmt: skip

    content = json.loads((tmp_path / "model" / "config.json").read_text())
    kind = getattr(transformers, content["architectures"][0])
    ours = kind.from_pretrained(tmp_path / "model")
    options = {"num_labels": len(LABELS)} if task in ("classes", "tags") else {}
    base = kind.from_pretrained(tmp_path / "base", **options)
    base.config.architectures = content["architectures"]
    decoder = config.encodes_and_decodes and task is None
    before, wanted = logits(base, decoder), logits(ours, decoder)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    there = set(peft.get_peft_model_state_dict(theirs))
    assert set(load_file(tmp_path / "adapter" / "adapter_model.safetensors")) == there
    found = logits(theirs, decoder)
    assert (before - wanted).abs().max() > 1e-2
    assert (found - wanted).abs().max() < 2e-5 * max(1.0, float(wanted.abs().max()))
    alone = logits(theirs.merge_and_unload(), decoder)
    assert (alone - wanted).abs().max() < 2e-5 * max(1.0, float(wanted.abs().max()))


def test_what_a_run_leaves_opens_there(tmp_path: Path) -> None:
    part = {"stages.finetune.adapters": {"rank": 4}, "stages.finetune.precision": "fp32"}
    says_the_same(gradus.run(tiny(tmp_path / "one.yaml", part), runs=tmp_path), {"num_labels": 2})


def test_a_vocabulary_that_grew_goes_along(tmp_path: Path) -> None:
    """Their folder whose tokenizer has no token for the roles of rows: theirs has to make room for them."""
    bytes_ = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({one: place for place, one in enumerate(bytes_)}, []))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    config = transformers.GPT2Config(vocab_size=256, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "theirs")
    inner.save(str(tmp_path / "theirs" / "tokenizer.json"))
    part = {"stages.finetune.adapters": {"rank": 4}, "stages.finetune.precision": "fp32",
            "stages.finetune.from": {"folder": str(tmp_path / "theirs")}}  # fmt: skip
    run = gradus.run(tiny(tmp_path / "one.yaml", part), runs=tmp_path, until="finetune")
    said = says_the_same(run, {"num_labels": 2})
    assert said["modules_to_save"] == ["score", "transformer.wte"]


def says_the_same(run: Path, options: dict[str, Any]) -> dict[str, Any]:
    """peft and our model of the run's last stage; what the adapter says of itself."""
    (stage,) = run.glob("stages/finetune-*")
    ours = gradus.load(stage / "model")
    said = json.loads((stage / "adapter" / "adapter_config.json").read_text())
    kind = transformers.AutoModelForSequenceClassification
    base = kind.from_pretrained(said["base_model_name_or_path"], **options)
    base.resize_token_embeddings(ours.opened.folder.config.vocab_size)
    theirs = peft.PeftModel.from_pretrained(base, stage / "adapter").eval()
    for text in ("a quiet joy", "太长"):
        ids = ours.tokenizer.encode(text).ids
        with torch.no_grad():
            found = theirs(torch.tensor([ids])).logits[0].numpy()
        assert np.abs(found - ours.logits([ids])[0]).max() < 1e-5
    return said
