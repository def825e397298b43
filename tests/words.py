"""A vocabulary for tests of objectives: words are ids, and roles are ids behind them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from gradus.core.sentences import SentenceEnds
from gradus.core.words import WordEdges

STOP = 7
"""The id that ends a sentence."""


class Vocabulary:
    """`words` ids of text, then 6 roles, then `sentinels`."""

    ROLES = ("pad", "start", "delimiter", "extract", "end", "mask")

    def __init__(self, words: int = 60, sentinels: int = 20):
        self.words, self.sentinels = words, sentinels

    @property
    def roles(self) -> dict[str, str]:
        names = [*self.ROLES, *(f"sentinel {number}" for number in range(self.sentinels))]
        return {name: f"<{name}>" for name in names}

    @cached_property
    def word_edges(self) -> WordEdges:
        """Every token is a word."""
        every = np.ones(self.size, dtype=bool)
        return WordEdges(every, every)

    @property
    def size(self) -> int:
        return self.words + len(self.ROLES) + self.sentinels

    def role(self, name: str) -> int:
        if name.startswith("sentinel "):
            number = int(name.removeprefix("sentinel "))
            assert number < self.sentinels
            return self.words + len(self.ROLES) + number
        return self.words + self.ROLES.index(name)

    @cached_property
    def sentence_ends(self) -> SentenceEnds:
        return SentenceEnds(((STOP,),))
