"""Which examples belong to step 1,204: a function of the seed, so a resume is one integer and no iterator has
state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradus.core.example import Example
from gradus.core.keyed import permuted
from gradus.data.ramp import in_pieces, ramped, window_length
from gradus.data.sources import Source


@dataclass(frozen=True)
class Feed:
    """Draws `batch` examples a step from `source`, in an order keyed by (seed, epoch).

    Steps run across the ends of epochs, so every step but the very last has the same number of rows; `total`
    rows is where the stage ends. Rank r of `world` takes every world-th row of the step, from the r-th on:
    together they are the rows that one process would take. With a `ramp` (first, share) the batch grows from
    `first` rows to `batch`, in proportion to the rows seen, over that share of the stage. With `windows`
    (first, share) windows of text are read in pieces that grow from `first` tokens to the whole likewise.
    """

    source: Source
    batch: int
    seed: int
    total: int
    rank: int = 0
    world: int = 1
    ramp: tuple[int, float] | None = None
    shuffled: bool = True
    """Whether the order is drawn; a source whose parts come in turn has one of its own."""
    windows: tuple[int, float] | None = None

    @property
    def steps(self) -> int:
        return len(self._bounds) - 1

    def rows_after(self, step: int) -> int:
        """Rows seen when `step` steps are done."""
        return int(self._bounds[step])

    @cached_property
    def _bounds(self) -> np.ndarray:
        """Where each step begins, and where the last one ends."""
        return step_bounds(self.total, self.batch, self.ramp)

    def places(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(epochs [B], rows [B]) of step `step` (0-based), for all ranks."""
        position = np.arange(self._bounds[step], self._bounds[step + 1])
        size = len(self.source)
        epochs, index = position // size, position % size
        if not self.shuffled:
            return epochs, index
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
        found = [(epoch, self.source.example(row, epoch)) for epoch, row in drawn]
        if (length := self.window(step)) is None:
            return found
        return [(epoch, in_pieces(example, length)) for epoch, example in found]

    def window(self, step: int) -> int | None:
        """Tokens of a piece of a window in step `step` (0-based); None where windows are read whole."""
        if self.windows is None:
            return None
        first, share = self.windows
        return window_length(first, self._longest, int(self._bounds[step]) / (share * self.total))

    @cached_property
    def _longest(self) -> int:
        return self.source.longest


def step_bounds(total: int, batch: int, ramp: tuple[int, float] | None = None) -> np.ndarray:
    """The row at which each step of a stage of `total` rows begins, and `total` at the end.

    With a ramp (first, share), a step that begins at row r has first + (batch - first) r / (share total)
    rows, until that is `batch` (Brown et al. 2020, appendix B, grow it linearly in tokens).
    """
    bounds = [0]
    if ramp is not None:
        first, over = ramp[0], ramp[1] * total
        while bounds[-1] < min(over, total):
            size = ramped(first, batch, bounds[-1] / over)
            bounds.append(min(bounds[-1] + max(1, round(size)), total))
    start = bounds.pop()
    return np.concatenate([np.array(bounds, np.int64), np.arange(start, total, batch), [total]])


def rows_of_steps(steps: int, batch: int, ramp: tuple[int, float] | None = None) -> int:
    """The most rows that `steps` steps take."""
    low, high = 1, steps * batch
    if ramp is None:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if len(step_bounds(middle, batch, ramp)) - 1 <= steps else (low, middle - 1)
        )
    return low


def cut(examples: Iterable[Example], budget: int) -> Iterator[list[Example]]:
    """Cuts examples, in order and as they come, into micro-batches of at most `budget` tokens (a longer
    example stands alone)."""
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
