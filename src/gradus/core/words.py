"""Where words have their borders in token ids: a tokenizer knows which tokens begin and end them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WordEdges:
    """Whether a word begins with a token of the vocabulary, and whether one ends with it, bool [V].

    Between two tokens stands a border where the left one ends a word or the right one begins one; a token
    that does neither goes on with the word before it.
    """

    begins: np.ndarray
    ends: np.ndarray

    def borders(self, tokens: np.ndarray) -> np.ndarray:
        """Whether a border stands between neighbours of `tokens` [T], bool [T - 1]."""
        found: np.ndarray = self.begins[tokens[1:]] | self.ends[tokens[:-1]]
        return found
