"""Rows as token ids, and batches without padding.

Shapes: N tokens of a batch end to end, S sequences, R rows, M scored targets. A sequence is a window of text,
a row, one order of a similarity pair or one answer of a multiple choice. Attention alone needs to know where
sequences begin (`offsets`); everything else sees N real tokens and, after them, a dead tail that rounds N up
to a shape the kernels have met before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

ROUND_TOKENS = 64
"""Flat batches are filled up to a multiple of this: each new matrix shape makes oneDNN build a kernel."""
PairKind = Literal["sentence_pairs", "sentence_order"]
"""Windows of two segments, which bring a label of their own: does the second follow the first, or are they
swapped?"""


@dataclass(frozen=True, slots=True)
class Partner:
    """The row that an example is mixed with: its label, what it weighs beside the example's own row, which
    weighs 1 - `share`, and at which of the example's sequences its own begin."""

    label: int | float | np.ndarray | None
    share: float
    begins: int


@dataclass(frozen=True, slots=True)
class Example:
    """One row (or window) as token ids.

    `sequences` are int arrays [T_s]; `following` is the token after the last one in a window of running text,
    so that the last position has something to predict (a window may be in pieces, each of which goes on with
    the next); `label` is a class index, a number, zeros and ones [K] that say which of K labels the row has,
    or None; `truncated` counts tokens that the context made us cut.

    `segments`, one an array of `sequences` and as long, say which of two texts a token belongs to (BERT).
    `prefix` is how many tokens at the head of each sequence all of it sees (a prefix language model).
    `decoded` is what a decoder beside the encoder reads and says, one a sequence: its input is all but the
    last token, what it should say all but the first. `chosen` are the positions, counted from the example's
    first token, that an objective corrupted, and the tokens that stood there. `spans` [S, 4] say of each
    sequence where in it an answer begins and ends, -1 where it does not stand there whole, and where the text
    begins and ends that it may be taken from: places of tokens, the last one included. `tagged` [J, 3] are
    the tokens that say the tag of a word: the place in the sequence, -1 where the word has no token there;
    the number of the word; and its tag, -1 where that is not known. `partner` is a second row that stands
    behind the first. `member` is the data set of a mixture that it comes from. `taught` is what teachers say
    of the row: the probabilities [K] of its classes or of its answers (0 beyond its own), or one number [1].
    `below` [T, D] are the states that frozen layers make of its tokens, where these are kept.
    """

    row: int
    sequences: tuple[np.ndarray, ...]
    following: int | None = None
    label: int | float | np.ndarray | None = None
    truncated: int = 0
    segments: tuple[np.ndarray, ...] = ()
    prefix: tuple[int, ...] = ()
    decoded: tuple[np.ndarray, ...] = ()
    chosen: tuple[np.ndarray, np.ndarray] | None = None
    spans: np.ndarray | None = None
    tagged: np.ndarray | None = None
    partner: Partner | None = None
    member: str = ""
    taught: np.ndarray | None = None
    below: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        """Tokens that pass through the model, those of the decoder among them."""
        return sum(map(len, self.sequences)) + sum(len(said) - 1 for said in self.decoded)

    @property
    def states(self) -> int:
        """Tokens whose states objectives read: the decoder's where there is one beside the encoder."""
        read = sum(len(said) - 1 for said in self.decoded)
        return read if self.decoded else sum(map(len, self.sequences))


