"""Heads for choices and numbers, ours and transformers': the same logits, losses and bits, both ways.

Its double-headed class ties the embeddings the other way round than its language model, so each of its
classes is loaded in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder
from gradus.families import FAMILIES, Task, gpt1
from gradus.families.folder import ModelFolder, read_folder, write_folder
from gradus.nn.transformer import Transformer
from gradus.objectives import (
    CausalLMConfig,
    ClassificationConfig,
    MultipleChoiceConfig,
    ObjectiveConfig,
    RegressionConfig,
)
from gradus.objectives import Task as ObjectiveTask
from gradus.training.learner import Learner
from gradus.training.transfer import transfer

transformers = pytest.importorskip("transformers")

CONFIG = ModelConfig(layers=2, width=32, heads=4, context=40, vocab_size=61, initial_deviation=0.3)
HEAD: dict[Task, ObjectiveConfig] = {
    "classes": ClassificationConfig(),
    "number": RegressionConfig(),
    "choices": MultipleChoiceConfig(),
}
LABELS = ("坏", "中", "好")
CLASS = {
    "classes": "OpenAIGPTForSequenceClassification",
    "number": "OpenAIGPTForSequenceClassification",
    "choices": "OpenAIGPTDoubleHeadsModel",
}
MADE = {"vocab_size": 61, "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
Answers = dict[str, np.ndarray]


def answered(name: str, folder: Path, rows: Answers, made: dict[str, Any] | None = None) -> Answers:
    """What transformers' class of that name answers. With `made`, a random model of that configuration, which
    is then saved to `folder`."""
    kind = getattr(transformers, name)
    if made is not None:
        torch.manual_seed(1)
        model = kind(transformers.OpenAIGPTConfig(**made))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.3)
        model.eval().save_pretrained(folder)
    else:
        model, report = kind.from_pretrained(folder, output_loading_info=True)
        assert not any(report.values()), report
    with torch.no_grad():
        answer = model.eval()(**{key: torch.from_numpy(array) for key, array in rows.items()})
    return {key: value.numpy() for key, value in answer.items() if isinstance(value, torch.Tensor)}


def in_a_fresh_process(rows: Answers, *jobs: tuple[Path, dict[str, Any] | None]) -> list[Answers]:
    """What the double-headed class answers: for each job a folder, and how to make its model if it is new."""
    where = jobs[0][0].parent
    np.savez(where / "rows.npz", **rows)
    (where / "jobs.json").write_text(json.dumps([[str(folder), made] for folder, made in jobs]))
    command = [sys.executable, "-W", "ignore", __file__, str(where)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [dict(np.load(f"{folder}.npz")) for folder, _ in jobs]


def work(where: Path) -> None:
    """What that process does."""
    rows = dict(np.load(where / "rows.npz"))
    for folder, made in json.loads((where / "jobs.json").read_text()):
        np.savez(f"{folder}.npz", **answered(CLASS["choices"], Path(folder), rows, made))


def examples() -> list[Example]:
    """Four rows of three answers each, no two of a length."""
    random, lengths = np.random.default_rng(0), iter([9, 40, 3, 23, 24, 5, 31, 12, 17, 8, 2, 39])
    return [
        Example(row, tuple(random.integers(1, 61, next(lengths)) for _ in range(3)), label=row % 3)
        for row in range(4)
    ]


def padded(rows: list[Example]) -> dict[str, np.ndarray]:
    """As its double-headed class wants them: [B, C, T], where to read, and -100 for what is not scored."""
    tokens = np.zeros((4, 3, 40), np.int64)
    scored = np.full_like(tokens, -100)
    for row in rows:
        for choice, sequence in enumerate(row.sequences):
            tokens[row.row, choice, : len(sequence)] = scored[row.row, choice, : len(sequence)] = sequence
    last = np.array([[len(sequence) - 1 for sequence in row.sequences] for row in rows])
    right = np.array([row.label for row in rows], np.int64)
    return {"input_ids": tokens, "labels": scored, "mc_token_ids": last, "mc_labels": right}


def learner_of(configs: list[ObjectiveConfig], labels: tuple[str, ...] = ()) -> Learner:
    built = [config.build(ObjectiveTask(CONFIG, "quiz", labels)) for config in configs]
    return Learner(Transformer(CONFIG), built).initialise(4).eval()


def opened(folder: ModelFolder, configs: list[ObjectiveConfig], labels: tuple[str, ...] = ()) -> Learner:
    """A folder's weights in a learner; none may be new or lost."""
    learner = learner_of(configs, labels)
    head = next(name.split(".")[1] for name in folder.stored if name.startswith("heads."))
    moved = transfer(learner, folder.tensors, {"quiz": head}, str(folder.path))
    assert {one.what for one in moved} == {"loaded"}
    return learner


