"""Attention within the rows of a padded group: by matrix products, or by torch's fused kernels.

What a query may see is a `Mask`: everything before it, everything, or what the row's length, a window, a
shared prefix and a bias by distance say. Shapes: S rows, T queries, K keys, H heads, C channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gradus.nn.layers import byte_noise, scale_of, struck_of

QUERY_BLOCK = 128
"""The plain kernel takes this many queries at once and gives them only the keys that they may see."""


@dataclass(frozen=True, slots=True)
class Mask:
    """What queries see. `causal`: nothing behind them. `hidden` [S, 1, 1 or T, K] is True where a key is not
    seen besides; `bias` [H, T, K] is added to the scores, which are multiplied by `scale` (1/sqrt(C) unless
    given)."""

    causal: bool = True
    hidden: Tensor | None = None
    bias: Tensor | None = None
    scale: float | None = None


CAUSAL = Mask()
Kernel = Callable[[Tensor, Tensor, Tensor, float, Mask], Tensor]
"""(query [S, T, H, C], key and value [S, K, H, C], dropout, mask) -> [S, T, H, C]."""


def plain(query: Tensor, key: Tensor, value: Tensor, dropout: float, mask: Mask = CAUSAL) -> Tensor:
    """Attention by matrix products, any precision, on any device: the reference and the CPU's fastest.

    Softmax is computed in fp32 or better inside its kernel; weights are kept in the precision of the query.
    """
    scale = query.shape[-1] ** -0.5 if mask.scale is None else mask.scale
    attended: Tensor = _Plain.apply(
        query, key, value, mask.bias, mask.hidden, mask.causal, scale, struck_of(dropout),
        torch.is_grad_enabled(),
    )  # fmt: skip
    return attended


def sdpa(query: Tensor, key: Tensor, value: Tensor, dropout: float, mask: Mask = CAUSAL) -> Tensor:
    """Attention by `torch.nn.functional.scaled_dot_product_attention`."""
    seen = None
    if mask.hidden is not None or mask.bias is not None:
        time, keys = query.shape[1], key.shape[1]
        seen = query.new_zeros(1, 1, time, keys) if mask.bias is None else mask.bias.to(query.dtype)[None]
        if mask.hidden is not None:
            seen = seen.masked_fill(mask.hidden, -math.inf)
        if mask.causal:
            behind = torch.ones(time, keys, dtype=torch.bool, device=query.device).triu_(1)
            seen = seen.masked_fill(behind, -math.inf)
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    attended = F.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, dropout_p=dropout, is_causal=mask.causal and seen is None,
        scale=mask.scale,
    )  # fmt: skip
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


class _Plain(torch.autograd.Function):
    """Block by block of queries, so that of a causal mask no score above the diagonal block is computed.

    Weights are at least 0, so their sign is free to say that dropout struck them: what attends is `relu` of
    the signed weights and the gradient passes as through `relu`. One tensor is kept where three would be.
    """

    @staticmethod
    def forward(ctx, query, key, value, bias, hidden, causal, scale, struck, keep):
        rows, time, heads, channels = query.shape
        seen = key.shape[1]
        wide = (rows, heads, time, channels)
        queries = torch.mul(query.transpose(1, 2), scale, out=query.new_empty(wide)).flatten(0, 1)
        keys, values = (part.transpose(1, 2).reshape(rows * heads, seen, channels) for part in (key, value))
        raised = scale_of(struck)
        attended = query.new_empty(rows, time, heads, channels)
        kept = []
        for first in range(0, time, QUERY_BLOCK):
            last = min(first + QUERY_BLOCK, time)
            end = last if causal else seen
            scores = torch.bmm(queries[:, first:last], keys[:, :end].transpose(1, 2))
            shaped = scores.view(rows, heads, last - first, end)
            if bias is not None:
                shaped.add_(bias[:, first:last, :end])
            if hidden is not None:
                lines = slice(None) if hidden.shape[2] == 1 else slice(first, last)
                shaped.masked_fill_(hidden[:, :, lines, :end], -math.inf)
            weights = _weights(scores, struck, causal)
            mixed = torch.bmm(torch.relu(weights) if struck else weights, values[:, :end])
            place = attended[:, first:last].transpose(1, 2)
            torch.mul(mixed.view(place.shape), raised, out=place)
            kept += [weights] if keep else []
        ctx.save_for_backward(queries, keys, values, *kept)
        ctx.struck, ctx.heads, ctx.causal, ctx.scale = struck, heads, causal, scale
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        return attended

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        queries, keys, values, *kept = ctx.saved_tensors
        (_, time, channels), seen, heads = queries.shape, keys.shape[1], ctx.heads
        rows = len(queries) // heads
        wide = (rows, heads, time, channels)
        upstream = torch.mul(gradient.transpose(1, 2), scale_of(ctx.struck), out=gradient.new_empty(wide))
        upstream = upstream.flatten(0, 1)
        to_query, to_key, to_value = (torch.empty_like(part) for part in (queries, keys, values))
        to_bias = None
        if ctx.bias is not None and ctx.needs_input_grad[3]:
            shape, dtype = ctx.bias
            to_bias = torch.zeros(shape, dtype=torch.promote_types(dtype, torch.float32), device=keys.device)
        # The last block sees every key: it writes what the others add to.
        for first in reversed(range(0, time, QUERY_BLOCK)):
            last = min(first + QUERY_BLOCK, time)
            end = last if ctx.causal else seen
            weights, above = kept[first // QUERY_BLOCK], upstream[:, first:last]
            scores = _score_gradient(above, values[:, :end], weights, ctx.struck)
            if to_bias is not None:
                summed = scores.view(rows, heads, last - first, end).sum(0, dtype=to_bias.dtype)
                to_bias[:, first:last, :end].add_(summed)
            passed = torch.relu(weights) if ctx.struck else weights
            beta = 0 if last == time else 1
            to_value[:, :end].baddbmm_(passed.transpose(1, 2), above, beta=beta)
            to_key[:, :end].baddbmm_(scores.transpose(1, 2), queries[:, first:last], beta=beta)
            torch.mul(torch.bmm(scores, keys[:, :end]), ctx.scale, out=to_query[:, first:last])
        to_query = to_query.view(wide).transpose(1, 2)
        to_key, to_value = (
            part.view(rows, heads, seen, channels).transpose(1, 2) for part in (to_key, to_value)
        )
        to_bias = None if to_bias is None else to_bias.to(ctx.bias[1])
        return to_query, to_key, to_value, to_bias, None, None, None, None, None


def _weights(scores: Tensor, struck: int, causal: bool) -> Tensor:
    """Softmax of scores [S H, block, seen], which it may overwrite; negative where dropout struck."""
    if causal:
        block = scores.shape[1]
        behind = torch.full((block, block), -math.inf, dtype=scores.dtype, device=scores.device).triu_(1)
        scores[:, :, -block:].add_(behind)
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
