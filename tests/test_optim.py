"""Schedules in closed form, groups that decay or not, optimizers as their papers say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import toy

from gradus.core.duration import Quantity
from gradus.optim.groups import Group, parameter_groups, unmatched
from gradus.optim.optimizers import SGD, AdaFactor, Adam, AdamW, Muon
from gradus.optim.penalties import Penalties
from gradus.optim.schedules import (
    FINE_TUNING,
    Constant,
    Cosine,
    InverseSquareRoot,
    Linear,
    OneCycle,
    Polynomial,
    SlantedTriangular,
    WarmupStableDecay,
)
from gradus.optim.unfreezing import Unfreeze
from gradus.training import checkpoint


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
    matrices, vectors = parameter_groups(learner.named_parameters(), 1e-3, 0.01)
    assert matrices["weight_decay"] == 0.01 and vectors["weight_decay"] == 0
    assert all(parameter.dim() == 2 for parameter in matrices["params"])
    assert all(parameter.dim() == 1 for parameter in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(learner.parameters()))


@pytest.mark.parametrize("decoupled", [True, False])
def test_adam_and_adamw_by_hand(decoupled: bool) -> None:
    """Three steps of the papers' algorithms in float64 against the built optimizer."""
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    config = (AdamW if decoupled else Adam)(lr=0.1, weight_decay=0.3, betas=(0.8, 0.9), epsilon=1e-6)
    (optimizer,) = config.build([("weight", weight)])
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


def test_a_group_has_its_own_rate_and_decay() -> None:
    learner = toy.learner()
    named = [name for name, _ in learner.named_parameters()]
    own = [Group(match="*.blocks.0.*", rate=0.1, weight_decay=0.0), Group(match="heads.*", rate=0.0)]
    groups = parameter_groups(learner.named_parameters(), 1e-3, 0.01, groups=own)
    assert sum(len(group["params"]) for group in groups) == len(named)
    found = {id(one): (group["lr"], group["weight_decay"]) for group in groups for one in group["params"]}
    for name, parameter in learner.named_parameters():
        if ".blocks.0." in name:
            assert found[id(parameter)] == (pytest.approx(1e-4), 0.0)
        elif name.startswith("heads."):
            assert found[id(parameter)][0] == 0
        else:
            assert found[id(parameter)] == (1e-3, 0.01 if parameter.dim() > 1 else 0.0)
    assert unmatched(named, [*(one.match for one in own), "block.*"]) == ["block.*"]


def test_lower_layers_learn_slower_by_a_factor_each() -> None:
    learner = toy.learner()
    layers = len(learner.transformer.blocks)
    groups = parameter_groups(learner.named_parameters(), 1.0, 0.3, layer_decay=2.0)
    found = {id(one): group for group in groups for one in group["params"]}
    for name, parameter in learner.named_parameters():
        depth = 0
        if ".blocks." in name:
            depth = layers - 1 - int(name.split(".blocks.")[1].split(".")[0])
        elif ".embedding." in name:
            depth = layers
        group = found[id(parameter)]
        assert group["lr"] == pytest.approx(0.5**depth)
        if parameter.dim() > 1:  # the decay is the rate's times 0.3 wherever it stands
            assert group["lr"] * group["weight_decay"] == pytest.approx(0.3)


def falls(schedule: Any, steps: int = 100, warmup: int | None = None) -> list[float]:
    rise = schedule.warmup_steps(steps, 1.0) if warmup is None else warmup
    return [schedule.multiplier(step, steps, rise) for step in range(steps)]


def test_further_schedules_in_closed_form() -> None:
    assert falls(Polynomial(power=2, final=0.1), warmup=10)[55] == pytest.approx(0.1 + 0.9 * 0.5**2)
    assert falls(Polynomial(), warmup=0) == pytest.approx(falls(Linear(), warmup=0))
    # Vaswani et al. 2017, equation 3: in proportion to min(step^-1/2, step warmup^-3/2), steps from 1.
    root = falls(InverseSquareRoot(), warmup=16)
    for step in (4, 16, 63, 99):
        wanted = min((step + 1) ** -0.5, (step + 1) * 16**-1.5) * 4
        assert root[step] == pytest.approx(wanted, rel=0.04)
    stable = falls(WarmupStableDecay(decay=Quantity(20, "%"), final=0.5), warmup=10)
    assert stable[10:80] == [1.0] * 70 and stable[90] == pytest.approx(0.75)
    assert min(stable[10:]) == stable[-1] == pytest.approx(0.525)


def test_the_slanted_triangle_is_the_paper_s() -> None:
    """Howard and Ruder 2018, equation 3, with T = 100, cut_frac = 0.1, ratio = 32."""
    cut, ratio = 10, 32
    for step, rate in enumerate(falls(SlantedTriangular())):
        place = step + 1 if step < cut else step
        share = place / cut if place < cut else 1 - (place - cut) / (cut * (1 / 0.1 - 1))
        assert rate == pytest.approx((1 + share * (ratio - 1)) / ratio)


def test_one_cycle_is_torch_s() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=101, cycle_momentum=False)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = falls(OneCycle())
    assert max(ours) == pytest.approx(1.0) and ours.index(max(ours)) in (29, 30)
    assert ours[60] == pytest.approx(rates[60], abs=0.03) and ours[-1] < 0.002


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_by_hand(momentum: float, nesterov: bool) -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    (optimizer,) = SGD(lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.3).build([("w", weight)])
    value, kept = weight.detach().clone(), torch.zeros(1, 2).double()
    for step in range(1, 4):
        weight.grad = torch.tensor([[0.5, -0.1]], dtype=torch.float64) * step
        gradient = weight.grad + 0.3 * value
        optimizer.step()
        kept = momentum * kept + gradient
        value = value - 0.1 * (gradient + momentum * kept if nesterov else kept)
        assert torch.allclose(weight.detach(), value, rtol=1e-9)


