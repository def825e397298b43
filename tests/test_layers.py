"""The small parts of a model, each against its formula: losses, dropout, norm, linear, GELU."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from gradus.core.model import ModelConfig
from gradus.nn.gelu import gelu_tanh
from gradus.nn.heads import LinearHead
from gradus.nn.initialisation import initialise
from gradus.nn.layers import LEVELS, Dropout, LayerNorm, Linear, scale_of, struck_of
from gradus.nn.losses import cross_entropy_sum, linear_cross_entropy

EXACT = torch.float64


def test_linear_cross_entropy_equals_torch_and_passes_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, dtype=EXACT, generator=generator, requires_grad=True)
    weight = torch.randn(13, 6, dtype=EXACT, generator=generator, requires_grad=True)
    value = torch.randint(0, 13, (11,), generator=generator)
    factor = torch.rand(11, dtype=EXACT, generator=generator)
    factor[3] = 0
    bias = torch.randn(13, dtype=EXACT, generator=generator, requires_grad=True)
    for shift in (None, bias):
        logits = hidden @ weight.t() if shift is None else hidden @ weight.t() + shift
        expected = (F.cross_entropy(logits, value, reduction="none") * factor).sum()
        for chunk in (None, 1, 4, 11):
            loss = linear_cross_entropy(hidden, weight, value, factor, shift, chunk=chunk)
            assert abs(loss - expected) < 1e-12
    assert torch.autograd.gradcheck(
        lambda s, w, b: linear_cross_entropy(s, w, value, factor, b, chunk=4), (hidden, weight, bias)
    )
    assert torch.autograd.gradcheck(
        lambda s, w: linear_cross_entropy(s, w, value, factor, chunk=4), (hidden, weight)
    )
    assert torch.autograd.gradcheck(
        lambda s: linear_cross_entropy(s, weight.detach(), value, factor, chunk=4), hidden
    )
    assert torch.autograd.gradcheck(
        lambda w: linear_cross_entropy(hidden.detach(), w, value, factor, chunk=4), weight
    )


def test_linear_cross_entropy_in_bf16_keeps_the_masters_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 64, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(1000, 64, generator=generator).mul(0.3).requires_grad_()
    value = torch.randint(0, 1000, (300,), generator=generator)
    loss = linear_cross_entropy(hidden, weight, value, torch.ones(300, dtype=EXACT), chunk=64)
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
    head = LinearHead(6, 3)
    initialise(head, 1, ModelConfig(), "heads.x.")
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


def test_layer_norm_and_linear_take_any_precision() -> None:
    norm, linear = LayerNorm(16, 1e-5), Linear(16, 8)
    initialise(norm, 1, ModelConfig())
    initialise(linear, 1, ModelConfig())
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
