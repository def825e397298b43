"""Several texts read as one: by how much each counts, and every window of a text before any of it again.

GPT-3's pre-training (Brown et al. 2020, table 2.2): sources are drawn by weights that are not their sizes, so
within the same budget some are seen several times and others not even once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from gradus.core.config import Config, wrong
from gradus.core.errors import nearest
from gradus.core.example import Example
from gradus.core.keyed import permuted
from gradus.data.sources import Source
from gradus.data.text import TextData, WindowKind


class Shares(Config):
    """Which share of the windows that training reads comes from each text: one of the two."""

    temperature: Annotated[float, Field(gt=0)] | None = None
    """In proportion to size ** (1 / temperature): 1 is by size, the higher the more alike (Arivazhagan et al.
    2019, section 4.1)."""
    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    """Text by text; their sum is taken as the whole."""

    @model_validator(mode="after")
    def _one(self) -> Shares:
        if (self.temperature is None) == (self.weights is None):
            raise wrong("", "either a temperature or weights are wanted", None, "such as {temperature: 2}")
        return self

    def of(self, sizes: Mapping[str, int]) -> np.ndarray:
        """Shares that sum to 1, float64 [parts], of texts with so many windows."""
        if self.weights is not None:
            odds = np.array([self.weights[name] for name in sizes])
        else:
            odds = np.array(list(sizes.values()), np.float64)
        odds = (odds / odds.max()) ** (1 / (self.temperature or 1.0))  # of 1 at most: no power overflows
        return np.asarray(odds / odds.sum())


class Mixture(Config):
    """Several texts without labels, read as one. An epoch has as many windows as all of them together; dev
    and test are read whole, and scored each text by itself as well."""

    kind: Literal["mix"] = "mix"
    mix: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], TextData] = Field(min_length=2)
    """Name -> text."""
    by: Literal["size"] | Shares = "size"
    """How much of what is read comes from each text."""

    @model_validator(mode="after")
    def _alike(self) -> Mixture:
        first, *others = self.mix.items()
        for name, text in others:
            if (text.windows, text.sentences) != (first[1].windows, first[1].sentences):
                problem = f"the windows of all texts are of one kind, and {first[0]} has {first[1].windows}"
                raise wrong(f"mix.{name}.windows", problem, text.windows, "the same in each")
        weights = None if self.by == "size" else self.by.weights
        if weights is not None and weights.keys() != self.mix.keys():
            for name in weights:
                if name not in self.mix:
                    raise wrong("by.weights", "there is no such text", name, nearest(name, self.mix))
            missing, hint = self.mix.keys() - weights.keys(), "leave out of `mix` what is not read"
            raise wrong("by.weights", "this text has no weight", min(missing), hint)
        return self

    @property
    def parts(self) -> dict[str, TextData]:
        """The texts by name."""
        return self.mix

    @property
    def windows(self) -> WindowKind:
        return next(iter(self.mix.values())).windows

    @property
    def dev(self) -> tuple[str, ...] | None:
        """The texts that have a dev split; None where none has."""
        return tuple(name for name, text in self.mix.items() if text.dev is not None) or None

    def shares(self, sizes: Mapping[str, int]) -> np.ndarray:
        """Which share of the windows comes from each text, given how many windows each has."""
        return (Shares(temperature=1.0) if self.by == "size" else self.by).of(sizes)


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

    def where(self, index: int) -> str:
        part, inside = self._place(index)
        return part.where(inside)

    def _place(self, index: int) -> tuple[Source, int]:
        number = int(np.searchsorted(self.ends, index, side="right"))
        part = self.parts[number]
        return part, index - int(self.ends[number]) + len(part)


class Mixed:
    """Sources drawn by `shares` [parts]: of an epoch, which has as many examples as all of them together,
    each gives its share, rounded.

    A source goes through all its examples, in an order keyed by (seed, how often it was gone through), before
    it gives one again, across the epochs of the mixture: which example stands at (epoch, index) is a
    function.
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
        return replace(self.parts[number].example(inside, turn), row=index)

    def where(self, index: int) -> str:
        number, _, inside = self._place(index, 0)
        return f"{self.names[number]}: {self.parts[number].where(inside)}"

    def _place(self, index: int, epoch: int) -> tuple[int, int, int]:
        """Of an example: its source's number, how often that was gone through before, and its own index."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        count, part = int(self.counts[number]), self.parts[number]
        turn, inside = divmod(epoch * count + index - (int(self.ends[number]) - count), len(part))
        return (
            number,
            turn,
            int(permuted(inside, len(part), "mixture", self.names[number], self.seed, turn)[0]),
        )
