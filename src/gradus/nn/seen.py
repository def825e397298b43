"""What a transformer computes on its way to the last states: the states after some layers, the attention of
some. Distillation compares them.

Shapes: N tokens, D width, S rows, H heads, T queries, K keys.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field

from torch import Tensor

from gradus.core.example import Batch
from gradus.nn.attention import SelfAttention, Sight
from gradus.nn.block import Block
from gradus.nn.layout import Layout
from gradus.nn.transformer import Transformer


@dataclass(frozen=True)
class Seen:
    """The last states [N, D]; by layer, counted from 0, those that left it, and its attention's maps as
    `SelfAttention.maps` gives them, with the layout of their groups."""

    transformer: Transformer
    states: Tensor
    hidden: dict[int, Tensor] = field(default_factory=dict)
    maps: dict[int, tuple[Layout, list[tuple[Tensor, Tensor]]]] = field(default_factory=dict)


def seen(
    transformer: Transformer, batch: Batch, hidden: Collection[int] = (), maps: Collection[int] = ()
) -> Seen:
    """One forward that keeps what these layers say."""
    after: dict[int, Tensor] = {}
    read: dict[int, tuple[Tensor, Sight]] = {}
    with ExitStack() as watched:
        for layer in hidden:
            hook = transformer.blocks[layer].register_forward_hook(
                lambda module, inputs, states, layer=layer: after.update({layer: states})
            )
            watched.callback(hook.remove)
        for layer in maps:
            hook = _attention_of(transformer, layer).register_forward_pre_hook(
                lambda module, inputs, layer=layer: read.update({layer: inputs})
            )
            watched.callback(hook.remove)
        states = transformer(batch.source, batch.decoded)
    made = {
        layer: (sight.queries, _attention_of(transformer, layer).maps(before, sight))
        for layer, (before, sight) in read.items()
    }
    return Seen(transformer, states, after, made)


def _attention_of(transformer: Transformer, layer: int) -> SelfAttention:
    block = transformer.blocks[layer]
    assert isinstance(block, Block), "an LSTM has no attention"
    return block.attention
