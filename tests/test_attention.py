"""Attention and the layout of sequences for it: the formula, its gradient, and what the groups cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gradus.nn.kernels import KERNELS, kernel_for
from gradus.nn.layout import Layout, group_lengths, round_rows

EXACT = torch.float64


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


def test_attention_dropout_is_unbiased_and_acts_on_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 20, 1, 4, dtype=EXACT, generator=generator) for _ in range(3))
    repeated = [part.expand(20000, -1, -1, -1) for part in (query, key, value)]
    torch.manual_seed(1)
    mean = KERNELS["plain"](*repeated, 0.25).mean(0)
    assert (mean - KERNELS["plain"](query, key, value, 0.0)[0]).abs().max() < 0.03
    first = KERNELS["plain"](*repeated, 0.25)[:, 0, 0] / value[0, 0, 0]
    assert set(first[:, 0].mul(1e6).round().div(1e6).unique().tolist()) == {0.0, round(4 / 3, 6)}


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


def test_the_kernel_is_chosen_before_the_first_batch() -> None:
    assert kernel_for("cpu", 512, 0.1) == "plain" and kernel_for("cpu", 4096, 0.0) == "sdpa"
    assert kernel_for("cuda", 512, 0.1) == "sdpa"
