"""Tokens, positions and segments as states: the sum of what is looked up, and where dropout strikes it.

Shapes: N tokens, D width, V vocabulary, T context.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gradus.core.example import Ragged
from gradus.core.model import ModelConfig
from gradus.nn.layers import Dropout, first_given, make_norm
from gradus.nn.positions import sinusoids


class Table(nn.Module):
    """Rows of a matrix [V, D] by index."""

    def __init__(self, rows: int, width: int, dtype: torch.dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width, dtype=dtype))


class Embedding(nn.Module):
    """Tokens [N], their positions and segments -> states [N, D] in `precision`.

    See `ModelConfig.positions` and `ModelConfig.embedding_dropout_on`. Dropout on the tables is drawn once a
    forward, tokens before positions, sinusoids included. One that does not own a table of tokens looks up in
    that of another: the encoder's beside a decoder's.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, precision: torch.dtype, owns: bool = True):
        super().__init__()
        self.precision, self.offset = precision, config.position_offset
        self.scale = 1.0
        if owns:
            assert config.vocab_size is not None, "the tokenizer sets vocab_size before a model is built"
            self.tokens = Table(config.vocab_size, config.width, dtype)
        if config.positions == "learned":
            self.positions = Table(config.context + self.offset, config.width, dtype)
        elif config.positions == "sinusoidal":
            self.scale = math.sqrt(config.width)
            waves = sinusoids(config.context + self.offset, config.width, dtype)
            self.register_buffer("waves", waves, persistent=False)
        self.kind = config.positions
        if config.segments:
            self.segments = Table(config.segments, config.width, dtype)
        self.norm: nn.Module = make_norm(config, dtype) if config.embedding_norm else nn.Identity()
        self.dropout = Dropout(first_given(config.embedding_dropout, config.dropout))
        self.on_table = config.embedding_dropout_on == "table"
        self._dropped: tuple[Tensor, ...] = ()  # in a tuple, or it would be taken for a parameter

    @property
    def token_table(self) -> Tensor:
        """The weight [V, D]; in training with dropout on the table, what the last forward left of it."""
        return self._dropped[0] if self.training and self._dropped else self.tokens.weight

    def forward(self, source: Ragged, shared: Tensor | None = None) -> Tensor:
        """`shared` [V, D] stands for the own table of tokens."""
        tokens, places = self.tokens.weight if shared is None else shared, self._places()
        if self.on_table:
            tokens = self.dropout(tokens)
            places = None if places is None else self.dropout(places)
            self._dropped = (tokens,)
        states = nn.functional.embedding(source.tokens, tokens)
        if self.scale != 1:
            states = states * self.scale
        if places is not None:
            places_at = source.positions + self.offset if self.offset else source.positions
            states = states + nn.functional.embedding(places_at, places)
        if hasattr(self, "segments"):
            states = states + self._segments(source)
        states = self.norm(states.to(self.precision))
        return states if self.on_table else self.dropout(states)

    def _places(self) -> Tensor | None:
        """The table [T, D] of positions."""
        if self.kind == "learned":
            return self.positions.weight
        return self.get_buffer("waves") if self.kind == "sinusoidal" else None

    def _segments(self, source: Ragged) -> Tensor:
        """[N, D], or [D] where all tokens belong to the first."""
        table = self.segments.weight
        return table[0] if source.segments is None else nn.functional.embedding(source.segments, table)
