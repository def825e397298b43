"""One layer: attention and feed-forward, each a residual branch with the norm after it or before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradus.core.model import ModelConfig
from gradus.nn.attention import Layout, SelfAttention
from gradus.nn.layers import Dropout, LayerNorm, Linear, activation


class FeedForward(nn.Module):
    """states [N, D] -> [N, D] through `hidden` units."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype):
        super().__init__()
        self.up = Linear(config.width, config.hidden, dtype=dtype)
        self.down = Linear(config.hidden, config.width, dtype=dtype)
        self.activation = activation(config.activation)

    def forward(self, states: Tensor) -> Tensor:
        return self.down(self.activation(self.up(states)))


class Block(nn.Module):
    """states [N, D] -> [N, D]: `norm(x + f(x))` as in GPT-1, or `x + f(norm(x))` as in GPT-2."""

    def __init__(self, config: ModelConfig, kernel: str, dtype: torch.dtype):
        super().__init__()
        attention_dropout = first_given(config.attention_dropout, config.dropout)
        self.attention = SelfAttention(config.width, config.heads, attention_dropout, kernel, dtype=dtype)
        self.attention_norm = LayerNorm(config.width, config.norm_epsilon, dtype)
        self.feed_forward = FeedForward(config, dtype)
        self.feed_forward_norm = LayerNorm(config.width, config.norm_epsilon, dtype)
        self.dropout = Dropout(config.dropout)
        self.arranged = {"after": self.norm_after, "before": self.norm_before}[config.norm]

    def forward(self, states: Tensor, layout: Layout) -> Tensor:
        return self.arranged(states, layout)

    def norm_after(self, states: Tensor, layout: Layout) -> Tensor:
        states = self.attention_norm(states + self.dropout(self.attention(states, layout)))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states)))

    def norm_before(self, states: Tensor, layout: Layout) -> Tensor:
        states = states + self.dropout(self.attention(self.attention_norm(states), layout))
        return states + self.dropout(self.feed_forward(self.feed_forward_norm(states)))


def first_given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