def tensors_of(learner: Learner) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if name.endswith("score.bias"):
                parameter.fill_(0.25)
    return {name.removeprefix("transformer."): part for name, part in learner.state_dict().items()}


def write(path: Path, tensors: dict[str, torch.Tensor], task: Task | None, labels: Any = None) -> None:
    card = {"format_version": 1, "heads": {"quiz": {}}}
    with new_folder(path) as folder:
        write_folder(
            folder, CONFIG, tensors, card, lambda path: None, pad_id=0, task=task, labels=labels or None
        )


def agree_on_choices(folder: ModelFolder, answer: Any) -> None:
    learner = opened(folder, [MultipleChoiceConfig(), CausalLMConfig()])
    batch = learner.prepare(examples())
    with torch.no_grad():
        logits, sums = learner.predict(batch)[0].numpy(), learner(batch)
        states = learner.transformer(batch.source)
        vocabulary = (states @ learner.transformer.output_weight.t()).numpy()
    assert np.abs(logits - answer["mc_logits"]).max() < 1e-5
    place = 0
    for row in examples():
        for choice, sequence in enumerate(row.sequences):
            expected = answer["logits"][row.row, choice, : len(sequence)]
            assert np.abs(vocabulary[place : place + len(sequence)] - expected).max() < 1e-5
            place += len(sequence)
    counts = [float(target.weight.sum()) for target in batch.targets]
    assert float(sums[0]) / counts[0] == pytest.approx(float(answer["mc_loss"]), abs=1e-5)
    assert float(sums[1]) / counts[1] == pytest.approx(float(answer["loss"]), abs=1e-5)


def test_choices_both_ways(tmp_path: Path) -> None:
    ours = tensors_of(learner_of([MultipleChoiceConfig(), CausalLMConfig()]))
    write(tmp_path / "ours", ours, "choices")
    rows = padded(examples())
    (made,) = in_a_fresh_process(rows, (tmp_path / "theirs", MADE))
    assert "lm_head.weight" in load_file(
        tmp_path / "theirs/model.safetensors"
    )  # the tie, the other way round
    folder = read_folder(tmp_path / "theirs")
    assert folder.task == "choices" and folder.card is None and folder.dropped == ()
    assert {name for name in folder.stored if name.startswith("heads.")} == {
        "heads.multiple_choice.score.weight",
        "heads.multiple_choice.score.bias",
    }
    agree_on_choices(folder, made)
    write(tmp_path / "back", folder.tensors, folder.task)
    own, back = in_a_fresh_process(rows, (tmp_path / "ours", None), (tmp_path / "back", None))
    assert all(np.array_equal(made[key], back[key]) for key in made)
    folder = read_folder(tmp_path / "ours")
    assert folder.task == "choices" and folder.labels is None and "heads.quiz.score.bias" in folder.stored
    agree_on_choices(folder, own)


@pytest.mark.parametrize("task", ["classes", "number"])
def test_one_answer_a_row_both_ways(tmp_path: Path, task: Task) -> None:
    labels = LABELS if task == "classes" else ()
    rows = [Example(row.row, row.sequences[:1], label=row.label) for row in examples()]
    given = {"input_ids": np.zeros((4, 40), np.int64), "labels": np.array([row.label for row in rows])}
    if task == "number":
        given["labels"] = given["labels"].astype(np.float32)
    for row in rows:
        given["input_ids"][row.row, : len(row.sequences[0])] = row.sequences[0]
    made = {**MADE, "pad_token_id": 0, "num_labels": 3 if labels else 1}
    write(tmp_path / "ours", tensors_of(learner_of([HEAD[task]], labels)), task, labels)
    config = json.loads((tmp_path / "ours/config.json").read_text("utf-8"))
    assert config["architectures"] == [CLASS[task]] and list(config["id2label"].values()) == list(
        labels or ["LABEL_0"]
    )
    for name, answer in {
        "ours": answered(CLASS[task], tmp_path / "ours", given),
        "theirs": answered(CLASS[task], tmp_path / "theirs", given, made),
    }.items():
        folder = read_folder(tmp_path / name)
        assert folder.task == task and (folder.labels is None) == (task == "number")
        learner = opened(folder, [HEAD[task]], tuple(folder.labels or ()))
        batch = learner.prepare(rows)
        with torch.no_grad():
            logits, total = learner.predict(batch)[0].numpy(), float(learner(batch)[0])
        assert np.abs(logits - answer["logits"]).max() < 1e-5
        assert total / 4 == pytest.approx(float(answer["loss"]), abs=1e-5)
        write(tmp_path / "back", folder.tensors, folder.task, folder.labels)
        back = answered(CLASS[task], tmp_path / "back", given)
        assert np.array_equal(back["logits"], answer["logits"])


