"""Which examples belong to step 1,204: a function of the seed, so a resume is one integer and no iterator has
state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gradus.core.example import Example
from gradus.core.keyed import permuted
from gradus.data.sources import Source


@dataclass(frozen=True)
class Feed:
    """Draws `batch` examples a step from `source`, in an order keyed by (seed, epoch).

    Steps run across the ends of epochs, so every step but the very last has the same number of rows; `total`
    rows is where the stage ends. Rank r of `world` takes every world-th row of the step, from the r-th on:
    together they are the rows that one process would take.
    """

    source: Source
    batch: int
    seed: int
    total: int
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        return -(-self.total // self.batch)

    def places(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(epochs [B], rows [B]) of step `step` (0-based), for all ranks."""
        position = np.arange(step * self.batch, min((step + 1) * self.batch, self.total))
        size = len(self.source)
        epochs, index = position // size, position % size
        rows = np.empty_like(index)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = permuted(index[here], size, "order", self.seed, int(epoch))
        return epochs, rows

    def examples(self, step: int) -> list[tuple[int, Example]]:
        """This rank's (epoch, example) of a step, in order."""
        epochs, rows = self.places(step)
        mine = slice(self.rank, None, self.world)
        drawn = zip(epochs[mine].tolist(), rows[mine].tolist())
        return [(epoch, self.source.example(row, epoch)) for epoch, row in drawn]


def cut(examples: Sequence[Example], budget: int) -> Iterator[list[Example]]:
    """Cuts examples, in order, into micro-batches of at most `budget` tokens (a longer example stands
    alone)."""
    part: list[Example] = []
    tokens = 0
    for example in examples:
        if part and tokens + example.tokens > budget:
            yield part
            part, tokens = [], 0
        part.append(example)
        tokens += example.tokens
    if part:
        yield part
