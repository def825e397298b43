"""Short windows before long ones: what is predicted, what a step is, and a death on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy
from tiny import killed_and_whole, tiny

import gradus
from gradus.core.duration import Quantity
from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.data.feed import Feed
from gradus.data.ramp import WindowRamp, in_pieces, window_length
from gradus.data.sources import HeldTokens, Windows
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, Task
from gradus.training.learner import Learner

TEXT = HeldTokens(keyed_generator("ramp").integers(0, toy.VOCABULARY, 24 * 9 + 5))


def learner() -> Learner:
    shape = toy.model()
    return Learner(
        Transformer(shape, torch.float64), [CausalLMConfig().build(Task(shape, "toy"))]
    ).initialise(1)


def gradients(made: Learner, examples: list[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    made.zero_grad()
    total = made(made.prepare(examples)).sum()
    total.backward()
    return float(total.detach()), {name: one.grad.clone() for name, one in made.named_parameters()}  # type: ignore[union-attr]


@pytest.mark.parametrize("length", [1, 8, 12])
def test_pieces_are_the_windows_of_a_shorter_context(length: int) -> None:
    """A window in pieces has the loss and the gradient of those windows that a context of `length` has."""
    made, whole, short = learner(), Windows(TEXT, 24), Windows(TEXT, length)
    pieces = [in_pieces(whole.example(row), length) for row in range(len(whole))]
    assert sum(example.tokens for example in pieces) == whole.tokens == short.tokens
    loss, found = gradients(made, pieces)
    wanted_loss, wanted = gradients(made, [short.example(row) for row in range(len(short))])
    assert loss == pytest.approx(wanted_loss, rel=1e-12)
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("length", [1, 5, 8, 23, 24, 99])
def test_every_token_but_the_first_is_predicted_once(length: int) -> None:
    (objective,) = learner().objectives
    whole = Windows(TEXT, 24)
    said = [objective.targets(in_pieces(whole.example(row), length)).value for row in range(len(whole))]
    assert np.array_equal(np.concatenate(said), TEXT.ids[1:])


def test_the_length_is_a_function_of_the_step() -> None:
    """Li et al. 2022, section 4: a straight line, rounded down to multiples of 8, then the whole."""
    feed = Feed(Windows(TEXT, 24), 2, 7, total=40, windows=(4, 0.5))
    found = [feed.window(step) for step in range(feed.steps)]
    line = [4 + (24 - 4) * 2 * step / 20 for step in range(10)]
    assert found == [max(4, int(at) // 8 * 8) for at in line] + [24] * 10
    plain = replace(feed, windows=None)
    assert plain.window(0) is None
    for step in (0, 7, 19):
        now, then = feed.examples(step), plain.examples(step)
        assert [example.row for _, example in now] == [example.row for _, example in then]
        for (_, cut), (_, one) in zip(now, then):
            assert np.array_equal(np.concatenate(cut.sequences), one.sequences[0])
            assert max(map(len, cut.sequences)) <= found[step]
    assert window_length(10, 100, 1.0) == 100 and window_length(10, 100, 0.0) == 10


def test_the_mean_length_is_the_mean() -> None:
    ramp = WindowRamp.model_validate({"from": "16 tokens", "over": "40 %"})
    steps = [16 + (256 - 16) * min(step / 4000, 1) for step in range(10_000)]
    assert ramp.mean(256) == pytest.approx(np.mean(steps), rel=1e-3)
    assert WindowRamp.model_validate({"from": "16 tokens"}).over == Quantity(30.0, "%")


RAMP = {"stages.pretrain.window_ramp": {"from": "8 tokens", "over": "50 %"}}


@pytest.mark.parametrize("data", [{}, {"mix": True}])
def test_a_death_on_the_way_resumes_to_the_same_bits(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first checkpoint is at step 3, the windows grow until step 5 of 8, with the batch."""
    text = {"kind": "text", "train": "builtin:tiny", "dev": "builtin:tiny"}
    patch = RAMP | {
        "stages.pretrain.save": {"every": "3 steps"},
        "stages.pretrain.evaluate": {"every": "1 steps"},
        "stages.pretrain.batch_ramp": {"from": "4 windows", "over": "30 %"},
    }
    if data:
        patch["stages.pretrain.data"] = {"mix": {"one": text, "two": text}}
    path = tiny(tmp_path / "one.yaml", patch)
    weights, _ = killed_and_whole(path, "pretrain", monkeypatch)
    lines = [json.loads(line) for line in (weights.parents[1] / "metrics.jsonl").read_text().splitlines()]
    found = [line["window"] for line in lines if line["kind"] == "train"]
    assert found == sorted(found) and found[0] == 8 and found[3] < 32 and found[-1] == 32


def test_check_and_run_count_the_same_tokens_with_less_work(tmp_path: Path) -> None:
    def told(patch: dict[str, Any]) -> Any:
        return gradus.check(tiny(tmp_path / "one.yaml", patch), runs=tmp_path, device="cpu").nodes[0]

    plain, ramped = told({}), told(RAMP)
    assert ramped.estimate.tokens == plain.estimate.tokens and ramped.estimate.steps == plain.estimate.steps
    assert ramped.estimate.flops < plain.estimate.flops
    assert ramped.node.id != plain.node.id and plain.node.id == "pretrain-9ac2dfc5"


@pytest.mark.parametrize("patch, told", [
    ({"stages.finetune.window_ramp": {"from": "8 tokens"}}, "window_ramp: rows have no windows"),
    ({"stages.pretrain.window_ramp": {"from": "32 tokens"}},
     "window_ramp.from: no window is longer: '32 tokens' (fewer than 32 tokens)"),
    ({"stages.pretrain.window_ramp": {"from": "8 windows"}}, "the unit must be one of tokens"),
    ({"stages.pretrain.window_ramp": {"from": "0 tokens"}}, "window_ramp.from: a whole number of at least 1"),
    ({"stages.pretrain.window_ramp": {"from": "8 tokens", "over": "0 %"}}, "window_ramp.over: a share"),
    (RAMP | {"stages.pretrain.objectives": [{"kind": "prefix_lm"}]},
     "window_ramp: only causal_lm reads a window in pieces: 'prefix_lm'"),
])  # fmt: skip
def test_mistakes_are_told(
    patch: dict[str, Any], told: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    status, said = command("check", tiny(tmp_path / "one.yaml", patch), "--runs", tmp_path)
    assert status == 2 and told in said and "Traceback" not in said
