"""Law 8 for the heads of question answering: folders of every family that has the class open in transformers
and theirs open here, with the same logits and loss, and go back with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
import test_parity
import test_parity_seq2seq
import torch
from test_parity import one_thread  # noqa: F401

from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.families.folder import read_folder
from gradus.nn.transformer import Transformer
from gradus.objectives import QuestionAnsweringConfig, Task
from gradus.training.learner import Learner

pytest.importorskip("transformers")

KINDS = {
    "gpt2": ("gpt2", test_parity, "GPT2ForQuestionAnswering"),
    "llama": ("llama tied", test_parity, "LlamaForQuestionAnswering"),
    "bert": ("bert", encoders, "ForQuestionAnswering"),
    "roberta": ("roberta", encoders, "ForQuestionAnswering"),
    "bart": ("bart", test_parity_seq2seq, "BartForQuestionAnswering"),
    "t5": ("t5", test_parity_seq2seq, "T5ForQuestionAnswering"),
}
SPANS = np.array([[4, 6, 3, 7], [-1, -1, 3, 20], [21, 21, 5, 21]])
"""An answer, none, and one of a single token."""


def learner(config: ModelConfig) -> Learner:
    objective = QuestionAnsweringConfig().build(Task(config, "squad"))
    return Learner(Transformer(config), [objective]).initialise(4).eval()


def examples(config: ModelConfig, start: int) -> list[Example]:
    """A row for every window, with segments and a decoder's input where the model asks."""
    random, made = np.random.default_rng(2), []
    for row, length in enumerate((9, 23, 22)):
        ids = random.integers(8, 61, length)
        segments = ((np.arange(length) > 2).astype(np.int64),) if config.segments > 1 else ()
        decoded = (np.concatenate([[start], ids]),) if config.encodes_and_decodes else ()
        made.append(Example(row, (ids,), segments=segments, decoded=decoded, spans=SPANS[row : row + 1]))
    return made


def agree(folder: Path, theirs: Any) -> None:
    """Logits and loss of each row alone: theirs has its padding in the softmax."""
    found = read_folder(folder)
    assert found.task == "spans" and found.labels is None
    ours = learner(found.config)
    tensors = {}
    for name, part in found.tensors.items():
        head = name.startswith("heads.")
        tensors[f"heads.squad.{name.split('.', 2)[2]}" if head else f"transformer.{name}"] = part
    ours.load_state_dict(tensors)
    (objective,) = ours.objectives
    for example in examples(found.config, getattr(theirs.config, "decoder_start_token_id", None) or 0):
        batch = ours.prepare([example])
        (targets,) = batch.targets
        inputs = {"input_ids": torch.from_numpy(example.sequences[0])[None]}
        if example.segments:
            inputs["token_type_ids"] = torch.from_numpy(example.segments[0])[None]
        with torch.no_grad():
            answer = theirs(**inputs, start_positions=targets.value[:, 0], end_positions=targets.value[:, 1])
            states = ours.transformer(batch.source, batch.decoded)[: example.states]
            logits, loss = ours.heads["squad"](states), float(ours(batch)[0])
        expected = torch.stack([answer.start_logits[0], answer.end_logits[0]], 1)
        assert (logits - expected).abs().max() < 1e-5
        assert loss == pytest.approx(answer.loss.item(), abs=1e-5)
        score, begin, end, *_ = ours.predict(batch)[0][0].tolist()
        span = expected[int(begin), 0] + expected[int(end), 1]
        assert score == pytest.approx(float(span), abs=1e-5)
        if example.spans[0, 0] < 0:
            where = 0 if found.config.arrangement == "encoder" else example.states - 1
            assert targets.value[0, :2].tolist() == [where, where]


@pytest.mark.parametrize("family", KINDS)
def test_spans_both_ways(tmp_path: Path, family: str) -> None:
    name, module, kind = KINDS[family]
    row = module.ROWS[name]
    kind = row.kind(kind) if module is encoders else kind
    theirs = row.made("ForQuestionAnswering" if module is encoders else kind)
    theirs.save_pretrained(tmp_path / "theirs")
    agree(tmp_path / "theirs", theirs)
    folder = read_folder(tmp_path / "theirs")
    module.write(tmp_path / "back", folder.config, folder.tensors, "spans")
    bits, back = theirs.state_dict(), module.opened(tmp_path / "back", kind).state_dict()
    assert bits.keys() == back.keys() and all(torch.equal(part, back[key]) for key, part in bits.items())

    config = row.own(tie_embeddings=True)
    made = {key.removeprefix("transformer."): part for key, part in learner(config).state_dict().items()}
    module.write(tmp_path / "ours", config, made, "spans")
    unused = ("cls.predictions.", "bert.pooler.", "lm_head.") if module is encoders else ()
    agree(tmp_path / "ours", module.opened(tmp_path / "ours", kind, *([unused] if unused else [])))