@pytest.mark.parametrize("shape", [(5, 7), (6,)])
def test_adafactor_is_the_paper_s(shape: tuple[int, ...]) -> None:
    """Shazeer and Stern 2018, algorithms 4 and 5, written out with relative steps of min(1e-2, 1/sqrt(t))."""
    random = torch.Generator().manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(shape, generator=random, dtype=torch.float64))
    (optimizer,) = AdaFactor().build([("w", weight)])
    value = weight.detach().clone()
    row, column, whole = torch.zeros(5, 1).double(), torch.zeros(1, 7).double(), torch.zeros(6).double()
    for step in range(1, 30):
        gradient = torch.randn(shape, generator=random, dtype=torch.float64) * step
        weight.grad = gradient.clone()
        optimizer.step()
        memory, squares = 1 - step**-0.8, gradient**2 + 1e-30
        if len(shape) == 2:
            row = memory * row + (1 - memory) * squares.sum(1, keepdim=True)
            column = memory * column + (1 - memory) * squares.sum(0, keepdim=True)
            estimate = row @ column / row.sum()
        else:
            whole = estimate = memory * whole + (1 - memory) * squares
        update = gradient / estimate.sqrt()
        update = update / max(1.0, float(update.square().mean().sqrt()))
        size = max(1e-3, float(value.square().mean().sqrt()))
        value = value - min(1e-2, step**-0.5) * size * update
        assert torch.allclose(weight.detach(), value, rtol=1e-9)


def test_muon_makes_the_updates_of_inner_matrices_orthogonal() -> None:
    learner = toy.learner()
    before = {name: parameter.detach().clone() for name, parameter in learner.named_parameters()}
    matrices, others = Muon(lr=1e-2, weight_decay=0.0).build(learner.named_parameters())
    for _, parameter in learner.named_parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)).to(
            parameter
        )
    matrices.step()
    others.step()
    inner = 0
    for name, parameter in learner.named_parameters():
        moved = parameter.detach() - before[name]
        assert moved.abs().max() > 0, name
        if "blocks." in name and parameter.dim() == 2:
            inner += 1
            singular = torch.linalg.svdvals(moved) / (1e-2 * 0.2 * max(parameter.shape) ** 0.5)
            assert float(singular.min()) > 0.4 and float(singular.max()) < 1.4, name
    assert inner == sum(len(group["params"]) for group in matrices.param_groups) > 0


@pytest.mark.parametrize(
    "config", [SGD(lr=1.0), SGD(lr=1.0, momentum=0.9), Adam(), AdamW(), AdaFactor(), Muon(lr=1e-3)]
)
def test_what_is_kept_is_what_is_counted_and_goes_through_a_checkpoint(config: Any, tmp_path: Path) -> None:
    made, again = toy.learner(), toy.learner()
    named = list(made.named_parameters())
    optimizers = config.build(named)
    for _, parameter in named:
        parameter.grad = torch.ones_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    kept = [tensor for one in optimizers for state in one.state.values() for tensor in state.values()]
    sizes = sum(tensor.numel() for tensor in kept if tensor is not None and tensor.dim())
    assert sizes == sum(config.numbers(name, parameter.shape) for name, parameter in named)
    checkpoint.save(tmp_path, 1, made, optimizers, {})
    resumed = config.build(again.named_parameters())
    checkpoint.load(tmp_path / "step-00000001", again, resumed)
    for one, other in zip(optimizers, resumed):
        states = one.state_dict()["state"], other.state_dict()["state"]
        assert states[0].keys() == states[1].keys()
        for number, state in states[0].items():
            for key, tensor in state.items():
                assert tensor is None or torch.equal(tensor, states[1][number][key])


def test_penalties_are_the_gradients_of_their_sums() -> None:
    learner = toy.learner()
    named = dict(learner.named_parameters())
    taken = frozenset(name for name in named if not name.startswith("heads."))
    penalty = Penalties(l1=0.3, l2_start=0.7, l2_new=0.2).bind(named.items(), taken)
    starts = {name: parameter.detach().clone() for name, parameter in named.items()}
    with torch.no_grad():
        for parameter in named.values():
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
            parameter.add_(drawn.to(parameter))
    total = sum(0.3 * parameter.abs().sum() for parameter in named.values() if parameter.dim() > 1)
    total += sum(0.35 * (named[name] - starts[name]).square().sum() for name in taken)
    total += sum(0.1 * parameter.square().sum() for name, parameter in named.items() if name not in taken)
    wanted = torch.autograd.grad(total, list(named.values()))
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    penalty.add()
    for parameter, gradient in zip(named.values(), wanted):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def test_layers_join_from_the_top_and_nothing_else_moves() -> None:
    trainer = toy.trainer(toy.learner(), toy.examples(8), total=80)
    named = dict(trainer.learner.named_parameters())
    trainer.unfreezing = Unfreeze(layers=1).bind(named.items(), [3, 6, 10])
    before, moved = toy.parameters(trainer.learner), []
    for _ in trainer.steps(toy.always):
        now = toy.parameters(trainer.learner)
        moved.append({name for name in named if (now[name] != before[name]).any()})
        before = now
    top = {name for name in named if ".blocks.1." in name or not name.startswith("transformer.")}
    lower = {name for name in named if ".blocks.0." in name}
    assert all(names <= top and any(".blocks.1." in name for name in names) for names in moved[:3])
    assert all(lower & names and not any("embedding" in name for name in names) for names in moved[3:6])
    assert all(any("embedding" in name for name in names) for names in moved[6:])
