"""Several data sets read as one: by how much each counts, and all of one before any of it again.

GPT-3's pre-training (Brown et al. 2020, table 2.2): sources are drawn by weights that are not their sizes, so
within the same budget some are seen several times and others not even once. Of labelled rows, and of text
beside them, the same makes several tasks one stage (Liu et al. 2019, "Multi-Task Deep Neural Networks").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from gradus.core.config import Config, wrong
from gradus.core.errors import UserError, nearest
from gradus.core.example import Example
from gradus.core.keyed import permuted
from gradus.data.rows import RowsData
from gradus.data.sources import Source
from gradus.data.text import TextData, WindowKind


class Shares(Config):
    """Which share of what training reads comes from each data set: one of the two."""

    temperature: Annotated[float, Field(gt=0)] | None = None
    """In proportion to size ** (1 / temperature): 1 is by size, the higher the more alike (Arivazhagan et al.
    2019, section 4.1)."""
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    """One by one; their sum is taken as the whole."""

    @model_validator(mode="after")
    def _one(self) -> Shares:
        if (self.temperature is None) == (self.weights is None):
            raise wrong("", "either a temperature or weights are wanted", None, "such as {temperature: 2}")
        return self

    def of(self, sizes: Mapping[str, int]) -> np.ndarray:
        """Shares that sum to 1, float64 [parts], of data sets with so many rows or windows."""
        if self.weights is not None:
            odds = np.array([self.weights[name] for name in sizes])
        else:
            odds = np.array(list(sizes.values()), np.float64)
        odds = (odds / odds.max()) ** (1 / (self.temperature or 1.0))  # of 1 at most: no power overflows
        return np.asarray(odds / odds.sum())


@contextmanager
def within(name: str) -> Iterator[None]:
    """While data set `name` is read: a mistake that names no file gets its place in the mixture."""
    try:
        yield
    except UserError as mistake:
        if mistake.file is None:
            mistake.field = ".".join(["mix", name, *([mistake.field] if mistake.field else [])])
        raise


Member = Annotated[TextData | RowsData, Field(discriminator="kind")]


class Mixture(Config):
    """Several data sets read as one: texts, labelled rows, or both. An epoch has as many windows and rows as
    all of them together; dev and test are read whole, and each is scored by itself."""

    kind: Literal["mix"] = "mix"
    mix: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Member] = Field(min_length=2)
    """Name -> text or rows."""
    by: Literal["size", "turns"] | Shares = "size"
    """How much of what is read comes from each; turns: one of each in turn."""

    @model_validator(mode="after")
    def _alike(self) -> Mixture:
        texts = [(name, text) for name, text in self.mix.items() if isinstance(text, TextData)]
        for name, text in [] if self.has_rows else texts:
            first, usual = texts[0]
            if (text.windows, text.sentences) != (usual.windows, usual.sentences):
                problem = f"the windows of all texts are of one kind, and {first} has {usual.windows}"
                raise wrong(f"mix.{name}.windows", problem, text.windows, "the same in each")
        weights = self.by.weights if isinstance(self.by, Shares) else None
        if weights is not None and weights.keys() != self.mix.keys():
            what = "data set" if self.has_rows else "text"
            for name in weights:
                if name not in self.mix:
                    raise wrong("by.weights", f"there is no such {what}", name, nearest(name, self.mix))
            missing, hint = self.mix.keys() - weights.keys(), "leave out of `mix` what is not read"
            raise wrong("by.weights", f"this {what} has no weight", min(missing), hint)
        return self

    @property
    def parts(self) -> dict[str, TextData | RowsData]:
        """The data sets by name."""
        return self.mix

    @property
    def has_rows(self) -> bool:
        """Whether labelled rows are among them."""
        return any(isinstance(data, RowsData) for data in self.mix.values())

    @property
    def windows(self) -> WindowKind:
        """Those of all its texts."""
        return next(data.windows for data in self.mix.values() if isinstance(data, TextData))

    @property
    def dev(self) -> tuple[str, ...] | None:
        """Those that have a dev split; None where none has."""
        return tuple(name for name, data in self.mix.items() if data.dev is not None) or None

    def shares(self, sizes: Mapping[str, int]) -> np.ndarray:
        """Which share of an epoch comes from each, given how many windows or rows each has."""
        if isinstance(self.by, Shares):
            return self.by.of(sizes)
        return Shares(temperature=1.0).of(sizes if self.by == "size" else dict.fromkeys(sizes, 1))


class Joined:
    """Sources one after another: what is scored, each window once. `ends` [parts] says where each stops."""

    def __init__(self, parts: Sequence[Source]):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def longest(self) -> int:
        return max(part.longest for part in self.parts)

    def example(self, index: int, epoch: int = 0) -> Example:
        part, inside = self._place(index)
        return replace(part.example(inside, epoch), row=index)

    def where(self, index: int, epoch: int = 0) -> str:
        part, inside = self._place(index)
        return part.where(inside, epoch)

    def _place(self, index: int) -> tuple[Source, int]:
        number = int(np.searchsorted(self.ends, index, side="right"))
        part = self.parts[number]
        return part, index - int(self.ends[number]) + len(part)


class Mixed:
    """Sources drawn by `shares` [parts]: of an epoch, which has as many examples as all of them together,
    each gives its share, rounded.

    A source gives all its examples, in an order keyed by (seed, how often it was gone through), before it
    gives one again, across the epochs of the mixture; a feed may shuffle those of an epoch. Which example
    stands at (epoch, index) is a function.
    """

    def __init__(self, parts: Mapping[str, Source], shares: np.ndarray, seed: int):
        self.names, self.parts, self.seed = list(parts), list(parts.values()), seed
        self.total = sum(len(part) for part in self.parts)
        self.ends = np.rint(np.cumsum(shares) * self.total).astype(np.int64)

    def __len__(self) -> int:
        return self.total

    @property
    def counts(self) -> np.ndarray:
        """Examples of each source in an epoch, int64 [parts]."""
        return np.diff(self.ends, prepend=0)

    @property
    def tokens(self) -> int:
        return round(sum(part.tokens / len(part) * count for part, count in zip(self.parts, self.counts)))

    @property
    def longest(self) -> int:
        return max(part.longest for part in self.parts)

    def example(self, index: int, epoch: int = 0) -> Example:
        number, turn, inside = self._place(index, epoch)
        example = self.parts[number].example(inside, turn)
        return replace(example, row=index, member=self.names[number])

    def where(self, index: int, epoch: int = 0) -> str:
        number, turn, inside = self._place(index, epoch)
        return f"{self.names[number]}: {self.parts[number].where(inside, turn)}"

    def _place(self, index: int, epoch: int) -> tuple[int, int, int]:
        """Of an example: its source's number, how often that was gone through before, and its own index."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        count = int(self.counts[number])
        return self._drawn(number, epoch * count + index - (int(self.ends[number]) - count))

    def _drawn(self, number: int, before: int) -> tuple[int, int, int]:
        """Where source `number` stands once `before` of its examples were given."""
        turn, inside = divmod(before, len(self.parts[number]))
        order = "mixture", self.names[number], self.seed, turn
        return number, turn, int(permuted(inside, len(self.parts[number]), *order)[0])


class InTurn(Mixed):
    """One example of each source in turn, across epochs; the feed must not shuffle them again."""

    def _place(self, index: int, epoch: int) -> tuple[int, int, int]:
        before, number = divmod(epoch * self.total + index, len(self.parts))
        return self._drawn(number, before)
