"""Rows of words to examples: which token says the tag of which word.

Every word becomes tokens of its own, with what stands before it in the text, so that no token belongs to two.
Shapes: T tokens of a row, J tokens with a tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.data.encoding import RowEncoder
from gradus.data.labels import LabelledRow
from gradus.data.tagged import Laid, Tagged, Tags
from gradus.data.tags import entities

Piece = tuple[str, int]
"""A word with what stands between it and the one before, and how many characters that is."""


@dataclass(frozen=True)
class WordEncoder(RowEncoder):
    """Rows to examples whose `Example.tagged` says where each word is read, and what its tag is."""

    @property
    def form(self) -> Tagged:
        assert isinstance(self.format, Tagged)
        return self.format

    def encode(self, rows: Several[LabelledRow], labelled: bool = True) -> list[Example]:
        """As `RowEncoder.encode`; a tag that is not known is -1.

        Raises UserError for a row without words and for tags that are not as they should be.
        """
        laid = [self.form.laid(row) for row in rows]
        pieces = [_pieces(one) for one in laid]
        different = list(dict.fromkeys(piece for of_row in pieces for piece in of_row))
        placed = self.tokenizer.places([text for text, _ in different])
        tokens = {
            piece: (ids, int(np.searchsorted(places[:, 1], piece[1], "right")))
            for piece, (ids, places) in zip(different, placed)
        }
        roles = {name: np.array([self.tokenizer.role(name)]) for name in self.frame.roles(pair=False)}
        return [self._row(row, of_row, tokens, roles, labelled) for row, of_row in zip(rows, pieces)]

    @property
    def _learning(self) -> slice:
        """Which of a word's tokens learn its tag."""
        return {"first": slice(1), "last": slice(-1, None), "all": slice(None)}[self.form.pieces]

    def counts(self, rows: Several[LabelledRow], examples: Several[Example]) -> dict[str, Any]:
        """Words of rows, how many of them are not read, and, where tags mark any, entities by type and how
        many rows had their tags written anew."""
        if not isinstance(self.answers, Tags):
            return {}
        tagged = [example.tagged for example in examples if example.tagged is not None]
        words = sum(len(np.unique(one[:, 1])) for one in tagged)
        lost = sum(int((one[:, 0] < 0).sum()) for one in tagged)
        counts: dict[str, Any] = {"words": words, "lost_words": lost}
        if self.form.scheme != "none":
            found = Counter(one.type for row in rows for one in entities(self.form.tags_of(row)))
            counts["entities"] = dict(sorted(found.items()))
        if mended := sum(self.form.mends(row) for row in rows):
            counts["mended_rows"] = mended
        return counts

    def _row(
        self,
        row: LabelledRow,
        pieces: list[Piece],
        tokens: dict[Piece, tuple[np.ndarray, int]],
        roles: dict[str, np.ndarray],
        labelled: bool,
    ) -> Example:
        if labelled and not pieces:
            raise UserError("the row has no words", file=row.file, line=row.line, field=self.form.fields[0])
        room = self.context - self.frame.size(1)
        ids = np.concatenate([np.zeros(0, np.int64), *(tokens[piece][0] for piece in pieces)])
        cut = max(0, len(ids) - room)
        if cut and self.long == "error":
            problem = f"the row has {len(ids)} tokens, the context has room for {room}"
            raise UserError(problem, file=row.file, line=row.line, field=self.form.fields[0],
                            hint="`long: truncate` cuts such rows and counts lost words")  # fmt: skip
        read, segments = self.frame.laid([ids[:room]], roles)
        tagged = self._tagged(row, pieces, tokens, room, labelled)
        return Example(
            row.index, (read,), truncated=cut, segments=(segments,) if self.frame.segments else (),
            decoded=self.frame.decoded([read], roles), tagged=tagged,
        )  # fmt: skip

    def _tagged(
        self,
        row: LabelledRow,
        pieces: list[Piece],
        tokens: dict[Piece, tuple[np.ndarray, int]],
        room: int,
        labelled: bool,
    ) -> np.ndarray | None:
        """What `Example.tagged` says [J, 3]; None where nothing asks for tags."""
        if not isinstance(self.answers, Tags):
            return None
        tags = self.answers.of_words(row, self.form) if labelled else [-1] * len(pieces)
        found, start, before = [], 0, len(self.frame.before)
        for word, (piece, tag) in enumerate(zip(pieces, tags)):
            ids, first = tokens[piece]
            places = range(start + first, start + len(ids))[self._learning]
            found += [(before + at, word, tag) for at in places if at < room] or [(-1, word, tag)]
            start += len(ids)
        return np.array(found, np.int64).reshape(-1, 3)


def _pieces(laid: Laid) -> list[Piece]:
    before, found = 0, []
    for begin, end in laid.places:
        found.append((laid.text[before:end], begin - before))
        before = end
    return found
