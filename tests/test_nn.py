"""The transformer's laws: causality, no leaks between sequences, exact gradients, dropout that is a
function of the seed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gradus.core.example import Ragged, ragged
from gradus.core.model import ModelConfig
from gradus.nn.attention import KERNELS, Layout, group_lengths, kernel_for, round_rows
from gradus.nn.gelu import gelu_tanh
from gradus.nn.heads import ClassificationHead
from gradus.nn.initialisation import initialise
from gradus.nn.layers import LEVELS, Dropout, LayerNorm, Linear, scale_of, struck_of
from gradus.nn.losses import cross_entropy_sum, linear_cross_entropy
from gradus.nn.transformer import Transformer

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
    assert sum(parameter.numel() for parameter in built.parameters()) == built.config.parameters()
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


def test_plain_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 200, 3, 8, dtype=EXACT, generator=generator) for _ in range(3))
    scores = torch.einsum("sqhc,skhc->shqk", query, key) / math.sqrt(8)
    seen = torch.ones(200, 200, dtype=torch.bool).tril()
    weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
    expected = torch.einsum("shqk,skhc->sqhc", weights, value)
    assert (KERNELS["plain"](query, key, value, 0.0) - expected).abs().max() < 1e-13


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_plain_passes_gradcheck(dropout: float) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 5, 2, 2, dtype=EXACT, generator=generator, requires_grad=True) for _ in range(3)]

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        torch.manual_seed(5)
        return KERNELS["plain"](query, key, value, dropout)

    assert torch.autograd.gradcheck(attend, inputs)


def test_gradients_do_not_depend_on_how_queries_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ragged(sequences())
    wanted = torch.ones(len(batch.tokens), 32, dtype=EXACT).cumsum(1)
    whole = gradients_of(model().eval(), batch, wanted)
    monkeypatch.setattr("gradus.nn.attention.QUERY_BLOCK", 48)
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


def test_equal_lengths_are_a_view_and_others_return_where_they_were() -> None:
    flat = torch.arange(64 * 3.0).view(64, 3)
    windows = Layout.of(np.array([0, 32, 64]), 64)
    (group,) = windows.spread(flat)
    assert group.data_ptr() == flat.data_ptr() and group.shape == (2, 32, 3)
    assert windows.collect([group]).data_ptr() == flat.data_ptr()
    uneven = Layout.of(np.array([0, 3, 40, 41, 60]), 64)
    assert sum(rows for rows, _ in uneven.groups) >= 4
    returned = uneven.collect(uneven.spread(flat))
    assert torch.equal(returned[:60], flat[:60]) and not returned[60:].any()


def test_groups_hold_every_row_and_are_a_function_of_the_lengths() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(1, 512, 200))[::-1]
    groups = group_lengths(lengths)
    assert sum(rows for rows, _ in groups) == 200 and 1 < len(groups) <= 16
    start = 0
    for rows, time in groups:
        assert time % 16 == 0 and lengths[start] <= time
        start += rows
    assert groups == group_lengths(lengths.copy())
    assert group_lengths(np.array([20, 20, 18])) == ((3, 32),)
    assert [round_rows(rows) for rows in (1, 2, 3, 4, 5, 6, 7, 9, 13, 33)] == [
        1,
        2,
        3,
        4,
        6,
        6,
        8,
        12,
        16,
        48,
    ]


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


def test_linear_cross_entropy_equals_torch_and_passes_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, dtype=EXACT, generator=generator, requires_grad=True)
    weight = torch.randn(13, 6, dtype=EXACT, generator=generator, requires_grad=True)
    value = torch.randint(0, 13, (11,), generator=generator)
    factor = torch.rand(11, dtype=EXACT, generator=generator)
    factor[3] = 0
    expected = (F.cross_entropy(hidden @ weight.t(), value, reduction="none") * factor).sum()
    for chunk in (None, 1, 4, 11):
        loss = linear_cross_entropy(hidden, weight, value, factor, chunk)
        assert abs(loss - expected) < 1e-12
    assert torch.autograd.gradcheck(
        lambda s, w: linear_cross_entropy(s, w, value, factor, 4), (hidden, weight)
    )
    assert torch.autograd.gradcheck(
        lambda s: linear_cross_entropy(s, weight.detach(), value, factor, 4), hidden
    )
    assert torch.autograd.gradcheck(
        lambda w: linear_cross_entropy(hidden.detach(), w, value, factor, 4), weight
    )


def test_linear_cross_entropy_in_bf16_keeps_the_masters_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 64, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(1000, 64, generator=generator).mul(0.3).requires_grad_()
    value = torch.randint(0, 1000, (300,), generator=generator)
    loss = linear_cross_entropy(hidden, weight, value, torch.ones(300, dtype=EXACT), 64)
    assert loss.dtype == torch.float32
    (2 * loss).backward()
    wide, master = (
        hidden.detach().double().requires_grad_(),
        weight.detach().bfloat16().double().requires_grad_(),
    )
    exact = F.cross_entropy(wide @ master.t(), value, reduction="sum")
    (2 * exact).backward()
    assert abs(loss - exact) < 1e-3 * exact
    assert hidden.grad.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32
    assert (weight.grad - master.grad).norm() < 0.01 * master.grad.norm()
    assert (hidden.grad - wide.grad).norm() < 0.01 * wide.grad.norm()


def test_no_targets_give_zero_with_a_gradient() -> None:
    hidden = torch.randn(0, 6, requires_grad=True)
    weight = torch.randn(13, 6, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = linear_cross_entropy(hidden, weight, none, torch.zeros(0))
    loss.backward()
    assert loss == 0 and weight.grad is not None and not weight.grad.any()
    head = ClassificationHead(6, 3)
    initialise(head, 1, 0.02, "heads.x.")
    small = cross_entropy_sum(head(hidden), none, torch.zeros(0))
    small.backward()
    assert small == 0 and not head.score.weight.grad.any()


def test_cross_entropy_sum_weighs_rows() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.bfloat16)
    loss = cross_entropy_sum(logits, torch.tensor([0, 0]), torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx(
        math.log1p(math.exp(-2)) + 0.5 * (1 + math.log1p(math.exp(-1))), rel=1e-6
    )


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32, torch.float64])
def test_dropout_keeps_the_share_it_says_and_scales_the_rest(precision: torch.dtype) -> None:
    layer = Dropout(0.1)
    assert (layer.struck, struck_of(0), struck_of(1e-4), struck_of(0.999)) == (26, 0, 1, 255)
    ones = torch.ones(1001, 999, dtype=precision, requires_grad=True)
    torch.manual_seed(0)
    dropped = layer(ones)
    dropped.backward(torch.full_like(ones, 2.0))
    kept = dropped != 0
    share, spread = 1 - 26 / LEVELS, math.sqrt(0.09 / kept.numel())
    assert abs(kept.double().mean() - share) < 5 * spread
    assert (dropped[kept] == torch.tensor(scale_of(26), dtype=precision)).all()
    assert torch.equal(ones.grad, 2 * dropped)
    # Neighbours along either axis are struck independently.
    for near in (kept[:, 1:] & kept[:, :-1], kept[1:] & kept[:-1]):
        assert abs(near.double().mean() - share**2) < 0.002


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


def test_attention_dropout_is_unbiased_and_acts_on_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 20, 1, 4, dtype=EXACT, generator=generator) for _ in range(3))
    repeated = [part.expand(20000, -1, -1, -1) for part in (query, key, value)]
    torch.manual_seed(1)
    mean = KERNELS["plain"](*repeated, 0.25).mean(0)
    assert (mean - KERNELS["plain"](query, key, value, 0.0)[0]).abs().max() < 0.03
    first = KERNELS["plain"](*repeated, 0.25)[:, 0, 0] / value[0, 0, 0]
    assert set(first[:, 0].mul(1e6).round().div(1e6).unique().tolist()) == {0.0, round(4 / 3, 6)}


def test_layer_norm_and_linear_take_any_precision() -> None:
    norm, linear = LayerNorm(16, 1e-5), Linear(16, 8)
    initialise(norm, 1, 0.02)
    initialise(linear, 1, 0.02)
    wide = torch.randn(4, 16)
    near = norm(wide.bfloat16())
    assert near.dtype == torch.bfloat16 and (near.float() - norm(wide)).abs().max() < 0.05
    assert linear(wide.bfloat16()).dtype == torch.bfloat16


def test_gelu_is_the_tanh_form_in_every_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 50, dtype=EXACT, generator=generator).mul(3).requires_grad_()
    assert torch.autograd.gradcheck(gelu_tanh, hidden)
    upstream = torch.randn(40, 50, dtype=EXACT, generator=generator)
    for precision, tolerance in ((EXACT, 1e-13), (torch.float32, 2e-6), (torch.bfloat16, 0.02)):
        pair = []
        for function in (gelu_tanh, lambda x: F.gelu(x, approximate="tanh")):
            inner = hidden.detach().to(precision).requires_grad_()
            outer = function(inner)
            outer.backward(upstream.to(precision))
            pair.append((outer, inner.grad))
        for ours, theirs in zip(*pair):
            assert ours.dtype == precision
            assert ((ours - theirs).abs() <= tolerance * (1 + theirs.abs())).all()
    extreme = torch.tensor([-1e4, -60.0, -12.0, 0.0, 12.0, 60.0, 1e4], requires_grad=True)
    outer = gelu_tanh(extreme)
    outer.sum().backward()
    assert torch.allclose(outer, extreme.clamp_min(0), atol=1e-20)
    assert torch.allclose(extreme.grad, torch.tensor([0, 0, 0, 0.5, 1, 1, 1]), atol=1e-20)
    whole = gelu_tanh(hidden)
    monkeypatch.setattr("gradus.nn.gelu.BLOCK", 7)
    assert torch.allclose(gelu_tanh(hidden), whole, rtol=1e-15)
    assert torch.allclose(gelu_tanh(hidden.t()), whole.t(), rtol=1e-15)


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


def test_the_kernel_is_chosen_before_the_first_batch() -> None:
    assert kernel_for("cpu", 512, 0.1) == "plain" and kernel_for("cpu", 4096, 0.0) == "sdpa"
    assert kernel_for("cuda", 512, 0.1) == "sdpa"


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
