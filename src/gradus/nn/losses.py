"""Losses as sums: each target's cross-entropy times its weight. The caller divides by the step's count.

Shapes: M targets, D width, V vocabulary, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gradus.core.example import ROUND_TOKENS

CHUNK_CELLS = {"cpu": 1 << 23}
"""Logits that exist at one time: 16 MiB in bf16."""
ELSEWHERE = 1 << 25
"""The same on other devices, where every call costs a launch: 64 MiB in bf16, and 3 times that in fp32."""
BLOCK_CELLS = {"cpu": 1 << 19}
"""Logits that pass through the softmax together: 2 MiB in fp32, which two cores keep in their caches.
Elsewhere a whole chunk does."""


def cross_entropy_sum(logits: Tensor, value: Tensor, weight: Tensor, smoothing: float = 0.0) -> Tensor:
    """The sum of weight [M] times the cross-entropy of logits [M, K] against value [M], of which `smoothing`
    is spread evenly over all K (Szegedy et al. 2016, section 7); 0 for M = 0."""
    precision = torch.promote_types(logits.dtype, torch.float32)
    losses = F.cross_entropy(logits.to(precision), value, reduction="none", label_smoothing=smoothing)
    return (losses * weight.to(precision)).sum()


def binary_cross_entropy_sum(
    logits: Tensor, value: Tensor, weight: Tensor, positive: Tensor | None = None
) -> Tensor:
    """The sum of weight [M] times the mean over the finite logits of a line of [M, K] of the cross-entropy of
    their sigmoids against value [M, K], zeros and ones, of which a one counts positive [M, K] times; 0
    for M = 0."""
    precision = torch.promote_types(logits.dtype, torch.float32)
    there = logits.isfinite()
    finite = logits.masked_fill(~there, 0.0).to(precision)
    factor = None if positive is None else positive.to(logits.device, precision)
    losses = (
        F.binary_cross_entropy_with_logits(finite, value.to(precision), pos_weight=factor, reduction="none")
        * there
    )
    return (losses.sum(1) / there.sum(1) * weight.to(precision)).sum()


def squared_error_sum(predicted: Tensor, value: Tensor, weight: Tensor) -> Tensor:
    """The sum of weight [M] times the squared difference of predicted [M] and value [M]; 0 for M = 0."""
    precision = torch.promote_types(predicted.dtype, torch.float32)
    difference = predicted.to(precision) - value.to(precision)
    return (difference * difference * weight.to(precision)).sum()


def linear_cross_entropy(
    states: Tensor,
    weight: Tensor,
    value: Tensor,
    weight_of: Tensor,
    bias: Tensor | None = None,
    chunk: int | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """The sum of weight_of [M] times the cross-entropy of states [M, D] @ weight.T [D, V] + bias [V] against
    value [M], of which `smoothing` is spread evenly over all V (Szegedy et al. 2016, section 7).

    Logits are never all there: `chunk` rows at a time (from M and V unless given) become logits, loss and
    gradients in one go, so backward only scales. Products run in the precision of the states, log-sum-exp,
    loss and the weight's gradient in fp32 or better. Weight is a master weight [V, D] of any precision.
    M = 0 gives 0 with a gradient of 0. It cannot be differentiated twice.
    """
    cells = CHUNK_CELLS.get(states.device.type, ELSEWHERE)
    rows = chunk or max(64, cells // len(weight) // 64 * 64)
    result: Tensor = _LinearCrossEntropy.apply(
        states, weight, bias, value, weight_of, rows, smoothing, torch.is_grad_enabled()
    )
    return result


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, bias, value, weight_of, rows, smoothing, learns):
        precision = torch.promote_types(states.dtype, torch.float32)
        narrow, targets = weight.to(states.dtype), len(states)
        # Targets of weight 0 fill up to a matrix shape that the kernels have met before.
        fill = -targets % ROUND_TOKENS
        states, value = F.pad(states, (0, 0, 0, fill)), F.pad(value, (0, fill))
        factor = F.pad(weight_of.to(precision), (0, fill))
        losses = torch.empty(len(states), dtype=precision, device=states.device)
        to_states = torch.empty_like(states) if learns and ctx.needs_input_grad[0] else None
        to_weight = None
        if learns and ctx.needs_input_grad[1]:
            to_weight = torch.zeros(weight.shape, dtype=precision, device=weight.device)
        to_bias = None
        if learns and ctx.needs_input_grad[2]:
            to_bias = torch.zeros(bias.shape, dtype=precision, device=bias.device)
        needed = to_states is not None or to_weight is not None or to_bias is not None
        for start in range(0, len(states), rows):
            part = slice(start, start + rows)
            logits = torch.mm(states[part], narrow.t())
            if bias is not None:
                logits.add_(bias)
            losses[part] = _softmax_inplace(logits, value[part], factor[part], needed, smoothing)
            if to_states is not None:
                torch.mm(logits, narrow, out=to_states[part])
            if to_weight is not None:
                to_weight.add_(torch.mm(logits.t(), states[part]))
            if to_bias is not None:
                to_bias.add_(logits.sum(0, dtype=precision))
        ctx.gradients = (None if to_states is None else to_states[:targets], to_weight, to_bias)
        ctx.precision = weight.dtype
        return (losses * factor).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        to_states, to_weight, to_bias = ctx.gradients
        if to_states is not None:
            # Rounding the scale to half precision would set these gradients apart from the weight's.
            to_states = (to_states.to(gradient.dtype) * gradient).to(to_states.dtype)
        if to_weight is not None:
            to_weight = (to_weight * gradient).to(ctx.precision)
        if to_bias is not None:
            to_bias = (to_bias * gradient).to(ctx.precision)
        return to_states, to_weight, to_bias, None, None, None, None, None


def _softmax_inplace(logits: Tensor, value: Tensor, factor: Tensor, needed: bool, smoothing: float) -> Tensor:
    """Cross-entropies [M] of logits [M, V]; where `needed`, logits become factor x (softmax - what is
    wanted), which is (1 - smoothing) x one-hot + smoothing / V."""
    losses = torch.empty_like(factor)
    rows = max(1, BLOCK_CELLS.get(logits.device.type, logits.numel()) // logits.shape[1])
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        block = logits[part]
        wide = block.to(factor.dtype, copy=True)
        top = wide.amax(1, keepdim=True)
        target = value[part].unsqueeze(1)
        wanted = wide.gather(1, target)
        if smoothing:
            wanted = (1 - smoothing) * wanted + smoothing * wide.mean(1, keepdim=True)
        total = wide.sub_(top).exp_().sum(1, keepdim=True)
        losses[part] = (total.log() + top - wanted).squeeze(1)
        if needed:
            scale = factor[part].unsqueeze(1)
            wide.mul_(scale / total).scatter_add_(1, target, (smoothing - 1) * scale)
            if smoothing:
                wide.sub_(scale * (smoothing / wide.shape[1]))
            block.copy_(wide)
    return losses
