"""Attention of flat tokens: projections, what a token may see, and the way through the padded groups.

Shapes: N flat tokens, S rows, T time, H heads of queries, G heads of keys and values, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradus.core.example import Ragged
from gradus.core.model import ModelConfig
from gradus.nn.cache import Cache, Kept, rounded, rows_of_groups
from gradus.nn.kernels import KERNELS, Kernel, Mask
from gradus.nn.layers import Linear
from gradus.nn.layout import Layout


@dataclass(frozen=True, slots=True)
class Sight:
    """What the tokens of a batch see: where queries and keys stand in the groups, and a mask for each; where
    positions are rotary, the `turn` of queries and keys, (cosines, sines) [N, 1, C / 2]. Where sequences run,
    `kept` takes the new keys and values and gives those of the tokens before."""

    queries: Layout
    keys: Layout
    masks: tuple[Mask, ...]
    turn: tuple[Tensor, Tensor] | None = None
    kept: Kept | None = None


def masks_within(
    layout: Layout,
    prefix: np.ndarray | None,
    *,
    causal: bool,
    window: int | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Mask, ...]:
    """A mask for each group of a layout whose sequences attend to themselves.

    Padding stands behind real tokens, so a causal mask hides it. `prefix` [sequences] is how much of each
    sequence all of it sees, `window` how many tokens up to itself a query sees at most, whatever the
    prefix shows it ahead; `bias` [H, T, T] is by place.
    """
    masks = []
    for (rows, time), members, real in zip(layout.groups, layout.members, layout.seen()):
        hidden = beyond_window(window, time, device) if causal else beyond_rows(real, time, device)
        if prefix is not None:
            ahead = beyond_prefix(prefix[members], rows, time, device)
            hidden = ahead if hidden is None else hidden | ahead
        near = None if bias is None else bias[:, :time, :time]
        masks.append(Mask(causal and prefix is None, hidden, near, scale))
    return tuple(masks)


def masks_across(
    keys: Layout, *, scale: float | None = None, device: torch.device | str = "cpu"
) -> tuple[Mask, ...]:
    """A mask for each group of a cross attention: every real key is seen."""
    return tuple(
        Mask(False, beyond_rows(real, time, device), None, scale)
        for (_, time), real in zip(keys.groups, keys.seen())
    )


def beyond_rows(real: np.ndarray | None, time: int, device: torch.device | str) -> Tensor | None:
    """[S, 1, 1, T]: whether a place stands behind the row's `real` tokens [S]; None where no place does."""
    if real is None:
        return None
    return (torch.arange(time, device=device) >= torch.from_numpy(real).to(device)[:, None])[:, None, None]


def beyond_window(window: int | None, time: int, device: torch.device | str) -> Tensor | None:
    """[1, 1, T, T]: whether a key stands too far behind a query; None where none does."""
    if window is None or window >= time:
        return None
    place = torch.arange(time, device=device)
    return (place[None, :] <= place[:, None] - window)[None, None]


def beyond_prefix(prefix: np.ndarray, rows: int, time: int, device: torch.device | str) -> Tensor:
    """[S, 1, T, T]: whether a key stands behind both the query and the `prefix` of its row, 0 for rows that
    hold no sequence."""
    place = torch.arange(time, device=device)
    shared = torch.from_numpy(np.pad(prefix, (0, rows - len(prefix)))).to(device)
    return ((place >= shared[:, None])[:, None, :] & (place[None, :] > place[:, None]))[:, None]


