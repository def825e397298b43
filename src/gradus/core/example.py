"""Rows as token ids, and batches without padding.

Shapes: N tokens of a batch end to end, S sequences, R rows, M scored targets. A sequence is a window of text,
a row, one order of a similarity pair or one answer of a multiple choice. Attention alone needs to know where
sequences begin (`offsets`); everything else sees N real tokens and, after them, a dead tail that rounds N up
to a shape the kernels have met before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

ROUND_TOKENS = 64
"""Flat batches are filled up to a multiple of this: each new matrix shape makes oneDNN build a kernel."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row (or window) as token ids.

    `sequences` are int arrays [T_s]; `following` is the token after the last one in a window of running text,
    so that the last position has something to predict; `label` is a class index, a number, or None;
    `truncated` counts tokens that the context made us cut.
    """

    row: int
    sequences: tuple[np.ndarray, ...]
    following: int | None = None
    label: int | float | None = None
    truncated: int = 0

    @property
    def tokens(self) -> int:
        return sum(len(sequence) for sequence in self.sequences)


@dataclass(frozen=True, slots=True)
class ExampleTargets:
    """What one objective scores in one example: at position `index` [J], counted from its first token, it
    wants `value` [M], weighing `weight` [M].

    `owner` [J], ascending, names the target of each position where a target has several: the two orders of a
    similarity pair, the answers of a multiple choice. None: one position a target, J = M.
    """

    index: np.ndarray
    value: np.ndarray
    weight: np.ndarray
    owner: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """What one objective scores in a batch: as `ExampleTargets`, counted from the batch's first token and
    target."""

    index: torch.Tensor
    value: torch.Tensor
    weight: torch.Tensor
    owner: torch.Tensor | None = None

    def to(self, device: torch.device) -> Targets:
        owner = None if self.owner is None else self.owner.to(device)
        return Targets(self.index.to(device), self.value.to(device), self.weight.to(device), owner)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Sequences of any lengths end to end: tokens [N], positions [N] within their sequence, offsets [S+1] on
    the host.

    N may exceed offsets[-1]: the dead tail, which attention ignores and no target names.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def to(self, device: torch.device) -> Ragged:
        return Ragged(self.tokens.to(device), self.positions.to(device), self.offsets)


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples ready for one forward: `row` [S] names each sequence's row, `targets` holds one entry an
    objective."""

    source: Ragged
    row: np.ndarray
    targets: tuple[Targets, ...]
    tokens: int

    def to(self, device: torch.device) -> Batch:
        targets = tuple(target.to(device) for target in self.targets)
        return Batch(self.source.to(device), self.row, targets, self.tokens)


def ragged(sequences: Sequence[np.ndarray], round_to: int = ROUND_TOKENS) -> Ragged:
    """Lays sequences end to end and fills the dead tail up to a multiple of `round_to`."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = -(-int(offsets[-1]) // round_to) * round_to
    tokens = np.zeros(total, dtype=np.int64)
    positions = np.zeros(total, dtype=np.int64)
    tokens[: offsets[-1]] = np.concatenate(sequences)
    positions[: offsets[-1]] = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return Ragged(torch.from_numpy(tokens), torch.from_numpy(positions), offsets)


def collate(examples: Sequence[Example], targets: Sequence[Sequence[ExampleTargets]]) -> Batch:
    """Joins examples into a batch. `targets[k][i]` is what objective k scores in example i."""
    source = ragged([sequence for example in examples for sequence in example.sequences])
    row = np.repeat([example.row for example in examples], [len(example.sequences) for example in examples])
    starts = np.concatenate([[0], np.cumsum([example.tokens for example in examples])])
    joined = tuple(_join(of_objective, starts) for of_objective in targets)
    return Batch(source, row, joined, int(starts[-1]))


def _join(parts: Sequence[ExampleTargets], starts: np.ndarray) -> Targets:
    index = np.concatenate([np.asarray(part.index, np.int64) + start for part, start in zip(parts, starts)])
    value = np.concatenate([part.value for part in parts])
    weight = np.concatenate([np.asarray(part.weight, np.float64) for part in parts])
    owners = None
    if any(part.owner is not None for part in parts):
        before = np.concatenate([[0], np.cumsum([len(part.value) for part in parts])])
        own = [np.arange(len(part.value)) if part.owner is None else part.owner for part in parts]
        owners = torch.from_numpy(np.concatenate([one + first for one, first in zip(own, before)]))
    return Targets(torch.from_numpy(index), torch.from_numpy(value), torch.from_numpy(weight), owners)
