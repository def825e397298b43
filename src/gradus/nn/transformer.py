"""The transformer, or what is compared with it: tokens end to end in, one state a token out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradus.core.example import Ragged
from gradus.core.model import ModelConfig
from gradus.nn.attention import KERNELS, Layout, kernel_for
from gradus.nn.block import Block, first_given
from gradus.nn.embedding import Embedding, Table
from gradus.nn.initialisation import initialise
from gradus.nn.layers import LayerNorm
from gradus.nn.lstm import LSTMLayer, Steps


class Transformer(nn.Module):
    """`forward(source)` gives states [N, D] in `precision`; the dead tail's are finite and mean nothing.

    Parameters are fp32 (float64 where `precision` is) whatever the precision of the activations. `kernel`
    names the attention kernel ("plain" or "sdpa"); the fastest for `device` unless given. With `body: lstm`
    the blocks are layers of an LSTM, and all else is as it was. Call `initialise(seed)` or load weights
    before use: a new model's memory is not initialised.
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
        self.embedding = Embedding(config, dtype, precision)
        self.final_norm: nn.Module = nn.Identity()
        self.layout_of: Callable[..., Any]
        if config.body == "lstm":
            self.layout_of = Steps.of
            self.blocks = nn.ModuleList(LSTMLayer(config, index, dtype) for index in range(config.layers))
        else:
            self.layout_of = Layout.of
            self.blocks = nn.ModuleList(Block(config, kernel, dtype) for _ in range(config.layers))
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
    def output_weight(self) -> Tensor:
        """The matrix [V, D] that scores the vocabulary: the token embedding itself where they are tied.

        In training with dropout on the table it is the table that the last forward looked up in.
        """
        return self.embedding.token_table if self.config.tie_embeddings else self.unembedding.weight

    def forward(self, source: Ragged) -> Tensor:
        layout = self.layout_of(source.offsets, len(source.tokens), source.tokens.device)
        states = self.embedding(source)
        for block in self.blocks:
            states = block(states, layout)
        return self.final_norm(states)
