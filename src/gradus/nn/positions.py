"""What says where a token stands, beside a learned table: sinusoids, turns, distances.

Shapes: N tokens, T time or context, D width, H heads, C channels of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gradus.core.model import ModelConfig

LONGEST_WAVE = 10_000
"""Vaswani et al. 2017, section 3.5: wavelengths go from 2 pi to 10000 times that."""


def sinusoids(context: int, width: int, dtype: torch.dtype) -> Tensor:
    """[T, D]: sin(t / 10000^(2i/D)) at 2i and the cosine at 2i + 1 (Vaswani et al. 2017, section 3.5)."""
    even = torch.arange(0, width, 2, dtype=torch.float64)
    angles = torch.arange(context, dtype=torch.float64)[:, None] / LONGEST_WAVE ** (even / width)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :width].to(dtype).contiguous()


def turns(positions: Tensor, channels: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(cosines, sines) [N, 1, C / 2] of the angles position / base^(2c/C) (Su et al. 2021, 3.2.2)."""
    place = torch.arange(0, channels, 2, dtype=torch.float64, device=positions.device)
    angles = (positions.double()[:, None] * base ** (-place / channels))[:, None, :]
    return angles.cos().to(dtype), angles.sin().to(dtype)


class RelativeBias(nn.Module):
    """A learned number for each head and bucket of distances (Raffel et al. 2020, section 2.1): half of the
    buckets are single distances, the others grow with their logarithm up to `relative_distance`. A decoder's
    buckets all look back, half of an encoder's look ahead. All layers of a stack share it."""

    def __init__(self, config: ModelConfig, causal: bool, dtype: torch.dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.relative_buckets, config.heads, dtype=dtype))
        self.causal, self.farthest = causal, config.relative_distance

    def forward(self, time: int, query: int | None = None) -> Tensor:
        """[H, T, T]: what is added to the score of query t and key k; [H, 1, T] of one query alone."""
        place = torch.arange(time, device=self.weight.device)
        queries = place if query is None else place[query : query + 1]
        bucket = buckets(place[None, :] - queries[:, None], len(self.weight), self.farthest, self.causal)
        return nn.functional.embedding(bucket, self.weight).permute(2, 0, 1)


def buckets(distance: Tensor, count: int, farthest: int, causal: bool) -> Tensor:
    """The bucket of each distance key - query, as Mesh TensorFlow and T5 count them."""
    if causal:
        offset, back = torch.zeros_like(distance), (-distance).clamp(min=0)
    else:
        count //= 2
        offset, back = (distance > 0).long() * count, distance.abs()
    exact = count // 2
    # In float32, as released: at a bucket's border the rounding decides.
    far = torch.log(back.clamp(min=1).float() / exact) / math.log(farthest / exact) * (count - exact)
    coarse = (exact + far.long()).clamp(max=count - 1)
    return offset + torch.where(back < exact, back, coarse)
