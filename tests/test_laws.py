"""The laws of training on a toy: loss is a sum and a count, order is a function, resume is exact, nothing
leaks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.example import Example
from gradus.core.keyed import permuted
from gradus.data.feed import Feed, cut, rows_of_steps, step_bounds
from gradus.data.sources import Rows
from gradus.training import checkpoint
from gradus.training.learner import Learner


def gradients(learner: Learner, parts: list[list[Example]]) -> dict[str, torch.Tensor]:
    """The gradient of sum_k w_k S_k / N_k, accumulated over micro-batches."""
    batches = [learner.prepare(part) for part in parts]
    counts = sum(torch.stack([target.weight.sum() for target in batch.targets]) for batch in batches)
    learner.zero_grad()
    for batch in batches:
        (learner.weights / counts.clamp(min=1e-9) * learner(batch)).sum().backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in learner.named_parameters()
        if parameter.grad is not None
    }


def farthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest gradient."""
    top = max(float(gradient.abs().max()) for gradient in a.values())
    return max(float((a[name] - b[name]).abs().max()) for name in a) / top


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_law_1_any_cut_gives_the_same_gradient(size: int) -> None:
    rows = toy.examples(8)
    learner = toy.learner()
    whole = gradients(learner, [rows])
    parts = gradients(learner, [rows[start : start + size] for start in range(0, 8, size)])
    assert farthest(whole, parts) < 1e-12


def test_law_1_a_count_of_zero_contributes_zero() -> None:
    learner = toy.learner()
    rows = [Example(0, (np.arange(2, 9),)), Example(1, (np.arange(5, 9),))]
    sums = learner(learner.prepare(rows))
    assert sums[0] == 0
    sums.sum().backward()
    assert float(learner.heads["toy"].score.weight.grad.abs().max()) == 0
    one_token = learner(learner.prepare([Example(0, (np.array([3]),), label=1)]))
    assert one_token[1] == 0 and one_token[0] > 0


def test_law_1_the_sum_is_the_plain_formula() -> None:
    rows = toy.examples(6)
    learner = toy.learner()
    sums = learner(learner.prepare(rows))
    by_hand = torch.zeros(2, dtype=torch.float64)
    for row in rows:
        states = learner.transformer(learner.prepare([row]).source)[: row.tokens]
        logits = states @ learner.transformer.output_weight.T
        nats = torch.nn.functional.cross_entropy(
            logits[:-1], torch.from_numpy(row.sequences[0][1:]), reduction="sum"
        )
        by_hand[1] += nats.detach()
        if row.label is not None:
            scores = learner.heads["toy"](states[-1:])
            by_hand[0] += torch.nn.functional.cross_entropy(scores, torch.tensor([row.label])).detach()
    assert torch.allclose(sums.detach(), by_hand, rtol=1e-12)


