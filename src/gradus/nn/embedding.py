"""Tokens and positions as states: the sum of what is looked up, and where dropout strikes it.

Shapes: N tokens, D width, V vocabulary, T context.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gradus.core.example import Ragged
from gradus.core.model import ModelConfig
from gradus.nn.block import first_given
from gradus.nn.layers import Dropout

LONGEST_WAVE = 10_000
"""Vaswani et al. 2017, section 3.5: wavelengths go from 2 pi to 10000 times that."""


class Table(nn.Module):
    """Rows of a matrix [V, D] by index."""

    def __init__(self, rows: int, width: int, dtype: torch.dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width, dtype=dtype))


class Embedding(nn.Module):
    """Tokens [N] and their positions [N] -> states [N, D] in `precision`.

    See `ModelConfig.positions` and `ModelConfig.embedding_dropout_on`. Dropout on the tables is drawn once a
    forward, tokens before positions, sinusoids included.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, precision: torch.dtype):
        super().__init__()
        assert config.vocab_size is not None, "the tokenizer sets vocab_size before a model is built"
        self.precision = precision
        self.tokens = Table(config.vocab_size, config.width, dtype)
        self.scale = 1.0
        if config.positions == "learned":
            self.positions = Table(config.context, config.width, dtype)
        elif config.positions == "sinusoidal":
            self.scale = math.sqrt(config.width)
            self.register_buffer("waves", sinusoids(config.context, config.width, dtype), persistent=False)
        self.kind = config.positions
        self.dropout = Dropout(first_given(config.embedding_dropout, config.dropout))
        self.on_table = config.embedding_dropout_on == "table"
        self._dropped: tuple[Tensor, ...] = ()  # in a tuple, or it would be taken for a parameter

    @property
    def token_table(self) -> Tensor:
        """The weight [V, D]; in training with dropout on the table, what the last forward left of it."""
        return self._dropped[0] if self.training and self._dropped else self.tokens.weight

    def forward(self, source: Ragged) -> Tensor:
        tokens, places = self.tokens.weight, self._places()
        if self.on_table:
            tokens = self.dropout(tokens)
            places = None if places is None else self.dropout(places)
            self._dropped = (tokens,)
        states = nn.functional.embedding(source.tokens, tokens)
        if self.scale != 1:
            states = states * self.scale
        if places is not None:
            states = states + nn.functional.embedding(source.positions, places)
        states = states.to(self.precision)
        return states if self.on_table else self.dropout(states)

    def _places(self) -> Tensor | None:
        """The table [T, D] of positions."""
        if self.kind == "learned":
            return self.positions.weight
        return self.get_buffer("waves") if self.kind == "sinusoidal" else None


def sinusoids(context: int, width: int, dtype: torch.dtype) -> Tensor:
    """[T, D]: sin(t / 10000^(2i/D)) at 2i and the cosine at 2i + 1 (Vaswani et al. 2017, section 3.5)."""
    even = torch.arange(0, width, 2, dtype=torch.float64)
    angles = torch.arange(context, dtype=torch.float64)[:, None] / LONGEST_WAVE ** (even / width)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :width].to(dtype).contiguous()