@dataclass(frozen=True, slots=True)
class ExampleTargets:
    """What one objective scores in one example: at position `index` [J], counted from its first token, it
    wants `value` [M], weighing `weight` [M].

    `owner` [J], ascending, names the target of each position where a target has several: the two orders of a
    similarity pair, the answers of a multiple choice, all of a window where an answer is looked for, whose
    `value` is a row of `Example.spans` [M, 4]. None: one position a target, J = M. `share` [J] is what the
    state of each position counts where those of a target are added; 1 unless given.
    """

    index: np.ndarray
    value: np.ndarray
    weight: np.ndarray
    owner: np.ndarray | None = None
    share: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """What one objective scores in a batch: as `ExampleTargets`, counted from the batch's first token and
    target."""

    index: torch.Tensor
    value: torch.Tensor
    weight: torch.Tensor
    owner: torch.Tensor | None = None
    share: torch.Tensor | None = None

    def to(self, device: torch.device) -> Targets:
        owner = None if self.owner is None else self.owner.to(device)
        share = None if self.share is None else self.share.to(device)
        return Targets(self.index.to(device), self.value.to(device), self.weight.to(device), owner, share)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Sequences of any lengths end to end: tokens [N], positions [N] within their sequence, offsets [S+1] on
    the host; segments [N] where tokens belong to one of two texts, prefix [S] on the host where the head of
    each sequence is seen by all of it.

    N may exceed offsets[-1]: the dead tail, which attention ignores and no target names.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    offsets: np.ndarray
    segments: torch.Tensor | None = None
    prefix: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def to(self, device: torch.device) -> Ragged:
        segments = None if self.segments is None else self.segments.to(device)
        return Ragged(self.tokens.to(device), self.positions.to(device), self.offsets, segments, self.prefix)


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples ready for one forward: `row` [S] names each sequence's row, `targets` holds one entry an
    objective, `decoded` is what a decoder beside the encoder reads, one sequence for each of the source,
    `below` [N, D] what frozen layers make of the source, where that is kept."""

    source: Ragged
    row: np.ndarray
    targets: tuple[Targets, ...]
    tokens: int
    decoded: Ragged | None = None
    below: torch.Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        targets = tuple(target.to(device) for target in self.targets)
        decoded = None if self.decoded is None else self.decoded.to(device)
        below = None if self.below is None else self.below.to(device)
        return Batch(self.source.to(device), self.row, targets, self.tokens, decoded, below)


def ragged(
    sequences: Sequence[np.ndarray],
    round_to: int = ROUND_TOKENS,
    segments: Sequence[np.ndarray] = (),
    prefix: Sequence[int] = (),
) -> Ragged:
    """Lays sequences end to end and fills the dead tail up to a multiple of `round_to`."""
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = -(-int(offsets[-1]) // round_to) * round_to
    tokens = np.zeros(total, dtype=np.int64)
    positions = np.zeros(total, dtype=np.int64)
    tokens[: offsets[-1]] = np.concatenate(sequences)
    positions[: offsets[-1]] = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    belongs = None
    if len(segments):
        belongs = torch.zeros(total, dtype=torch.int64)
        belongs[: offsets[-1]] = torch.from_numpy(np.concatenate(segments))
    heads = np.asarray(prefix, dtype=np.int64) if len(prefix) else None
    return Ragged(torch.from_numpy(tokens), torch.from_numpy(positions), offsets, belongs, heads)


def collate(examples: Sequence[Example], targets: Sequence[Sequence[ExampleTargets]]) -> Batch:
    """Joins examples into a batch. `targets[k][i]` is what objective k scores in example i."""
    segmented, headed = (any(parts) for parts in zip(*((one.segments, one.prefix) for one in examples)))
    source = ragged(
        [sequence for example in examples for sequence in example.sequences],
        segments=[part for example in examples if segmented for part in _segments(example)],
        prefix=[head for example in examples if headed for head in example.prefix or _heads(example)],
    )
    said = [one[:-1] for example in examples for one in example.decoded]
    row = np.repeat([example.row for example in examples], [len(example.sequences) for example in examples])
    starts = np.concatenate([[0], np.cumsum([example.states for example in examples])])
    joined = tuple(_join(of_objective, starts) for of_objective in targets)
    tokens = sum(example.tokens for example in examples)
    below = [example.below for example in examples if example.below is not None]
    states = _filled(below, len(source.tokens)) if below else None
    return Batch(source, row, joined, tokens, ragged(said) if said else None, states)


def _filled(below: Sequence[torch.Tensor], rows: int) -> torch.Tensor:
    """States end to end, and zeros for the dead tail."""
    tail = below[0].new_zeros(rows - sum(map(len, below)), below[0].shape[1])
    return torch.cat([*below, tail])


def _segments(example: Example) -> tuple[np.ndarray, ...]:
    """Without segments of its own, an example beside one that has them is all of the first text."""
    return example.segments or tuple(np.zeros(len(one), np.int64) for one in example.sequences)


def _heads(example: Example) -> tuple[int, ...]:
    return (0,) * len(example.sequences)


def _join(parts: Sequence[ExampleTargets], starts: np.ndarray) -> Targets:
    index = np.concatenate([np.asarray(part.index, np.int64) + start for part, start in zip(parts, starts)])
    value = np.concatenate([part.value for part in parts])
    weight = np.concatenate([np.asarray(part.weight, np.float64) for part in parts])
    owners = None
    if any(part.owner is not None for part in parts):
        before = np.concatenate([[0], np.cumsum([len(part.value) for part in parts])])
        own = [np.arange(len(part.value)) if part.owner is None else part.owner for part in parts]
        owners = torch.from_numpy(np.concatenate([one + first for one, first in zip(own, before)]))
    shares = None
    if any(part.share is not None for part in parts):
        each = [np.ones(len(part.index)) if part.share is None else part.share for part in parts]
        shares = torch.from_numpy(np.concatenate(each))
    return Targets(torch.from_numpy(index), torch.from_numpy(value), torch.from_numpy(weight), owners, shares)
