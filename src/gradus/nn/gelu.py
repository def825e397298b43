"""GELU in its tanh form, whose slope is computed beside the value: half of the usual cost on the CPU.

With u = sqrt(2/pi) (x + 0.044715 x^3), 0.5 (1 + tanh u) is the logistic function of 2u, which needs one
vectorised exponential. The slope shares it, so backward is one product. The work is done in fp32 or better,
a cacheful at a time.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR = 2 * math.sqrt(2 / math.pi)
CUBIC = LINEAR * 0.044715
BLOCK = 1 << 17
"""Elements computed at once: half a MiB in fp32. Smaller blocks cost more calls than they save misses."""


def gelu_tanh(hidden: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016, section 2), any shape."""
    if not hidden.is_cpu:
        return F.gelu(hidden, approximate="tanh")
    value: Tensor = _GeluTanh.apply(hidden, torch.is_grad_enabled())
    return value


class _GeluTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, learns):
        hidden = hidden.contiguous()
        value = torch.empty_like(hidden)
        slope = torch.empty_like(hidden) if learns else None
        for start in range(0, hidden.numel(), BLOCK):
            part = slice(start, start + BLOCK)
            _block(
                hidden.view(-1)[part], value.view(-1)[part], None if slope is None else slope.view(-1)[part]
            )
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


def _block(hidden: Tensor, value: Tensor, slope: Tensor | None) -> None:
    """Fills `value` and `slope` [n]: with s = logistic(x t), t = LINEAR + CUBIC x^2, they are x s and
    s + x s (1 - s) (LINEAR + 3 CUBIC x^2)."""
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    factor = torch.mul(wide, wide).mul_(CUBIC).add_(LINEAR)
    share = torch.mul(factor, wide).sigmoid_()
    product = torch.mul(wide, share)
    value.copy_(product)
    if slope is not None:
        factor.mul_(3).sub_(2 * LINEAR)
        product.addcmul_(product, share, value=-1)
        slope.copy_(share.addcmul_(product, factor))
