"""fp16: gradients below 2 ** -24 are lost without a loss scale and kept with one; an overflow is skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from tiny import killed_and_whole, tiny

import gradus
from gradus.data.feed import Feed
from gradus.data.sources import Rows
from gradus.distributed.world import World
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, Task
from gradus.optim.optimizers import SGD
from gradus.optim.schedules import Constant
from gradus.training.learner import Learner
from gradus.training.scaling import FIRST, GROWTH, LossScale
from gradus.training.trainer import NotFinite, Trainer


def trainer(weight: float, dtype: torch.dtype, scaling: LossScale | None, rate: float = 0.0) -> Trainer:
    """One that predicts text with a loss of this weight."""
    shape = toy.model()
    objective = CausalLMConfig(weight=weight).build(Task(shape, "toy"))
    made = Learner(Transformer(shape, dtype), [objective]).initialise(1).float()
    rows = toy.examples(8)
    feed = Feed(Rows(rows, [""] * 8), 8, 1, 64)
    optimizers = SGD(lr=rate or 1.0).build(made.named_parameters())
    return Trainer(
        made, feed, optimizers, Constant(), World(), warmup=0, budget=512, clip=None, scaling=scaling
    )


def gradients(weight: float, dtype: torch.dtype, scaling: LossScale | None) -> dict[str, torch.Tensor]:
    """The gradients of the first step as clipping meets them."""
    one = trainer(weight, dtype, scaling)
    found: dict[str, torch.Tensor] = {}

    def caught() -> torch.Tensor:
        found.update({name: one.grad.clone() for name, one in named.items() if one.grad is not None})
        return torch.zeros(())

    named = dict(one.learner.named_parameters())
    one._clip = caught  # type: ignore[method-assign]
    next(one.steps(toy.always))
    return found


def test_small_gradients_vanish_without_a_scale_and_not_with_one() -> None:
    weight = 2.0**-20  # gradients of the blocks are then below 2 ** -24, the smallest number of fp16
    exact = gradients(1.0, torch.float32, None)
    lost, kept = (gradients(weight, torch.float16, scaling) for scaling in (None, LossScale()))
    inner = [name for name in exact if "blocks." in name and name.endswith("weight") and "norm" not in name]
    assert len(inner) == 8
    for name in inner:
        largest = float(exact[name].abs().max())
        assert 0 < largest * weight < 2.0**-24 and float(lost[name].abs().max()) == 0
        assert float((kept[name] / weight - exact[name]).abs().max()) < 0.05 * largest


def test_a_step_that_overflows_is_skipped_and_halves_the_scale() -> None:
    scaling = LossScale()
    scaling.value = 2.0**60
    one = trainer(1.0, torch.float16, scaling, rate=0.1)
    before = toy.parameters(one.learner)
    reports = one.steps(toy.always)
    report = next(reports)
    assert report.loss_scale == 2.0**59 and report.grad_norm == 0 and scaling.skipped == 1
    assert all((before[name] == now).all() for name, now in toy.parameters(one.learner).items())
    assert report.losses["causal_lm"] > 0


def test_the_scale_grows_where_nothing_overflows() -> None:
    scaling = LossScale()
    scaling.held = GROWTH - 1
    next(trainer(1.0, torch.float16, scaling, rate=0.1).steps(toy.always))
    assert scaling.value == 2 * FIRST and scaling.held == 0


def test_a_scale_that_has_collapsed_is_told() -> None:
    scaling = LossScale()
    scaling.value = 1.0
    one = trainer(2.0**60, torch.float16, scaling)
    with pytest.raises(NotFinite, match="gradients overflow at step 1 whatever the loss scale"):
        next(one.steps(toy.always))


def test_a_run_in_fp16_learns_and_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("gradus.training.scaling.FIRST", 2.0**24)  # so that the first steps overflow
    part = {"precision": "fp16", "save": {"every": "3 steps"}, "length": "12 steps"}
    path = tiny(tmp_path / "one.yaml", {f"stages.pretrain.{key}": value for key, value in part.items()})
    killed_and_whole(path, "pretrain", monkeypatch)
    (log,) = (tmp_path / "whole").glob("one/stages/pretrain-*/metrics.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    assert trained[0]["loss_scale"] < 2.0**24 and trained[-1]["total"] < trained[0]["total"]
    (stage,) = (tmp_path / "whole").glob("one/stages/pretrain-*")
    assert gradus.load(stage / "model", precision="fp16").logits([[5, 6, 7]])[0].shape[0] == 3
