"""Attention: the only place that knows where sequences begin, and the only one that pads.

Tokens come flat, sequences end to end. A `Layout` lays them out in a few groups of like length, a kernel
attends within every row of a group, and the layout brings the rows back. Padding stands after a row's real
tokens, so the causal mask alone hides it. Shapes: N flat tokens, S rows, T time, H heads, C channels of a
head, D = H C width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradus.nn.layers import Linear, byte_noise, scale_of, struck_of

ROUND_LENGTH = 16
"""Lengths are rounded up to this inside attention: each new matrix shape makes oneDNN build a kernel."""
GROUP_COST = 1 << 17
"""What one more group costs in calls, counted in cells of a score matrix."""
QUERY_BLOCK = 128
"""The plain kernel takes this many queries at once and gives them only the keys that they may see."""

Kernel = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(query, key, value [S, T, H, C], dropout) -> [S, T, H, C], causal."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How N flat tokens become padded groups [S, T] and return.

    `groups` are (S, T). `take` [P] names the flat token of every padded place and `back` [real] the padded
    place of every real token; both are None where the tokens already stand as one group. `padding` are the
    places of `take` that hold no token.
    """

    total: int
    real: int
    groups: tuple[tuple[int, int], ...]
    take: Tensor | None = None
    back: Tensor | None = None
    padding: Tensor | None = None

    @staticmethod
    def of(offsets: np.ndarray, total: int, device: torch.device | str = "cpu") -> Layout:
        """The layout of sequences at `offsets` [S+1] among `total` tokens: a function of their lengths."""
        lengths = np.diff(offsets)
        real = int(offsets[-1])
        if len(lengths) and (lengths == lengths[0]).all() and lengths[0] > 0:
            return Layout(total, real, ((len(lengths), int(lengths[0])),))
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > 0]
        groups: list[tuple[int, int]] = []
        starts, places = [], 0
        for rows, time in group_lengths(lengths[order]):
            groups.append((round_rows(rows), time))
            starts.append(places + np.arange(rows) * time)
            places += groups[-1][0] * time
        within = np.arange(real) - np.repeat(offsets[:-1], lengths)
        place = np.zeros(len(lengths), dtype=np.int64)
        place[order] = np.concatenate(starts)
        back = np.repeat(place, lengths) + within
        take = np.zeros(places, dtype=np.int64)
        take[back] = np.arange(real)
        empty = np.ones(places, dtype=bool)
        empty[back] = False
        indices = [torch.from_numpy(part).to(device) for part in (take, back, np.flatnonzero(empty))]
        return Layout(total, real, tuple(groups), *indices)

    def spread(self, flat: Tensor) -> Sequence[Tensor]:
        """[N, ...] -> one [S, T, ...] a group. A view where the tokens already stand as one group."""
        if self.take is None or self.back is None:
            rows, time = self.groups[0]
            return [flat[: self.real].view(rows, time, *flat.shape[1:])]
        padded: Tensor = Move.apply(flat, self.take, self.back, None)
        parts = padded.split([rows * time for rows, time in self.groups])
        return [part.view(*group, *flat.shape[1:]) for part, group in zip(parts, self.groups)]

    def collect(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of `spread`: [N, ...], zero in the dead tail."""
        tail = self.total - self.real
        if self.take is None or self.back is None:
            flat = parts[0].flatten(0, 1)
            return F.pad(flat, (0, 0) * (flat.dim() - 1) + (0, tail)) if tail else flat
        joined = (
            parts[0].flatten(0, 1) if len(parts) == 1 else torch.cat([part.flatten(0, 1) for part in parts])
        )
        flat = Move.apply(joined, self.back, self.take, self.padding)
        return F.pad(flat, (0, 0) * (flat.dim() - 1) + (0, tail)) if tail else flat


class Move(torch.autograd.Function):
    """Rows to other places: forward takes `there`, backward takes `back`. Neither adds, so both only copy.

    `unread` are the rows of the input that the result leaves out: their gradient is 0.
    """

    @staticmethod
    def forward(ctx, rows, there, back, unread):
        ctx.indices, ctx.size = (back, unread), len(rows)
        return rows.index_select(0, there)

    @staticmethod
    def backward(ctx, gradient):
        back, unread = ctx.indices
        moved = gradient.index_select(0, back)
        if unread is not None and len(unread):
            moved.index_fill_(0, unread, 0)
        if len(moved) < ctx.size:
            moved = F.pad(moved, (0, 0) * (moved.dim() - 1) + (0, ctx.size - len(moved)))
        return moved, None, None, None


def group_lengths(lengths: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Cuts lengths, longest first, into groups (rows, padded time) of least cost.

    The cost of a group is rows x time^2 cells of scores and a constant for its calls; the cheapest
    partition of the distinct rounded lengths into runs is found by dynamic programming.
    """
    rounded = -(-np.asarray(lengths, dtype=np.int64) // ROUND_LENGTH) * ROUND_LENGTH
    times, counts = np.unique(rounded, return_counts=True)
    times, counts = times[::-1], counts[::-1]
    before = np.concatenate([[0], np.cumsum(counts)])
    best, cut = [0.0], [0]
    for end in range(1, len(times) + 1):
        costs = [
            best[start] + GROUP_COST + float(before[end] - before[start]) * float(times[start]) ** 2
            for start in range(end)
        ]
        cut.append(int(np.argmin(costs)))
        best.append(costs[cut[end]])
    groups: list[tuple[int, int]] = []
    end = len(times)
    while end:
        groups.append((int(before[end] - before[cut[end]]), int(times[cut[end]])))
        end = cut[end]
    return tuple(reversed(groups))


def round_rows(rows: int) -> int:
    """Up to a power of two or three quarters of one: rows of a group are a matrix shape too."""
    power = 1 << (rows - 1).bit_length()
    return power * 3 // 4 if power >= 4 and rows <= power * 3 // 4 else power


def plain(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Causal attention by matrix products, any precision, on any device: the reference and the CPU's fastest.

    Softmax is computed in fp32 or better inside its kernel; weights are kept in the precision of the query.
    """
    attended: Tensor = _Causal.apply(query, key, value, struck_of(dropout), torch.is_grad_enabled())
    return attended


def sdpa(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Causal attention by `torch.nn.functional.scaled_dot_product_attention`."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
    return attended.transpose(1, 2)


KERNELS: dict[str, Kernel] = {"plain": plain, "sdpa": sdpa}


def kernel_for(device: torch.device | str, context: int, dropout: float) -> str:
    """The fastest kernel's name, from what is known before the first batch.

    Measured on two cores with AVX-512 and AMX, forward and backward: `plain` is 1.4 (fp32) to 2.2 (bf16)
    times SDPA at 256 tokens without dropout and 3 times with it; beyond 1024 tokens SDPA's memory decides.
    """
    if torch.device(device).type != "cpu":
        return "sdpa"
    return "plain" if context <= 1024 or dropout else "sdpa"


class _Causal(torch.autograd.Function):
    """Block by block of queries, so that no score above the diagonal block is ever computed.

    Weights are at least 0, so their sign is free to say that dropout struck them: what attends is `relu` of
    the signed weights and the gradient passes as through `relu`. One tensor is kept where three would be.
    """

    @staticmethod
    def forward(ctx, query, key, value, struck, keep):
        rows, time, heads, channels = query.shape
        wide = (rows, heads, time, channels)
        queries = torch.mul(query.transpose(1, 2), channels**-0.5, out=query.new_empty(wide)).flatten(0, 1)
        keys, values = (part.transpose(1, 2).reshape(rows * heads, time, channels) for part in (key, value))
        scale = scale_of(struck)
        attended = query.new_empty(rows, time, heads, channels)
        kept = []
        for first in range(0, time, QUERY_BLOCK):
            last = min(first + QUERY_BLOCK, time)
            weights = _weights(queries[:, first:last], keys[:, :last], struck)
            seen = torch.bmm(torch.relu(weights) if struck else weights, values[:, :last])
            place = attended[:, first:last].transpose(1, 2)
            torch.mul(seen.view(place.shape), scale, out=place)
            kept += [weights] if keep else []
        ctx.save_for_backward(queries, keys, values, *kept)
        ctx.struck, ctx.heads = struck, heads
        return attended

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        queries, keys, values, *kept = ctx.saved_tensors
        _, time, channels = queries.shape
        rows = len(queries) // ctx.heads
        wide = (rows, ctx.heads, time, channels)
        upstream = torch.mul(gradient.transpose(1, 2), scale_of(ctx.struck), out=gradient.new_empty(wide))
        upstream = upstream.flatten(0, 1)
        to_query, to_key, to_value = (torch.empty_like(part) for part in (queries, keys, values))
        # The last block sees every key: it writes what the others add to.
        for first in reversed(range(0, time, QUERY_BLOCK)):
            last = min(first + QUERY_BLOCK, time)
            weights, above = kept[first // QUERY_BLOCK], upstream[:, first:last]
            scores = _score_gradient(above, values[:, :last], weights, ctx.struck)
            passed = torch.relu(weights) if ctx.struck else weights
            beta = 0 if last == time else 1
            to_value[:, :last].baddbmm_(passed.transpose(1, 2), above, beta=beta)
            to_key[:, :last].baddbmm_(scores.transpose(1, 2), queries[:, first:last], beta=beta)
            torch.mul(torch.bmm(scores, keys[:, :last]), channels**-0.5, out=to_query[:, first:last])
        gradients = (part.view(wide).transpose(1, 2) for part in (to_query, to_key, to_value))
        return *gradients, None, None


def _weights(queries: Tensor, keys: Tensor, struck: int) -> Tensor:
    """Weights [S H, block, seen] of the last `block` of `seen` places, negative where dropout struck."""
    scores = torch.bmm(queries, keys.transpose(1, 2))
    block = queries.shape[1]
    hidden = torch.full((block, block), -math.inf, dtype=scores.dtype, device=scores.device).triu_(1)
    scores[:, :, -block:].add_(hidden)
    weights = torch.softmax(scores, -1)
    if not struck:
        return weights
    noise = byte_noise(weights).sub_(struck)
    return torch.copysign(weights, noise.view(weights.dtype), out=scores)


def _score_gradient(above: Tensor, values: Tensor, weights: Tensor, struck: int) -> Tensor:
    gradient = torch.bmm(above, values.transpose(1, 2))
    if struck:
        gradient = torch.ops.aten.threshold_backward(gradient, weights, 0)
        weights = weights.abs()
    result: Tensor = torch.ops.aten._softmax_backward_data(gradient, weights, -1, weights.dtype)
    return result


def attend(projected: Tensor, layout: Layout, kernel: Kernel, dropout: float) -> Tensor:
    """Causal self attention of query, key and value [N, 3, H, C] -> [N, H, C], 0 in the dead tail."""
    attended = []
    for group in layout.spread(projected):
        query, key, value = group.unbind(2)
        attended.append(kernel(query, key, value, dropout))
    return layout.collect(attended)


class SelfAttention(nn.Module):
    """Masked multi-head self attention (Vaswani et al. 2017, section 3.2) with one fused projection."""

    def __init__(self, width: int, heads: int, dropout: float, kernel: str, **options: Any):
        super().__init__()
        self.shape = (3, heads, width // heads)
        self.dropout = dropout
        self.kernel = KERNELS[kernel]
        self.query_key_value = Linear(width, 3 * width, **options)
        self.output = Linear(width, width, **options)

    def forward(self, states: Tensor, layout: Layout) -> Tensor:
        projected = self.query_key_value(states).view(-1, *self.shape)
        attended = attend(projected, layout, self.kernel, self.dropout if self.training else 0.0)
        return self.output(attended.reshape(states.shape))
