"""Schedules in closed form, groups that decay or not, optimizers as their papers say."""

from __future__ import annotations

import math

import pytest
import torch
import toy

from gradus.core.duration import Quantity
from gradus.optim.optimizers import Adam, AdamW, decay_groups
from gradus.optim.schedules import FINE_TUNING, Constant, Cosine, Linear


@pytest.mark.parametrize("schedule", [Constant(), Linear(), Cosine(), Linear(final=0.1), Cosine(final=0.1)])
def test_warm_up_is_linear_and_ends_at_the_full_rate(schedule: Constant) -> None:
    rates = [schedule.multiplier(step, 100, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:]))


def test_decays_in_closed_form() -> None:
    for step in range(10, 100):
        progress = (step - 10) / 90
        assert Linear().multiplier(step, 100, 10) == pytest.approx(1 - progress)
        assert Cosine().multiplier(step, 100, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi * progress)))
        assert Cosine(final=0.1).multiplier(step, 100, 10) == pytest.approx(
            0.1 + 0.45 * (1 + math.cos(math.pi * progress))
        )
        assert Constant().multiplier(step, 100, 10) == 1


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"),
    [
        (None, 1000, 100),
        (None, 100_000, 2000),
        ("30 steps", 1000, 30),
        ("5 %", 1000, 50),
        ("6400 tokens", 1000, 100),
        ("5000 steps", 1000, 1000),
    ],
)
def test_warm_up_lengths(warmup: str | None, steps: int, expected: int) -> None:
    schedule = Cosine(warmup=Quantity.parse(warmup) if warmup else None)
    assert schedule.warmup_steps(steps, tokens_per_step=64.0) == expected


def test_the_fine_tuning_default_is_the_paper_s() -> None:
    assert str(FINE_TUNING.warmup) == "0.2 %" and FINE_TUNING.final == 0


def test_only_matrices_decay() -> None:
    learner = toy.learner()
    matrices, vectors = decay_groups(learner.named_parameters(), 0.01, 1e-3)
    assert matrices["weight_decay"] == 0.01 and vectors["weight_decay"] == 0
    assert all(parameter.dim() == 2 for parameter in matrices["params"])
    assert all(parameter.dim() == 1 for parameter in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(learner.parameters()))


@pytest.mark.parametrize("decoupled", [True, False])
def test_adam_and_adamw_by_hand(decoupled: bool) -> None:
    """Three steps of the papers' algorithms in float64 against the built optimizer."""
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    config = (AdamW if decoupled else Adam)(lr=0.1, weight_decay=0.3, betas=(0.8, 0.9), epsilon=1e-6)
    optimizer = config.build([("weight", weight)])
    value, first, second = weight.detach().clone(), torch.zeros(1, 2).double(), torch.zeros(1, 2).double()
    for step in range(1, 4):
        gradient = torch.tensor([[0.5, -0.1]], dtype=torch.float64) * step
        weight.grad = gradient.clone()
        optimizer.step()
        if decoupled:
            value = value * (1 - 0.1 * 0.3)
        else:
            gradient = gradient + 0.3 * value
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        value = value - 0.1 * (first / (1 - 0.8**step)) / ((second / (1 - 0.9**step)).sqrt() + 1e-6)
        assert torch.allclose(weight.detach(), value, rtol=1e-9)
