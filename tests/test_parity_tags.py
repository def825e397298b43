"""Law 8 for the heads of tags: folders of every family that has the class open in transformers and theirs
open here, with the same logits and loss, and go back with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
import test_parity
import torch
from test_parity import one_thread  # noqa: F401

from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.families.folder import read_folder
from gradus.nn.transformer import Transformer
from gradus.objectives import Task, TokenClassificationConfig
from gradus.training.learner import Learner

pytest.importorskip("transformers")

KINDS = {
    "gpt2": ("gpt2", test_parity, "GPT2ForTokenClassification"),
    "llama": ("llama tied", test_parity, "LlamaForTokenClassification"),
    "bert": ("bert", encoders, "ForTokenClassification"),
    "roberta": ("roberta", encoders, "ForTokenClassification"),
}
LABELS = ["O", "B-地名", "I-地名"]


def learner(config: ModelConfig) -> Learner:
    objective = TokenClassificationConfig().build(Task(config, "ner", labels=tuple(LABELS)))
    return Learner(Transformer(config), [objective]).initialise(4).eval()


def examples(config: ModelConfig) -> list[Example]:
    """Rows of different lengths; some tokens say no tag."""
    random, made = np.random.default_rng(2), []
    for row, length in enumerate((9, 23, 3)):
        ids, places = random.integers(8, 61, length), np.arange(1, length - 1, 1 + row)
        tagged = np.stack([places, np.arange(len(places)), random.integers(0, 3, len(places))], 1)
        segments = (np.zeros(length, np.int64),) if config.segments > 1 else ()
        made.append(Example(row, (ids,), segments=segments, tagged=tagged))
    return made


def agree(folder: Path, theirs: Any) -> None:
    """Logits, loss and what is likeliest, of each row alone and of all in a batch."""
    found = read_folder(folder)
    assert found.task == "tags" and found.labels == LABELS
    ours, tensors = learner(found.config), {}
    for name, part in found.tensors.items():
        head = name.startswith("heads.")
        tensors[f"heads.ner.{name.split('.', 2)[2]}" if head else f"transformer.{name}"] = part
    ours.load_state_dict(tensors)
    rows, losses, said = examples(found.config), 0.0, []
    for example in rows:
        (ids,) = example.sequences
        wanted = torch.full((1, len(ids)), -100)
        wanted[0, example.tagged[:, 0]] = torch.from_numpy(example.tagged[:, 2])
        with torch.no_grad():
            answer = theirs(input_ids=torch.from_numpy(ids)[None], labels=wanted)
            batch = ours.prepare([example])
            states = ours.transformer(batch.source)[: len(ids)]
            assert (ours.heads["ner"](states) - answer.logits[0]).abs().max() < 1e-5
            alone = float(ours(batch)[0])
        assert alone == pytest.approx(answer.loss.item() * len(example.tagged), rel=1e-4)
        losses += alone
        said += answer.logits[0][example.tagged[:, 0]].argmax(1).tolist()
    together = ours.prepare(rows)
    with torch.no_grad():
        assert float(ours(together)[0]) == pytest.approx(losses, rel=1e-5)
    predicted = ours.predict(together)[0]
    assert predicted[:, 1].int().tolist() == said
    assert float(predicted[:, 3].sum()) == pytest.approx(losses, rel=1e-5)
    (objective,) = ours.objectives
    lines = objective.of_rows(predicted.double().numpy(), rows)
    assert [int(np.isfinite(line).sum()) for line in lines] == [4 * len(row.tagged) for row in rows]


@pytest.mark.parametrize("family", KINDS)
def test_tags_both_ways(tmp_path: Path, family: str) -> None:
    name, module, kind = KINDS[family]
    row, names = module.ROWS[name], dict(enumerate(LABELS))
    kind = row.kind(kind) if module is encoders else kind
    changes = {"id2label": names, "label2id": {label: number for number, label in names.items()}}
    theirs = row.made("ForTokenClassification" if module is encoders else kind, **changes)
    theirs.save_pretrained(tmp_path / "theirs")
    agree(tmp_path / "theirs", theirs)
    folder = read_folder(tmp_path / "theirs")
    module.write(tmp_path / "back", folder.config, folder.tensors, "tags", LABELS)
    bits, back = theirs.state_dict(), module.opened(tmp_path / "back", kind).state_dict()
    assert bits.keys() == back.keys() and all(torch.equal(part, back[key]) for key, part in bits.items())

    config = row.own(tie_embeddings=True)
    made = {key.removeprefix("transformer."): part for key, part in learner(config).state_dict().items()}
    module.write(tmp_path / "ours", config, made, "tags", LABELS)
    unused = ("cls.predictions.", "bert.pooler.", "lm_head.") if module is encoders else ()
    opened = module.opened(tmp_path / "ours", kind, *([unused] if unused else []))
    assert opened.config.id2label == names
    agree(tmp_path / "ours", opened)
