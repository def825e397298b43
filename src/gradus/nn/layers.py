"""Linear, layer norm, dropout and activations that keep fp32 master weights under activations of any
precision.

There is no autocast: a layer casts its weight to the precision of what it is given, so bf16 activations
meet bf16 weights and gradients arrive in the master's own precision. Shapes: N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradus.core.model import ModelConfig
from gradus.nn.gelu import gelu_tanh

LEVELS = 256
"""Dropout on the CPU draws one byte an element: a probability is rounded to a 256th."""
_WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Linear(nn.Module):
    """`inputs [N, in] -> [N, out]` with weight [out, in], cast to the precision of the inputs."""

    deviation: float | None = None
    """Of the weight's start; the model's unless set."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(outputs, dtype=dtype)) if bias else None

    def forward(self, inputs: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return F.linear(inputs, self.weight.to(inputs.dtype), bias)


class LayerNorm(nn.Module):
    """Layer norm (Ba, Kiros and Hinton 2016) of states [N, D]; statistics and gains in fp32 or better."""

    def __init__(self, width: int, epsilon: float, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(width, dtype=dtype))
        self.epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        if states.is_cpu or states.dtype == self.weight.dtype:
            # The CPU kernel takes half-precision states with fp32 gains and keeps its sums in fp32.
            return F.layer_norm(states, self.weight.shape, self.weight, self.bias, self.epsilon)
        wide = states.to(self.weight.dtype)
        return F.layer_norm(wide, self.weight.shape, self.weight, self.bias, self.epsilon).to(states.dtype)


class RMSNorm(nn.Module):
    """The scale of layer norm without its centre (Zhang and Sennrich 2019) for states [N, D]; computed in
    fp32 or better, and the gain multiplies there too."""

    def __init__(self, width: int, epsilon: float, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, dtype=dtype))
        self.epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        wide = states.to(self.weight.dtype)
        return F.rms_norm(wide, self.weight.shape, self.weight, self.epsilon).to(states.dtype)


def make_norm(config: ModelConfig, dtype: torch.dtype) -> LayerNorm | RMSNorm:
    """The norm that a model's layers have."""
    kind = LayerNorm if config.norm_kind == "layer" else RMSNorm
    return kind(config.width, config.norm_epsilon, dtype)


class Dropout(nn.Module):
    """Zeroes elements and scales the others, so that the expectation stays (Srivastava et al. 2014).

    On the CPU the probability is `struck_of(probability) / 256` exactly, and the survivors' scale fits
    that. In evaluation, and with probability 0, it is the identity and draws nothing. Raises ValueError
    outside [0, 1).
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability
        self.struck = struck_of(probability)

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or not self.struck:
            return states
        if not states.is_cpu:
            return F.dropout(states, self.probability)
        kept: Tensor = _Kept.apply(states, keep_mask(states, self.struck), scale_of(self.struck))
        return kept


def struck_of(probability: float) -> int:
    """How many of 256 bytes strike an element: the nearest to `probability`, at least 1 unless it is 0."""
    if not 0 <= probability < 1:
        raise ValueError(f"dropout probability {probability} is not in [0, 1)")
    return min(max(round(probability * LEVELS), 1), LEVELS - 1) if probability else 0


def scale_of(struck: int) -> float:
    """What survivors are multiplied by, so that the expectation stays."""
    return LEVELS / (LEVELS - struck)


def byte_noise(like: Tensor) -> Tensor:
    """Uniform numbers 0 ... 255 as integers of the element size and shape of `like`, from the default
    generator.

    Eight elements share one 64-bit draw. Integers as wide as the elements keep every later step vectorised:
    a mask of booleans would cost more than the product that it masks.
    """
    word = _WORDS[like.element_size()]
    draws = torch.empty(-(-like.numel() // 8), dtype=torch.int64, device=like.device)
    lanes = draws.random_(-(2**63), None).view(word)
    noise = torch.empty(like.element_size(), len(lanes), dtype=word, device=like.device)
    for lane in range(like.element_size()):
        torch.bitwise_right_shift(lanes, 8 * lane, out=noise[lane])
    return noise.bitwise_and_(LEVELS - 1).view(-1)[: like.numel()].view(like.shape)


def keep_mask(like: Tensor, struck: int) -> Tensor:
    """Ones where a byte lets the element pass and zeros elsewhere, in the precision and shape of `like`."""
    one = torch.ones((), dtype=like.dtype).view(_WORDS[like.element_size()])
    return byte_noise(like).ge_(struck).mul_(int(one)).view(like.dtype)


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, mask, scale):
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return torch.mul(states, mask).mul_(scale)

    @staticmethod
    def backward(ctx, gradient):
        (mask,) = ctx.saved_tensors
        return torch.mul(gradient, mask).mul_(ctx.scale), None, None


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": gelu_tanh,
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function of that name in `ModelConfig.activation`. `gelu_tanh` is the form GPT-1's release uses."""
    return ACTIVATIONS[name]


def first_given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