@pytest.mark.parametrize("task", ["classes", "number"])
def test_a_bias_that_theirs_lacks_is_kept_in_our_own_form(tmp_path: Path, task: Task) -> None:
    labels = LABELS if task == "classes" else ()
    config = HEAD[task].model_copy(update={"bias": True})
    tensors = tensors_of(learner_of([config], labels))
    write(tmp_path / "ours", tensors, task, labels)
    content = json.loads((tmp_path / "ours/config.json").read_text("utf-8"))
    assert content["model_type"] == "gradus" and content["task"] == task
    folder = read_folder(tmp_path / "ours")
    assert folder.task == task and folder.labels == (list(labels) or None)
    assert all(torch.equal(folder.tensors[name], part) for name, part in tensors.items())
    assert gpt1.TABLE.obstacle(task, True) and not gpt1.TABLE.obstacle(task, False)
    assert gpt1.TABLE.obstacle("choices", False) and not FAMILIES["gpt1"].TABLE.obstacle("choices", True)


def changed(path: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor | None]) -> None:
    """Changes a folder as a hand would; None takes a tensor out."""
    (path / "MANIFEST.json").unlink()
    content = json.loads((path / "config.json").read_text("utf-8"))
    (path / "config.json").write_text(json.dumps(content | config), encoding="utf-8")
    kept = {**load_file(path / "model.safetensors"), **tensors}
    save_file({key: part for key, part in kept.items() if part is not None}, path / "model.safetensors")


SUMMARY = "multiple_choice_head.summary"
BAD: dict[str, tuple[Task, dict[str, Any], dict[str, Any], str]] = {
    "mean": ("choices", {"summary_type": "mean"}, {}, "summary_type: .*'mean' .only 'cls_index' is"),
    "tanh": ("choices", {"summary_activation": "tanh"}, {}, "summary_activation: .*'tanh'"),
    "no layer": ("choices", {"summary_use_proj": False}, {}, "summary_use_proj: .*'False'"),
    "two logits": ("choices", {}, {f"{SUMMARY}.weight": torch.zeros(2, 32)}, "2 x 32, not 1 x 32.*summary"),
    "wide": ("choices", {}, {f"{SUMMARY}.weight": torch.zeros(1, 16)}, "1 x 16, not 1 x 32.*summary"),
    "no bias": ("choices", {}, {f"{SUMMARY}.bias": None}, f"lack a tensor: '{SUMMARY}.bias'"),
    "numbers": ("classes", {"problem_type": "regression"}, {}, "problem_type: .*one number a row"),
    "narrow": ("classes", {}, {"score.weight": torch.zeros(3, 31)}, "3 x 31, not 3 x 32.*score.weight"),
    "a bias": ("classes", {}, {"score.bias": torch.zeros(3)}, "no such tensor: 'score.bias'"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_head_that_is_not_ours_to_build_is_refused(tmp_path: Path, case: str) -> None:
    task, config, tensors, message = BAD[case]
    labels = LABELS if task == "classes" else ()
    write(tmp_path / "model", tensors_of(learner_of([HEAD[task]], labels)), task, labels)
    changed(tmp_path / "model", config, tensors)
    with pytest.raises(UserError, match=message) as error:
        read_folder(tmp_path / "model")
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_an_unknown_task_of_our_own_form_is_refused(tmp_path: Path) -> None:
    tensors = tensors_of(learner_of([RegressionConfig(bias=True)]))
    write(tmp_path / "model", tensors, "number")
    changed(tmp_path / "model", {"task": "numbre"}, {})
    with pytest.raises(UserError, match="task: there is no such task: 'numbre' .did you mean 'number'"):
        read_folder(tmp_path / "model")


if __name__ == "__main__":
    work(Path(sys.argv[1]))