def turned(states: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Each pair of channels (c, c + C/2) of states [N, H, C] turned by its token's angle (Su et al. 2021,
    3.4.2, in the order of channels that Hugging Face's Llama has)."""
    cosines, sines = turn
    first, second = states.to(cosines.dtype).chunk(2, -1)
    both = torch.cat([first * cosines - second * sines, second * cosines + first * sines], -1)
    return both.to(states.dtype)


def attend(
    parts: Sequence[Sequence[Tensor]], masks: Sequence[Mask], kernel: Kernel, dropout: float
) -> list[Tensor]:
    """The kernel on (query [S, T, H, C], key and value [S, K, G, C]) of each group; G heads serve H."""
    attended = []
    for (query, key, value), mask in zip(parts, masks):
        if key.shape[2] != query.shape[2]:
            shared = query.shape[2] // key.shape[2]
            key, value = (part.repeat_interleave(shared, 2) for part in (key, value))
        attended.append(kernel(query, key, value, dropout, mask))
    return attended


class SelfAttention(nn.Module):
    """Multi-head self attention (Vaswani et al. 2017, section 3.2) with one fused projection: its rows are
    the queries', keys' and values', head by head."""

    def __init__(self, config: ModelConfig, dropout: float, kernel: str, **options: Any):
        super().__init__()
        self.split = (config.heads, config.key_heads, config.key_heads)
        self.channels, self.dropout, self.kernel = config.channels, dropout, KERNELS[kernel]
        self.query_key_value = Linear(config.width, sum(self.split) * self.channels, **options)
        self.output = Linear(config.heads * self.channels, config.width, **options)

    def forward(self, states: Tensor, sight: Sight) -> Tensor:
        parts = self.parts(states, sight)
        attended = attend(parts, sight.masks, self.kernel, self.dropout if self.training else 0.0)
        return self.output(sight.queries.collect(attended).flatten(1))

    def parts(self, states: Tensor, sight: Sight) -> list[Sequence[Tensor]]:
        """Queries [S, T, H, C], keys and values [S, K, G, C] of each group."""
        projected = self.query_key_value(states).view(len(states), -1, self.channels)
        if sight.turn is not None:
            spun, value = projected.split([self.split[0] + self.split[1], self.split[2]], 1)
            projected = torch.cat([turned(spun, sight.turn), value], 1)
        parts: list[Sequence[Tensor]] = [
            group.split(self.split, 2) for group in sight.queries.spread(projected)
        ]
        if sight.kept is not None:
            parts = sight.kept.extended(projected[:, self.split[0] :], sight.queries, parts)
        return parts

    def maps(self, states: Tensor, sight: Sight) -> list[tuple[Tensor, Tensor]]:
        """The scores [S, H, T, K] of each group before the softmax, and which keys are seen [S or 1, 1, T,
        K]: by plain products, whatever the kernel, and without dropout."""
        made = []
        for (query, key, _), mask in zip(self.parts(states, sight), sight.masks):
            key = key.repeat_interleave(query.shape[2] // key.shape[2], 2)
            scale = self.channels**-0.5 if mask.scale is None else mask.scale
            scores = torch.einsum("sthc,skhc->shtk", query, key) * scale
            if mask.bias is not None:
                scores = scores + mask.bias
            seen = torch.ones(1, 1, *scores.shape[2:], dtype=torch.bool, device=scores.device)
            seen = seen.tril() if mask.causal else seen
            made.append((scores, seen if mask.hidden is None else seen & ~mask.hidden))
        return made


class CrossAttention(nn.Module):
    """Queries of the decoder, keys and values of the encoder (Vaswani et al. 2017, section 3.2.3)."""

    def __init__(self, config: ModelConfig, dropout: float, kernel: str, **options: Any):
        super().__init__()
        self.channels, self.dropout, self.kernel = config.channels, dropout, KERNELS[kernel]
        self.query = Linear(config.width, config.heads * self.channels, **options)
        self.key_value = Linear(config.width, 2 * config.key_heads * self.channels, **options)
        self.output = Linear(config.heads * self.channels, config.width, **options)

    def remembered(self, encoded: Tensor) -> Tensor:
        """Keys and values [M, 2 G, C] of the encoder's states [M, D]."""
        return self.key_value(encoded).view(len(encoded), -1, self.channels)

    def forward(self, states: Tensor, encoded: Tensor | Kept, sight: Sight) -> Tensor:
        """`encoded` [M, D] are the encoder's states, or their keys and values, kept."""
        queries = sight.queries.spread(self.query(states).view(len(states), -1, self.channels))
        if isinstance(encoded, Kept):
            memory: Sequence[Sequence[Tensor]] = encoded.grouped(sight.queries)
        else:
            memory = [both.chunk(2, 2) for both in sight.keys.spread(self.remembered(encoded))]
        parts = [(query, *pair) for query, pair in zip(queries, memory)]
        attended = attend(parts, sight.masks, self.kernel, self.dropout if self.training else 0.0)
        return self.output(sight.queries.collect(attended).flatten(1))


def sight_within(
    source: Ragged,
    *,
    causal: bool,
    window: int | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    turn: tuple[Tensor, Tensor] | None = None,
) -> Sight:
    """What the sequences of `source` see of themselves; see `masks_within`. `bias` is [H, T, T] for the
    longest sequence or more."""
    device = source.tokens.device
    layout = Layout.of(source.offsets, len(source.tokens), device)
    masks = masks_within(
        layout, source.prefix, causal=causal, window=window, bias=bias, scale=scale, device=device
    )
    return Sight(layout, layout, masks, turn)


def sight_beyond(
    new: Ragged,
    cache: Cache,
    *,
    window: int | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    turn: tuple[Tensor, Tensor] | None = None,
) -> Sight:
    """What one new token of each running sequence sees: what is kept of its own, and itself. `bias` is
    [H, 1, K] for `rounded` columns."""
    device = new.tokens.device
    layout = Layout.of(new.offsets, len(new.tokens), device)
    last = cache.columns
    column = torch.arange(rounded(last + 1), device=device)
    first = last - torch.from_numpy(cache.lengths).to(device)
    if window is not None:
        first = first.clamp(min=last - window + 1)
    hidden = (column < first[:, None]) | (column > last)
    return Sight(layout, layout, (Mask(False, hidden[:, None, None], bias, scale),), turn)


def sight_across(new: Ragged, cache: Cache, scale: float | None = None) -> Sight:
    """What new tokens of running sequences see of the encoder's states, whose keys and values are kept."""
    device = new.tokens.device
    layout = Layout.of(new.offsets, len(new.tokens), device)
    columns = cache.across[0].columns
    assert cache.sources is not None
    masks = []
    for rows in rows_of_groups(layout):
        first = torch.from_numpy(columns - cache.sources)[rows].to(device)
        column = torch.arange(rounded(columns), device=device)
        hidden = (column < first[:, None]) | (column >= columns)
        masks.append(Mask(False, hidden[:, None, None], None, scale))
    return Sight(layout, layout, tuple(masks))
