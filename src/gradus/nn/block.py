"""One layer: attention and feed-forward, each a residual branch with the norm after it or before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradus.core.model import ModelConfig
from gradus.nn.attention import CrossAttention, SelfAttention, Sight
from gradus.nn.cache import Kept
from gradus.nn.layers import Dropout, Linear, activation, first_given, make_norm

Memory = tuple[Tensor | Kept, Sight]
"""The encoder's states [M, D], or what a layer keeps of them, and what the decoder sees of them."""


class FeedForward(nn.Module):
    """states [N, D] -> [N, D] through `hidden` units, which a second projection may gate (Shazeer 2020):
    down(f(gate(x)) * up(x)) in place of down(f(up(x)))."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype):
        super().__init__()
        self.up = Linear(config.width, config.hidden, config.biases, dtype)
        if config.gated:
            self.gate = Linear(config.width, config.hidden, config.biases, dtype)
        self.down = Linear(config.hidden, config.width, config.biases, dtype)
        self.activation = activation(config.activation)
        self.dropout = Dropout(config.feed_forward_dropout)
        self.raised = self._gated if config.gated else self._plain

    def forward(self, states: Tensor) -> Tensor:
        return self.down(self.dropout(self.raised(states)))

    def _plain(self, states: Tensor) -> Tensor:
        return self.activation(self.up(states))

    def _gated(self, states: Tensor) -> Tensor:
        return self.activation(self.gate(states)) * self.up(states)


class Block(nn.Module):
    """states [N, D] -> [N, D]: `norm(x + f(x))` as in GPT-1, or `x + f(norm(x))` as in GPT-2, for f in self
    attention, attention to an encoder where there is one, and feed-forward."""

    def __init__(self, config: ModelConfig, kernel: str, dtype: torch.dtype, crosses: bool = False):
        super().__init__()
        dropout = first_given(config.attention_dropout, config.dropout)
        options = {"bias": config.biases, "dtype": dtype}
        self.attention = SelfAttention(config, dropout, kernel, **options)
        self.attention_norm = make_norm(config, dtype)
        if crosses:
            self.cross_attention = CrossAttention(config, dropout, kernel, **options)
            self.cross_attention_norm = make_norm(config, dtype)
        self.feed_forward = FeedForward(config, dtype)
        self.feed_forward_norm = make_norm(config, dtype)
        self.dropout = Dropout(config.dropout)
        self.arranged = {"after": self.norm_after, "before": self.norm_before}[config.norm]

    def forward(self, states: Tensor, sight: Sight, memory: Memory | None = None) -> Tensor:
        return self.arranged(states, sight, memory)

    def norm_after(self, states: Tensor, sight: Sight, memory: Memory | None) -> Tensor:
        states = self.attention_norm(states + self.dropout(self.attention(states, sight)))
        if memory is not None:
            states = self.cross_attention_norm(states + self.dropout(self.cross_attention(states, *memory)))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states)))

    def norm_before(self, states: Tensor, sight: Sight, memory: Memory | None) -> Tensor:
        states = states + self.dropout(self.attention(self.attention_norm(states), sight))
        if memory is not None:
            seen = self.cross_attention(self.cross_attention_norm(states), *memory)
            states = states + self.dropout(seen)
        return states + self.dropout(self.feed_forward(self.feed_forward_norm(states)))
