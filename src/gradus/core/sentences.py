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
        """The sentences of `tokens` [T], in order; end to end they are `tokens`, and none is empty.

        Marks in a row ("?!", an ellipsis) end one sentence, and what closes a quotation belongs to it."""
        ends, begins = np.zeros(len(tokens) + 1, bool), np.zeros(len(tokens) + 1, bool)
        for mark in self.marks:
            found = np.ones(max(len(tokens) - len(mark) + 1, 0), bool)
            for shift, token in enumerate(mark):
                found &= tokens[shift : shift + len(found)] == token
            begins[np.flatnonzero(found)] = True
            ends[np.flatnonzero(found) + len(mark)] = True
        closing = np.isin(tokens, list(self.closers))
        for place in np.flatnonzero(closing):
            ends[place + 1] |= ends[place]
            ends[place] = False
        ends &= ~begins
        ends[0] = ends[-1] = False
        return [part for part in np.split(tokens, np.flatnonzero(ends)) if len(part)]
