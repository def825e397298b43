"""The transformer: tokens end to end in, one state a token out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradus.core.example import Ragged
from gradus.core.model import ModelConfig
from gradus.nn.attention import KERNELS, Layout, kernel_for
from gradus.nn.block import Block, first_given
from gradus.nn.initialisation import initialise
from gradus.nn.layers import Dropout, LayerNorm


class Embedding(nn.Module):
    """Sum of the embeddings of tokens and learned positions: [N] and [N] -> [N, D]."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype):
        super().__init__()
        assert config.vocab_size is not None, "the tokenizer sets vocab_size before a model is built"
        self.tokens = Table(config.vocab_size, config.width, dtype)
        self.positions = Table(config.context, config.width, dtype)

    def forward(self, source: Ragged) -> Tensor:
        return self.tokens(source.tokens) + self.positions(source.positions)


class Table(nn.Module):
    """Rows of a matrix [V, D] by index."""

    def __init__(self, rows: int, width: int, dtype: torch.dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width, dtype=dtype))

    def forward(self, index: Tensor) -> Tensor:
        return nn.functional.embedding(index, self.weight)


class Transformer(nn.Module):
    """`forward(source)` gives states [N, D] in `precision`; the dead tail's are finite and mean nothing.

    Parameters are fp32 (float64 where `precision` is) whatever the precision of the activations. `kernel`
    names the attention kernel ("plain" or "sdpa"); the fastest for `device` unless given. Call
    `initialise(seed)` or load weights before use: a new model's memory is not initialised.
    """

    def __init__(
        self,
        config: ModelConfig,
        precision: torch.dtype = torch.float32,
        *,
        kernel: str | None = None,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        self.config, self.precision = config, precision
        dtype = torch.promote_types(precision, torch.float32)
        attention_dropout = first_given(config.attention_dropout, config.dropout)
        kernel = kernel or kernel_for(device, config.context, attention_dropout)
        assert kernel in KERNELS, f"{kernel} is not one of {', '.join(KERNELS)}"
        self.embedding = Embedding(config, dtype)
        self.embedding_dropout = Dropout(first_given(config.embedding_dropout, config.dropout))
        self.blocks = nn.ModuleList(Block(config, kernel, dtype) for _ in range(config.layers))
        self.final_norm: nn.Module = nn.Identity()
        if config.norm == "before":
            self.final_norm = LayerNorm(config.width, config.norm_epsilon, dtype)
        if not config.tie_embeddings:
            self.unembedding = Table(len(self.embedding.tokens.weight), config.width, dtype)
        self.to(device)

    def initialise(self, seed: int) -> Transformer:
        """Draws every parameter from the seed and its own name; returns the model."""
        initialise(self, seed, self.config.initial_deviation)
        return self

    @property
    def output_weight(self) -> nn.Parameter:
        """The matrix [V, D] that scores the vocabulary: the token embedding itself where they are tied."""
        return self.embedding.tokens.weight if self.config.tie_embeddings else self.unembedding.weight

    def forward(self, source: Ragged) -> Tensor:
        layout = Layout.of(source.offsets, len(source.tokens), source.tokens.device)
        states = self.embedding_dropout(self.embedding(source).to(self.precision))
        for block in self.blocks:
            states = block(states, layout)
        return self.final_norm(states)
