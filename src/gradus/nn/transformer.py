"""The transformer, or what is compared with it: tokens end to end in, one state a token out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradus.core.example import Ragged
from gradus.core.model import ModelConfig
from gradus.nn.attention import Sight, masks_across, sight_within
from gradus.nn.block import Block, Memory
from gradus.nn.embedding import Embedding, Table
from gradus.nn.initialisation import initialise
from gradus.nn.kernels import KERNELS, kernel_for
from gradus.nn.layers import Dropout, Linear, activation, first_given, make_norm
from gradus.nn.layout import ROUND_LENGTH, Layout
from gradus.nn.likelihood import token_nats
from gradus.nn.losses import linear_cross_entropy
from gradus.nn.lstm import LSTMLayer, Steps
from gradus.nn.positions import RelativeBias, turns


class Stack(nn.Module):
    """An embedding and the layers on it: a decoder, an encoder, or either half of an encoder-decoder.

    `causal`: states see what comes before them, else the whole sequence. `crosses`: they see an encoder too,
    whose states come as `memory`.
    """

    def __init__(
        self,
        config: ModelConfig,
        precision: torch.dtype,
        kernel: str,
        *,
        causal: bool,
        crosses: bool = False,
        owns_tokens: bool = True,
    ):
        super().__init__()
        self.config, self.precision, self.causal = config, precision, causal
        dtype = torch.promote_types(precision, torch.float32)
        self.embedding = Embedding(config, dtype, precision, owns_tokens)
        self.final_norm: nn.Module = nn.Identity()
        self.final_dropout = Dropout(config.output_dropout)
        if config.body == "lstm":
            self.blocks = nn.ModuleList(LSTMLayer(config, index, dtype) for index in range(config.layers))
        else:
            made = (Block(config, kernel, dtype, crosses) for _ in range(config.layers))
            self.blocks = nn.ModuleList(made)
            if config.norm == "before":
                self.final_norm = make_norm(config, dtype)
        if config.positions == "relative":
            self.relative = RelativeBias(config, causal, dtype)

    def run(self, source: Ragged, shared: Tensor | None = None, memory: Memory | None = None) -> Tensor:
        """States [N, D] of the tokens of `source`; `shared` is a table of tokens that is not its own."""
        states = self.embedding(source, shared)
        if self.config.body == "lstm":
            steps = Steps.of(source.offsets, len(source.tokens), source.tokens.device)
            for block in self.blocks:
                states = block(states, steps)
            return states
        seen = self.sights(source)
        for place, block in enumerate(self.blocks):
            states = block(states, seen[place % len(seen)], memory)
        return self.final_dropout(self.final_norm(states))

    def sights(self, source: Ragged) -> tuple[Sight, ...]:
        """What the layers see, taking turns: all of it and, where there is a window, that much."""
        config, dtype = self.config, torch.promote_types(self.precision, torch.float32)
        options: dict[str, Any] = {"causal": self.causal, "scale": scale_of_scores(config)}
        if config.positions == "rotary":
            options["turn"] = turns(source.positions, config.channels, config.rotary_base, dtype)
        if config.positions == "relative":
            options["bias"] = self.relative(int(source.lengths.max(initial=1)) + ROUND_LENGTH)
        whole = sight_within(source, **options)
        if config.window is None:
            return (whole,)
        return whole, sight_within(source, window=config.window, **options)


def scale_of_scores(config: ModelConfig) -> float | None:
    """What attention scores are multiplied by; None for the usual 1/sqrt(head width)."""
    return None if config.attention_scale else 1.0


def set_rate(parameter: nn.Parameter, factor: float) -> None:
    """Has optimizers multiply the learning rate of this parameter; see `optim/optimizers.py`."""
    parameter.rate = factor  # type: ignore[attr-defined]


class OutputTransform(nn.Module):
    """A linear layer, the activation and a norm: states [M, D] before the vocabulary is scored (BERT)."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype):
        super().__init__()
        self.dense = Linear(config.width, config.width, dtype=dtype)
        self.activation = activation(config.activation)
        self.norm = make_norm(config, dtype)

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(states)))


