"""The transformer, or what is compared with it: tokens end to end in, one state a token out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradus.core.example import Ragged
from gradus.core.model import ModelConfig
from gradus.nn.attention import Sight, masks_across, sight_across, sight_beyond, sight_within
from gradus.nn.block import Block, Memory
from gradus.nn.cache import Cache, Carried, Kept, rounded
from gradus.nn.embedding import Embedding, Table
from gradus.nn.initialisation import initialise
from gradus.nn.kernels import KERNELS, kernel_for
from gradus.nn.layers import Dropout, Linear, activation, first_given, make_norm
from gradus.nn.layout import ROUND_LENGTH, Layout
from gradus.nn.likelihood import likeliest, token_nats
from gradus.nn.losses import linear_cross_entropy
from gradus.nn.lstm import LSTMLayer, Steps
from gradus.nn.positions import RelativeBias, turns


class Stack(nn.Module):
    """An embedding and the layers on it: a decoder, an encoder, or either half of an encoder-decoder.

    `causal`: states see what comes before them, else the whole sequence. `crosses`: they see an encoder too,
    whose states come as `memories`.
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
        self.final_dropout = Dropout(config.output_dropout if config.body == "transformer" else 0.0)
        self.cached = 0
        """Layers, from the embedding up, whose states may come with a batch."""
        if config.body == "lstm":
            self.blocks = nn.ModuleList(LSTMLayer(config, index, dtype) for index in range(config.layers))
        else:
            made = (Block(config, kernel, dtype, crosses) for _ in range(config.layers))
            self.blocks = nn.ModuleList(made)
            if config.norm == "before":
                self.final_norm = make_norm(config, dtype)
        if config.positions == "relative":
            self.relative = RelativeBias(config, causal, dtype)

    def run(
        self,
        source: Ragged,
        shared: Tensor | None = None,
        memories: Sequence[Memory | None] = (None,),
        cache: Cache | None = None,
        below: Tensor | None = None,
    ) -> Tensor:
        """States [N, D] of the tokens of `source`; `shared` is a table of tokens that is not its own,
        `memories` are what the layers, taking turns, see of an encoder. With a cache the tokens come after
        those that it holds. `below` [N, D] stands for what the lowest `cached` layers make of them."""
        if below is None:
            layers, states = range(len(self.blocks)), self.embedding(source, shared)
        else:
            layers, states = range(self.cached, len(self.blocks)), below
        states = self._through(layers, states, source, memories, cache)
        return self.final_dropout(self.final_norm(states))

    @torch.no_grad()
    def lowest(self, source: Ragged) -> Tensor:
        """What the lowest `cached` layers make of `source`: states [N, D], without a gradient."""
        return self._through(range(self.cached), self.embedding(source), source, (None,), None)

    def _through(
        self,
        layers: range,
        states: Tensor,
        source: Ragged,
        memories: Sequence[Memory | None],
        cache: Cache | None,
    ) -> Tensor:
        if self.config.body == "lstm":
            steps = Steps.of(source.offsets, len(source.tokens), source.tokens.device)
            for place in layers:
                states = self.blocks[place](states, steps, None if cache is None else cache.layers[place])
            return states
        seen = self.sights(source) if cache is None else self.sights_of_running(source, cache)
        for place in layers:
            states = self.blocks[place](states, seen[place % len(seen)], memories[place % len(memories)])
        return states

    def sights_of_running(self, new: Ragged, cache: Cache) -> list[Sight]:
        """What each layer sees when the tokens come after those that `cache` holds, which takes them."""
        seen = self.sights(new, cache if cache.columns else None)
        kept = [layer for layer in cache.layers if isinstance(layer, Kept)]
        return [replace(seen[place % len(seen)], kept=layer) for place, layer in enumerate(kept)]

    def sights(self, source: Ragged, cache: Cache | None = None) -> tuple[Sight, ...]:
        """What the layers see, taking turns: all of it and, where there is a window, that much."""
        config, dtype = self.config, torch.promote_types(self.precision, torch.float32)
        options: dict[str, Any] = {"scale": scale_of_scores(config)}
        if config.positions == "rotary":
            options["turn"] = turns(source.positions, config.channels, config.rotary_base, dtype)
        if config.positions == "relative":
            if cache is None:
                options["bias"] = self.relative(int(source.lengths.max(initial=1)) + ROUND_LENGTH)
            else:
                options["bias"] = self.relative(rounded(cache.columns + 1), cache.columns)
        windows = (None,) if config.window is None else (None, config.window)
        if cache is None:
            options["causal"] = self.causal
            return tuple(sight_within(source, window=window, **options) for window in windows)
        return tuple(sight_beyond(source, cache, window=window, **options) for window in windows)


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

    def token_loss(self, states: Tensor, value: Tensor, weight: Tensor, smoothing: float = 0.0) -> Tensor:
        """The sum of weight [M] times the cross-entropy of value [M] from states [M, D]; 0 for M = 0.

        `smoothing` of each target is spread over the vocabulary; see `losses.linear_cross_entropy`."""
        return linear_cross_entropy(
            self.before_output(states), self.output_weight, value, weight, self.output_bias, None, smoothing
        )

    def token_nats(self, states: Tensor, value: Tensor) -> Tensor:
        """-log p of value [M] from states [M, D], in fp32 or better, without a gradient."""
        return token_nats(self.before_output(states), self.output_weight, value, self.output_bias)

    def likeliest(self, states: Tensor) -> Tensor:
        """The likeliest token [M] after states [M, D], without a gradient."""
        return likeliest(self.before_output(states), self.output_weight, self.output_bias)

    def pooled(self, states: Tensor) -> Tensor:
        """States [M, D] as a head reads them: through the pooler, where there is one."""
        return torch.tanh(self.pooler(states)) if self.config.pooler else states

    def forward(self, source: Ragged, decoded: Ragged | None = None, below: Tensor | None = None) -> Tensor:
        if decoded is None:
            return self.run(source, below=below)
        tokens = self.embedding.tokens.weight
        encoded = self.encoder.run(source, tokens)
        return self.run(decoded, memories=[(encoded, self.across(source, decoded))])

    @torch.no_grad()
    def begin(self, source: Ragged | None = None) -> Cache:
        """A cache for sequences that will run. Those of an encoder-decoder go on from `source`, a text each,
        which is encoded here, once."""
        kind = Carried if self.config.body == "lstm" else Kept
        cache = Cache([kind() for _ in self.blocks])
        if source is not None:
            encoded = self.encoder.run(source, self.embedding.tokens.weight)
            cache = Cache(cache.layers, [Kept() for _ in self.blocks], source.lengths)
            for block, kept in zip(self.blocks, cache.across):
                assert isinstance(block, Block)
                kept.begin(block.cross_attention.remembered(encoded), source.lengths)
        return cache

    @torch.no_grad()
    def extend(self, new: Ragged, cache: Cache) -> Tensor:
        """States [N, D] of tokens that come after those in `cache`, which takes them in; without a gradient.

        Any number of tokens a sequence, at least one, where the cache is empty; afterwards one each.
        """
        if cache.columns:
            assert (new.lengths == 1).all() and len(new.lengths) == len(cache.lengths), "one new token each"
            positions = new.positions.clone()
            positions[: len(cache.lengths)] = torch.from_numpy(cache.lengths)
            new = replace(new, positions=positions)
        memories: list[Memory | None] = [None]
        if cache.across:
            sight = sight_across(new, cache, scale_of_scores(self.config))
            memories = [(kept, sight) for kept in cache.across]
        states = self.run(new, memories=memories, cache=cache)
        cache.advance(new.lengths)
        return states

    def across(self, source: Ragged, decoded: Ragged) -> Sight:
        """What the sequences of the decoder see of those of the encoder."""
        device = decoded.tokens.device
        queries = Layout.of(decoded.offsets, len(decoded.tokens), device)
        keys = queries.beside(source.offsets, len(source.tokens), device)
        return Sight(queries, keys, masks_across(keys, scale=scale_of_scores(self.config), device=device))


def count_parameters(config: ModelConfig) -> int:
    """Parameters of the model without task heads; a tied output embedding counts once."""
    return sum(parameter.numel() for parameter in Transformer(config, device="meta").parameters())
