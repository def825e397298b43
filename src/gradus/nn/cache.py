"""What running sequences keep of the tokens they have seen, so that a further token costs one token's work.

The rows of an attention's keys and values end in the same column: the next token of every sequence goes into
one column, and every distance to it is a matter of columns alone. Shorter sequences begin later.
Shapes: S sequences, T columns, G heads of keys and values, C channels of a head, U units of an LSTM.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradus.nn.layout import ROUND_LENGTH, Layout

GROWTH = 128
"""Columns that a cache grows by when it is full; a multiple of `ROUND_LENGTH`."""


class Kept:
    """Keys and values of one attention, [S, 2 G, T, C]: G of keys, G of values, the first `columns` in use.

    Columns beyond them are zeros. In this order of axes the kernels read them without a copy.
    """

    def __init__(self) -> None:
        self.columns = 0
        self.pairs: Tensor | None = None

    def begin(self, flat: Tensor, lengths: np.ndarray) -> None:
        """Takes the keys and values of N tokens, [N, 2 G, C], of sequences of `lengths` [S] end to end."""
        self.columns = int(lengths.max())
        ends = np.cumsum(lengths)
        place = ends[:, None] + np.arange(-self.columns, 0)
        # What stands before a sequence is hidden from it: any real number will do.
        place = np.maximum(place, (ends - lengths)[:, None])
        found = flat.index_select(0, torch.from_numpy(place.ravel()).to(flat.device))
        found = found.view(*place.shape, *flat.shape[1:]).transpose(1, 2)
        self.pairs = _room(found, self.columns)
        self.pairs[:, :, : self.columns] = found

    def extended(self, flat: Tensor, layout: Layout, parts: list[Sequence[Tensor]]) -> list[Sequence[Tensor]]:
        """Takes the keys and values of new tokens, and gives what attends: `parts`, (query, key, value) of
        each group of the layout, with the keys and values of all that was seen."""
        if self.pairs is None:
            self.begin(flat, layout.lengths)
            return parts
        if self.columns == self.pairs.shape[2]:
            grown = _room(self.pairs, self.columns)
            grown[:, :, : self.columns] = self.pairs
            self.pairs = grown
        self.pairs[:, :, self.columns] = flat[: layout.real]
        self.columns += 1
        return [(part[0], *pair) for part, pair in zip(parts, self.grouped(layout))]

    def grouped(self, layout: Layout) -> list[tuple[Tensor, Tensor]]:
        """Keys and values [S, K, G, C] for the rows of each group; K is `columns`, rounded up."""
        assert self.pairs is not None
        seen = self.pairs[:, :, : rounded(self.columns)]
        if layout.take is None:
            return [_pair(seen)]
        device = seen.device
        return [_pair(seen.index_select(0, rows.to(device))) for rows in rows_of_groups(layout)]

    def select(self, rows: Tensor) -> None:
        if self.pairs is not None:
            self.pairs = self.pairs.index_select(0, rows.to(self.pairs.device))


class Carried:
    """The hidden states and cells [S, U] of an LSTM layer after the last token; none before the first."""

    def __init__(self) -> None:
        self.states: tuple[Tensor, Tensor] | None = None

    def select(self, rows: Tensor) -> None:
        if self.states is not None:
            hidden, cells = self.states
            rows = rows.to(hidden.device)
            self.states = hidden.index_select(0, rows), cells.index_select(0, rows)


class Cache:
    """What S sequences keep in every layer, and of an encoder's states where there is an encoder.

    `lengths` [S] counts the tokens of each and `columns` those of the longest there was; `sources` [S] counts
    those of the text that a row goes on from, and `origin` [S] tells rows apart by that text.
    """

    def __init__(
        self, layers: Sequence[Kept | Carried], across: Sequence[Kept] = (), sources: np.ndarray | None = None
    ):
        self.layers, self.across, self.sources = layers, across, sources
        self.lengths, self.columns = np.zeros(0, dtype=np.int64), 0
        self.origin = np.arange(0 if sources is None else len(sources))

    def advance(self, lengths: np.ndarray) -> None:
        """Every layer has taken so many more tokens of each sequence, `lengths` [S]."""
        self.lengths = self.lengths + lengths if self.columns else lengths
        self.columns += int(lengths.max())

    def select(self, rows: Sequence[int]) -> None:
        """Only `rows` go on, in this order; a row that comes twice goes on twice."""
        chosen = np.asarray(rows, dtype=np.int64)
        index = torch.from_numpy(chosen)
        if len(self.lengths) and not np.array_equal(chosen, np.arange(len(self.lengths))):
            self.lengths = self.lengths[chosen]
            for layer in self.layers:
                layer.select(index)
        if self.sources is None:
            return
        origin = self.origin[chosen]
        if not np.array_equal(origin, self.origin):  # beams of one text may change places freely
            for kept in self.across:
                kept.select(index)
        self.origin, self.sources = origin, self.sources[chosen]

    def restarted(self, rows: Sequence[int]) -> Cache:
        """One for the same texts of `rows` that has seen no token; this one stays as it is."""
        across = []
        for kept in self.across:
            other = Kept()
            other.pairs, other.columns = kept.pairs, kept.columns
            across.append(other)
        fresh = Cache([type(layer)() for layer in self.layers], across, self.sources)
        fresh.origin = self.origin
        fresh.select(rows)
        return fresh


def rounded(columns: int) -> int:
    """Columns that attention is given: few shapes, as in `Layout`."""
    return -(-columns // ROUND_LENGTH) * ROUND_LENGTH


def rows_of_groups(layout: Layout) -> list[Tensor]:
    """For each group the sequence in each of its rows; a row that is empty repeats the first."""
    found = []
    for (rows, _), members in zip(layout.groups, layout.members):
        filled = np.zeros(rows, dtype=np.int64)
        filled[: len(members)] = members
        found.append(torch.from_numpy(filled))
    return found


def _room(like: Tensor, columns: int) -> Tensor:
    """Zeros [S, 2 G, T, C] with room for more than `columns`."""
    rows, heads, _, channels = like.shape
    return like.new_zeros(rows, heads, rounded(columns) + GROWTH, channels)


def _pair(seen: Tensor) -> tuple[Tensor, Tensor]:
    key, value = seen.transpose(1, 2).chunk(2, 2)
    return key, value