class Transformer(Stack):
    """`forward(source)` gives states [N, D] in `precision`; the dead tail's are finite and mean nothing.

    Parameters are fp32 (float64 where `precision` is) whatever the precision of the activations. `kernel`
    names the attention kernel ("plain" or "sdpa"); the fastest for `device` unless given. With `body: lstm`
    the blocks are layers of an LSTM, and all else is as it was. Call `initialise(seed)` or load weights
    before use: a new model's memory is not initialised.

    An encoder-decoder is the decoder's stack, with the encoder's as `encoder`: `forward(source, decoded)`
    gives the decoder's states.
    """

    def __init__(
        self,
        config: ModelConfig,
        precision: torch.dtype = torch.float32,
        *,
        kernel: str | None = None,
        device: torch.device | str = "cpu",
    ):
        dropout = first_given(config.attention_dropout, config.dropout)
        kernel = kernel or kernel_for(device, config.context, dropout)
        assert kernel in KERNELS, f"{kernel} is not one of {', '.join(KERNELS)}"
        both = config.encodes_and_decodes
        super().__init__(config, precision, kernel, causal=config.arrangement != "encoder", crosses=both)
        dtype = torch.promote_types(precision, torch.float32)
        if both:
            self.encoder = Stack(config, precision, kernel, causal=False, owns_tokens=False)
        if config.pooler:
            self.pooler = Linear(config.width, config.width, dtype=dtype)
        if config.output_transform:
            self.output_transform = OutputTransform(config, dtype)
        if not config.tie_embeddings:
            self.unembedding = Table(len(self.embedding.tokens.weight), config.width, dtype)
        self.output_bias: nn.Parameter | None = None
        if config.output_bias:
            self.output_bias = nn.Parameter(torch.empty(len(self.embedding.tokens.weight), dtype=dtype))
        self.output_factor = (config.width**-0.5 if config.output_scale else 1.0) / config.widening
        if config.widening != 1:
            for name, parameter in self.named_parameters():
                if "blocks." in name and parameter.dim() > 1:
                    set_rate(parameter, 1 / config.widening)
        self.to(device)

    def initialise(self, seed: int) -> Transformer:
        """Draws every parameter from the seed and its own name; returns the model."""
        initialise(self, seed, self.config)
        return self

    @property
    def output_weight(self) -> Tensor:
        """The matrix [V, D] that scores the vocabulary: the token embedding itself where they are tied.

        In training with dropout on the table it is the table that the last forward looked up in.
        """
        return self.embedding.token_table if self.config.tie_embeddings else self.unembedding.weight

    def before_output(self, states: Tensor) -> Tensor:
        """States [M, D] as `output_weight` and `output_bias` score them."""
        if self.config.output_transform:
            states = self.output_transform(states)
        return states if self.output_factor == 1 else states * self.output_factor

    def logits(self, states: Tensor) -> Tensor:
        """Scores [M, V] of the vocabulary for states [M, D], in the precision of the states."""
        ready = self.before_output(states)
        bias = None if self.output_bias is None else self.output_bias.to(ready.dtype)
        return nn.functional.linear(ready, self.output_weight.to(ready.dtype), bias)

    def token_loss(self, states: Tensor, value: Tensor, weight: Tensor) -> Tensor:
        """The sum of weight [M] times the cross-entropy of value [M] from states [M, D]; 0 for M = 0."""
        ready = self.before_output(states)
        return linear_cross_entropy(ready, self.output_weight, value, weight, self.output_bias)

    def token_nats(self, states: Tensor, value: Tensor) -> Tensor:
        """-log p of value [M] from states [M, D], in fp32 or better, without a gradient."""
        return token_nats(self.before_output(states), self.output_weight, value, self.output_bias)

    def pooled(self, states: Tensor) -> Tensor:
        """States [M, D] as a head reads them: through the pooler, where there is one."""
        return torch.tanh(self.pooler(states)) if self.config.pooler else states

    def forward(self, source: Ragged, decoded: Ragged | None = None) -> Tensor:
        if decoded is None:
            return self.run(source)
        tokens = self.embedding.tokens.weight
        encoded = self.encoder.run(source, tokens)
        return self.run(decoded, memory=(encoded, self.across(source, decoded)))

    def across(self, source: Ragged, decoded: Ragged) -> Sight:
        """What the sequences of the decoder see of those of the encoder."""
        device = decoded.tokens.device
        queries = Layout.of(decoded.offsets, len(decoded.tokens), device)
        keys = queries.beside(source.offsets, len(source.tokens), device)
        return Sight(queries, keys, masks_across(keys, scale=scale_of_scores(self.config), device=device))


def count_parameters(config: ModelConfig) -> int:
    """Parameters of the model without task heads; a tied output embedding counts once."""
    return sum(parameter.numel() for parameter in Transformer(config, device="meta").parameters())