@given(st.integers(1, 5000), st.integers(0, 9), st.integers(0, 9))
def test_law_2_an_epoch_is_a_bijection(size: int, seed: int, epoch: int) -> None:
    order = permuted(np.arange(size), size, "order", seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(size))
    some = np.array([size // 2, 0, size - 1])
    assert np.array_equal(permuted(some, size, "order", seed, epoch), order[some])


def test_law_2_orders_of_epochs_and_seeds_differ() -> None:
    orders = {
        permuted(np.arange(100), 100, "order", seed, epoch).tobytes()
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


@pytest.mark.parametrize("world", [1, 2, 3])
def test_law_2_ranks_share_what_one_process_would_take(world: int) -> None:
    rows = Rows(toy.examples(11), [""] * 11)
    alone = Feed(rows, 4, 3, 30)
    for step in range(alone.steps):
        expected = [(epoch, example.row) for epoch, example in alone.examples(step)]
        shares = [Feed(rows, 4, 3, 30, rank, world).examples(step) for rank in range(world)]
        found = [None] * len(expected)
        for rank, share in enumerate(shares):
            found[rank::world] = [(epoch, example.row) for epoch, example in share]
        assert found == expected


def test_law_2_every_row_comes_once_an_epoch() -> None:
    feed = Feed(Rows(toy.examples(11), [""] * 11), 4, 3, 33)
    seen = [(epoch, example.row) for step in range(feed.steps) for epoch, example in feed.examples(step)]
    assert sorted(seen) == [(epoch, row) for epoch in range(3) for row in range(11)]


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_law_3_resume_is_exact_with_dropout_and_accumulation(tmp_path: Path, killed_at: int) -> None:
    rows = toy.examples(8)
    whole = toy.trainer(toy.learner(0.1, torch.float32), rows, budget=40)
    reports = list(whole.steps(toy.always))

    killed = toy.trainer(toy.learner(0.1, torch.float32), rows, budget=40)
    steps = killed.steps(toy.always)
    for _ in range(killed_at):
        next(steps)
    checkpoint.save(tmp_path, killed_at, killed.learner, killed.optimizers, killed.state())
    torch.manual_seed(99)

    resumed = toy.trainer(toy.learner(0.1, torch.float32).initialise(5), rows, budget=40)
    path = checkpoint.latest(tmp_path)
    assert path is not None
    resumed.restore(checkpoint.load(path, resumed.learner, resumed.optimizers))
    rest = list(resumed.steps(toy.always))

    assert [report.losses for report in rest] == [report.losses for report in reports[killed_at:]]
    assert [report.grad_norm for report in rest] == [report.grad_norm for report in reports[killed_at:]]
    for name, value in toy.parameters(whole.learner).items():
        assert np.array_equal(value, toy.parameters(resumed.learner)[name]), name


def test_law_3_losses_between_reports_survive_a_checkpoint(tmp_path: Path) -> None:
    rows = toy.examples(8)

    def last_only(clock: object) -> frozenset[str]:
        return frozenset()

    whole = list(toy.trainer(toy.learner(), rows).steps(last_only))

    def save_at_two(clock: object) -> frozenset[str]:
        return frozenset({"save"} if clock.step == 2 else ())

    first = toy.trainer(toy.learner(), rows)
    next(first.steps(save_at_two))
    state = json.loads(json.dumps(first.state()))
    checkpoint.save(tmp_path, 2, first.learner, first.optimizers, state)
    second = toy.trainer(toy.learner(), rows)
    second.restore(checkpoint.load(tmp_path / "step-00000002", second.learner, second.optimizers))
    rest = list(second.steps(last_only))
    assert rest[-1].losses == whole[-1].losses


def test_law_3_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    trainer = toy.trainer(toy.learner(), toy.examples(8))
    for report in trainer.steps(toy.always):
        checkpoint.save(tmp_path, report.clock.step, trainer.learner, trainer.optimizers, trainer.state())
    newest = tmp_path / "step-00000004"
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3] + b"abc")
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000003"
    (tmp_path / "step-00000003" / "MANIFEST.json").unlink()
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000002"


def test_law_5_nothing_before_a_token_depends_on_it() -> None:
    learner = toy.learner().eval()
    tokens = np.arange(10, 26)
    states = learner.transformer(learner.prepare([Example(0, (tokens,))]).source)
    changed = tokens.copy()
    changed[9] += 1
    other = learner.transformer(learner.prepare([Example(0, (changed,))]).source)
    assert torch.equal(states[:9], other[:9])
    assert float((states[9:16] - other[9:16]).abs().min()) > 0


def test_law_5_other_sequences_change_nothing_but_rounding() -> None:
    learner = toy.learner().eval()
    rows = toy.examples(8)
    together = learner.predict(learner.prepare(rows))[0]
    alone = torch.cat([learner.predict(learner.prepare([row]))[0] for row in rows])
    assert float((together - alone).abs().max()) < 1e-6
    states = learner.transformer(learner.prepare(rows).source).detach()
    start = 0
    for row in rows:
        own = learner.transformer(learner.prepare([row]).source).detach()[: row.tokens]
        assert float((states[start : start + row.tokens] - own).abs().max()) < 1e-12
        start += row.tokens


@pytest.mark.parametrize("batch", [1, 4, 7])
@pytest.mark.parametrize("ramp", [None, (1, 0.5), (2, 1.0), (4, 0.1)])
def test_a_ramp_grows_the_batch_and_loses_no_row(batch: int, ramp: tuple[int, float] | None) -> None:
    ramp = None if ramp is None else (min(ramp[0], batch), ramp[1])
    for total in (1, 5, 100):
        bounds = step_bounds(total, batch, ramp)
        sizes = np.diff(bounds)
        assert bounds[0] == 0 and bounds[-1] == total and sizes.min() >= 1 and sizes.max() <= batch
        assert (np.diff(sizes[:-1]) >= 0).all()
        assert len(step_bounds(rows_of_steps(len(sizes), batch, ramp), batch, ramp)) == len(bounds)
    if batch == 7 and ramp == (1, 0.5):
        assert sizes[0] == 1 and sizes[-2] == 7 and abs(bounds[np.searchsorted(sizes[:-1], 7)] - 50) < 14


def test_micro_batches_keep_order_and_budget() -> None:
    rows = toy.examples(20)
    parts = list(cut(rows, 40))
    assert [row for part in parts for row in part] == rows
    assert all(sum(row.tokens for row in part) <= 40 or len(part) == 1 for part in parts)


def test_a_batch_is_learnt_by_heart() -> None:
    rows = [row for row in toy.examples(8) if row.label is not None]
    trainer = toy.trainer(toy.learner(), rows, batch=len(rows), total=len(rows) * 120)
    reports = list(trainer.steps(toy.always))
    assert reports[0].losses["classification"] > 0.9
    assert reports[-1].losses["classification"] < 0.05
    assert reports[-1].losses["causal_lm"] < reports[0].losses["causal_lm"] / 2


def test_a_loss_that_is_not_finite_names_step_and_rows() -> None:
    from gradus.core.errors import UserError

    trainer = toy.trainer(toy.learner(), toy.examples(8))
    steps = trainer.steps(toy.always)
    next(steps)
    with torch.no_grad():
        trainer.learner.transformer.embedding.tokens.weight.fill_(math.nan)
    with pytest.raises(UserError, match="not finite at step 2.*toy:"):
        next(steps)
