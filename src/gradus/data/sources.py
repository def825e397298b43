"""Numbered examples: windows of running text read from disk, or labelled rows held as token ids.

A source is what the feed draws from and the evaluator walks through: `len`, `example(i)` and, for the user's
eyes, `where(i)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from gradus.core.errors import UserError
from gradus.core.example import Example


class Source(Protocol):
    """Examples by number."""

    def __len__(self) -> int: ...

    def example(self, index: int) -> Example: ...

    def where(self, index: int) -> str:
        """The place of the example as a person would name it."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of one epoch."""
        ...

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        ...


class Tokens(Protocol):
    """Running text as token ids, documents ended by the role `end`: what data/shards.py keeps on disk."""

    total: int
    documents: np.ndarray

    def read(self, start: int, stop: int) -> np.ndarray: ...


class Windows:
    """Windows of `context` tokens over running text; every token but a sequence's first is predicted once.

    "contiguous" (GPT-1, section 4.1) reads across documents, "document" never does: there a document begins
    with the `end` of the one before, from which its first token is predicted. Neighbouring windows share one
    token: the one that follows a window is predicted there and read in the next. The short last one is kept.
    """

    def __init__(self, store: Tokens, context: int, across: Literal["contiguous", "document"] = "contiguous"):
        self.store, self.context = store, context
        borders = np.asarray(store.documents, dtype=np.int64)
        self._starts = np.maximum(borders[:-1] - 1, 0) if across == "document" else np.array([0])
        self._stops = borders[1:] if across == "document" else np.array([store.total])
        windows = np.maximum(-(-(self._stops - self._starts - 1) // context), 0)
        self._first = np.concatenate([[0], np.cumsum(windows)])
        if not len(self):
            raise UserError(f"the text has {store.total} tokens: not enough for one window")

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def tokens(self) -> int:
        return int(np.maximum(self._stops - self._starts - 1, 0).sum())

    @property
    def longest(self) -> int:
        return min(self.context, int((self._stops - self._starts).max()) - 1)

    def shorter_than(self, least: int) -> int:
        """How many windows have fewer tokens than `least`: only the last of a part may."""
        tokens = np.maximum(self._stops - self._starts - 1, 0)
        last = np.where(tokens % self.context, tokens % self.context, np.minimum(tokens, self.context))
        return int(((last > 0) & (last < least)).sum())

    def example(self, index: int) -> Example:
        part = int(np.searchsorted(self._first, index, side="right")) - 1
        start = int(self._starts[part]) + (index - int(self._first[part])) * self.context
        tokens = self.store.read(start, min(start + self.context + 1, int(self._stops[part]))).astype(
            np.int64
        )
        return Example(index, (tokens[:-1],), following=int(tokens[-1]))

    def where(self, index: int) -> str:
        return f"window {index}"


class Rows:
    """Labelled rows as token ids; `places` says where each stands in the user's files."""

    def __init__(self, examples: Sequence[Example], places: Sequence[str]):
        self.examples, self.places = examples, places

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def tokens(self) -> int:
        return sum(example.tokens for example in self.examples)

    @property
    def longest(self) -> int:
        return max(example.tokens for example in self.examples)

    def example(self, index: int) -> Example:
        return self.examples[index]

    def where(self, index: int) -> str:
        return self.places[index]
