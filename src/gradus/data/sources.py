"""Numbered examples: windows of running text read from disk, or labelled rows held as token ids.

A source is what the feed draws from and the evaluator walks through: `len`, `example(i)` and, for the user's
eyes, `where(i)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

import numpy as np

from gradus.core.errors import UserError
from gradus.core.example import Example


class Source(Protocol):
    """Examples by number."""

    def __len__(self) -> int: ...

    def example(self, index: int, epoch: int = 0) -> Example:
        """The example; only what is drawn anew, such as a false pair, depends on the epoch."""
        ...

    def where(self, index: int, epoch: int = 0) -> str:
        """The place of the example of an epoch as a person would name it."""
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


class HeldTokens:
    """Running text in memory; `documents` are the borders of its documents, one unless given."""

    def __init__(self, ids: np.ndarray, documents: Sequence[int] | np.ndarray | None = None):
        self.ids, self.total = ids, len(ids)
        self.documents = np.array([0, len(ids)] if documents is None else documents)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.ids[start:stop]


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

    def example(self, index: int, epoch: int = 0) -> Example:
        part = int(np.searchsorted(self._first, index, side="right")) - 1
        start = int(self._starts[part]) + (index - int(self._first[part])) * self.context
        tokens = self.store.read(start, min(start + self.context + 1, int(self._stops[part]))).astype(
            np.int64
        )
        return Example(index, (tokens[:-1],), following=int(tokens[-1]))

    def where(self, index: int, epoch: int = 0) -> str:
        return f"window {index}"


class FramedWindows:
    """Windows of running text between `start` and `end`, for encoders: `context` tokens with those two.

    BERT's and RoBERTa's (Liu et al. 2019, section 4.2): "contiguous" is FULL-SENTENCES, which reads across
    documents and keeps the `end` between them, "document" is DOC-SENTENCES. Every token stands in one window;
    nothing follows, since an encoder predicts no next token.
    """

    def __init__(
        self,
        store: Tokens,
        context: int,
        around: tuple[int, int],
        across: Literal["contiguous", "document"] = "contiguous",
    ):
        self.store, self.room, self._around = store, context - 2, around
        if self.room < 1:
            problem = f"a context of {context} tokens holds nothing but the 2 special tokens"
            raise UserError(problem, field="model.context")
        borders = np.asarray(store.documents, dtype=np.int64)
        borders = borders if across == "document" else borders[[0, -1]]
        self._starts, self._stops = borders[:-1], borders[1:] - 1  # the last `end` comes with the frame
        self._first = np.concatenate([[0], np.cumsum(-(-(self._stops - self._starts) // self.room))])
        if not len(self):
            raise UserError("the text has no tokens: not enough for one window")

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def tokens(self) -> int:
        return int((self._stops - self._starts).sum()) + 2 * len(self)

    @property
    def longest(self) -> int:
        return min(self.room, int((self._stops - self._starts).max())) + 2

    def example(self, index: int, epoch: int = 0) -> Example:
        part = int(np.searchsorted(self._first, index, side="right")) - 1
        start = int(self._starts[part]) + (index - int(self._first[part])) * self.room
        tokens = self.store.read(start, min(start + self.room, int(self._stops[part])))
        start_id, end_id = self._around
        return Example(index, (np.concatenate([[start_id], tokens, [end_id]]).astype(np.int64),))

    def where(self, index: int, epoch: int = 0) -> str:
        return f"window {index}"


class Around:
    """A source that changes nothing of another but its examples."""

    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    @property
    def tokens(self) -> int:
        return self.source.tokens

    @property
    def longest(self) -> int:
        return self.source.longest

    def example(self, index: int, epoch: int = 0) -> Example:
        return self.source.example(index, epoch)

    def where(self, index: int, epoch: int = 0) -> str:
        return self.source.where(index, epoch)


class Told(Around):
    """Rows, however they are read, with what teachers say of each (`Example.taught`) [R, K]."""

    def __init__(self, source: Source, said: np.ndarray):
        super().__init__(source)
        self.said = said

    def example(self, index: int, epoch: int = 0) -> Example:
        return replace(super().example(index, epoch), taught=self.said[index])


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

    def example(self, index: int, epoch: int = 0) -> Example:
        return self.examples[index]

    def where(self, index: int, epoch: int = 0) -> str:
        return self.places[index]
