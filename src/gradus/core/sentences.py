"""Where sentences end in token ids: a tokenizer knows which ids do it, an objective cuts there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SentenceEnds:
    """`marks` are runs of ids that end a sentence (a mark of three bytes may be three ids), `closers` the ids
    of quotation marks and brackets that still belong to the sentence before them."""

    marks: tuple[tuple[int, ...], ...] = ()
    closers: frozenset[int] = frozenset()

    def cut(self, tokens: np.ndarray) -> list[np.ndarray]:
        """The sentences of `tokens` [T], in order; end to end they are `tokens`, and none is empty."""
        ends = np.zeros(len(tokens) + 1, bool)
        for mark in self.marks:
            found = np.ones(max(len(tokens) - len(mark) + 1, 0), bool)
            for shift, token in enumerate(mark):
                found &= tokens[shift : shift + len(found)] == token
            ends[np.flatnonzero(found) + len(mark)] = True
        closing = np.isin(tokens, list(self.closers))
        for place in np.flatnonzero(closing):  # an end before a closer moves behind it
            ends[place + 1] |= ends[place]
            ends[place] = False
        ends[0] = ends[-1] = False
        # Marks in a row ("?!", an ellipsis) end one sentence, not several.
        whole = [part for part in np.split(tokens, np.flatnonzero(ends)) if len(part)]
        joined: list[np.ndarray] = []
        for part in whole:
            if joined and self._is_mark(part):
                joined[-1] = np.concatenate([joined[-1], part])
            else:
                joined.append(part)
        return joined

    def _is_mark(self, part: np.ndarray) -> bool:
        return tuple(part.tolist()) in self.marks
