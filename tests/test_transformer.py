"""The transformer's laws: causality, no leaks between sequences, exact gradients, dropout that is a
function of the seed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gradus.core.example import Ragged, ragged
from gradus.core.model import ModelConfig
from gradus.nn.kernels import KERNELS
from gradus.nn.losses import linear_cross_entropy
from gradus.nn.transformer import Transformer, count_parameters

VOCABULARY = 97
LENGTHS = (5, 300, 17, 1, 17, 140, 64)
SHAPE = {"layers": 2, "width": 32, "heads": 4, "context": 300, "vocab_size": VOCABULARY}
EXACT = torch.float64


def model(
    precision: torch.dtype = EXACT, kernel: str = "plain", seed: int = 1, **changes: object
) -> Transformer:
    config = ModelConfig(**{**SHAPE, "initial_deviation": 0.2, **changes})
    return Transformer(config, precision, kernel=kernel).initialise(seed)


def sequences(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, length) for length in lengths]


def states(of: Transformer, rows: list[np.ndarray]) -> Tensor:
    with torch.no_grad():
        return of.eval()(ragged(rows))


@pytest.mark.parametrize("norm", ["after", "before"])
@pytest.mark.parametrize("tie", [True, False])
def test_config_counts_the_parameters_and_names_are_the_plan(norm: str, tie: bool) -> None:
    built = model(norm=norm, tie_embeddings=tie, feed_forward=48)
    shape, tokens = built.config, built.config.vocab_size
    matrices = 4 * shape.width**2 + 2 * shape.width * shape.hidden
    vectors = 4 * shape.width + shape.hidden + shape.width + 4 * shape.width
    expected = shape.layers * (matrices + vectors) + (tokens + shape.context) * shape.width
    expected += 2 * shape.width * (norm == "before") + tokens * shape.width * (not tie)
    assert sum(parameter.numel() for parameter in built.parameters()) == expected == count_parameters(shape)
    names = [name for name, _ in built.named_parameters()]
    assert "blocks.1.attention.query_key_value.bias" in names and "embedding.positions.weight" in names
    assert ("final_norm.weight" in names) == (norm == "before")
    assert ("unembedding.weight" in names) == (not tie)


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_a_token_changes_nothing_before_it(kernel: str) -> None:
    built, rows = model(kernel=kernel), sequences((280,))
    before = states(built, rows)
    for place in (0, 1, 127, 128, 200, 279):
        changed = [rows[0].copy()]
        changed[0][place] = (changed[0][place] + 1) % VOCABULARY
        after = states(built, changed)
        assert torch.equal(before[:place], after[:place])
        assert not torch.equal(before[place:280], after[place:280])


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("norm", ["after", "before"])
def test_a_ragged_batch_equals_each_sequence_alone(kernel: str, norm: str) -> None:
    built, rows = model(kernel=kernel, norm=norm), sequences()
    together = states(built, rows)
    offsets = ragged(rows).offsets
    for row, start, end in zip(rows, offsets, offsets[1:]):
        alone = states(built, [row])[: len(row)]
        assert (alone - together[start:end]).abs().max() < 1e-12
    assert together.isfinite().all()


def test_one_sequence_of_a_batch_does_not_see_another() -> None:
    built, rows = model(), sequences()
    before = states(built, rows)
    rows[1] = (rows[1] + 7) % VOCABULARY
    after = states(built, rows)
    assert (before[5:305] - after[5:305]).abs().max() > 1e-3
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[305:], after[305:])


def gradients_of(built: Transformer, batch: Ragged, wanted: Tensor) -> dict[str, Tensor]:
    built.zero_grad()
    (built(batch) * wanted).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in built.named_parameters()}


def test_kernels_agree_forward_and_backward() -> None:
    batch = ragged(sequences())
    wanted = torch.randn(len(batch.tokens), 32, dtype=EXACT, generator=torch.Generator().manual_seed(3))
    wanted[int(batch.offsets[-1]) :] = 0
    first, second = (gradients_of(model(kernel=kernel).eval(), batch, wanted) for kernel in ("plain", "sdpa"))
    for name in first:
        assert (first[name] - second[name]).abs().max() <= 1e-11 * first[name].abs().max(), name


def test_gradients_do_not_depend_on_how_queries_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ragged(sequences())
    wanted = torch.ones(len(batch.tokens), 32, dtype=EXACT).cumsum(1)
    whole = gradients_of(model().eval(), batch, wanted)
    monkeypatch.setattr("gradus.nn.kernels.QUERY_BLOCK", 48)
    cut = gradients_of(model().eval(), batch, wanted)
    for name in whole:
        assert (whole[name] - cut[name]).abs().max() <= 1e-12 * whole[name].abs().max(), name


def test_the_dead_tail_is_finite_and_has_no_gradient() -> None:
    rows = sequences((30, 50))
    real, rest = 80, 48
    batch = ragged(rows)
    assert len(batch.tokens) == real + rest
    batch.tokens[real:] = VOCABULARY - 1
    rows_alone = ragged(rows, round_to=1)
    rows_alone.tokens[:] = batch.tokens[:real]
    wanted = torch.randn(len(batch.tokens), 32, dtype=EXACT, generator=torch.Generator().manual_seed(1))
    wanted[real:] = 0
    built = model().eval()
    assert built(batch).isfinite().all()
    with_tail, without = gradients_of(built, batch, wanted), gradients_of(built, rows_alone, wanted[:real])
    for name in with_tail:
        assert (with_tail[name] - without[name]).abs().max() <= 1e-12 * without[name].abs().max(), name


def test_the_dead_tail_has_no_gradient_with_dropout() -> None:
    batch = ragged(sequences((30, 50)))
    built = model().train()
    batch.tokens[:] = 3
    batch.tokens[80:] = 5
    torch.manual_seed(0)
    built(batch)[:80].square().sum().backward()
    gradient = built.embedding.tokens.weight.grad
    assert gradient is not None and gradient[3].abs().max() > 0 and gradient[5].abs().max() == 0


def test_bf16_and_fp32_stay_near_float64() -> None:
    rows = sequences()
    exact = states(model(), rows)
    for precision, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        for kernel in KERNELS:
            near = states(model(precision, kernel), rows)
            assert near.dtype == precision
            assert (near.double() - exact)[: sum(LENGTHS)].abs().max() < tolerance


def test_bf16_gradients_are_fp32_and_near_float64() -> None:
    batch = ragged(sequences())
    wanted = torch.randn(len(batch.tokens), 32, dtype=EXACT, generator=torch.Generator().manual_seed(3))
    exact = gradients_of(model().eval(), batch, wanted)
    narrow = gradients_of(model(torch.bfloat16).eval(), batch, wanted)
    for name, gradient in narrow.items():
        assert gradient.dtype == torch.float32
        assert (gradient - exact[name]).norm() < 0.04 * exact[name].norm(), name


def test_dropout_is_a_function_of_the_seed_and_draws_nothing_when_it_is_off() -> None:
    built, batch = model(torch.float32), ragged(sequences())
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(built.train()(batch))
    assert torch.equal(*results)
    assert not torch.equal(results[0], built(batch))
    before = torch.get_rng_state()
    built.eval()(batch)
    model(torch.float32, dropout=0.0).train()(batch)
    assert torch.equal(before, torch.get_rng_state())


def test_a_tensors_start_depends_on_seed_and_name_alone() -> None:
    first, deeper = model(seed=1), model(seed=1, layers=3)
    shared = deeper.state_dict()
    assert all(torch.equal(tensor, shared[name]) for name, tensor in first.state_dict().items())
    other = model(seed=2).state_dict()
    assert not torch.equal(other["embedding.tokens.weight"], shared["embedding.tokens.weight"])
    matrix = shared["blocks.0.feed_forward.up.weight"]
    assert abs(matrix.std().item() / 0.2 - 1) < 0.05 and abs(matrix.mean().item()) < 0.01
    assert (
        not shared["blocks.0.attention.output.bias"].any()
        and (shared["blocks.1.attention_norm.weight"] == 1).all()
    )


def test_a_tied_model_learns_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    built = model(torch.bfloat16, dropout=0.0, initial_deviation=0.02).train()
    batch = ragged(sequences((20, 33)))
    index = torch.tensor([*range(19), *range(20, 52)])
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        hidden = built(batch)[index]
        total = linear_cross_entropy(
            hidden, built.output_weight, batch.tokens[index + 1], torch.ones(len(index))
        )
        optimizer.zero_grad()
        (total / len(index)).backward()
        optimizer.step()
        losses.append(total.item() / len(index))
    assert losses[0] == pytest.approx(math.log(VOCABULARY), rel=0.05) and losses[-1] < 0.5
