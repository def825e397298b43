"""Rows to token ids: a format's sequences with their special tokens, cut to the context and counted."""

from __future__ import annotations

import json
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.data.formats import Format, MultipleChoice
from gradus.data.frame import Frame
from gradus.data.label_sets import LabelSets
from gradus.data.labels import Choices, LabelledRow, Labels, Numbers, Spans
from gradus.data.parts import Long, Part, Sequence

Answers = Labels | Numbers | Choices | Spans
"""What a row's label means: a class, a set of them, a number, one of its own answers, or a place in its
context."""


class Encoder(Protocol):
    """What is asked of a tokenizer."""

    def encode(self, texts: list[str]) -> list[np.ndarray]: ...

    def places(self, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]: ...

    def role(self, name: str) -> int: ...


@dataclass(frozen=True)
class RowEncoder:
    """Rows to examples, for one format, tokenizer, context and kind of label.

    `long` is what happens to a row that does not fit: "truncate" (counted in `Example.truncated`) or "error".
    `frame` are the special tokens around its texts: those of a decoder unless given.
    """

    format: Format
    tokenizer: Encoder
    context: int
    answers: Answers | None
    long: Long = "truncate"
    frame: Frame = Frame()

    def encode(self, rows: Several[LabelledRow], labelled: bool = True) -> list[Example]:
        """Examples in the order of the rows; where they are not `labelled`, a text may be empty.

        Raises UserError for a missing field, a wrong label, an empty text, a row too long.
        """
        laid_out = [self.format.sequences(row) for row in rows]
        texts = list(dict.fromkeys(part.text for row in laid_out for one in row for part in one))
        tokens = dict(zip(texts, self.tokenizer.encode(texts)))
        pair = "delimiter" in self.format.roles
        roles = {name: np.array([self.tokenizer.role(name)]) for name in self.frame.roles(pair)}
        found = []
        for row, sequences in zip(rows, laid_out):
            if labelled:
                require_text(row, sequences)
            made = [self._sequence(row, one, tokens, roles) for one in sequences]
            label = self._label(row) if labelled else None
            read = tuple(ids for ids, _, _ in made)
            segments = tuple(belongs for _, belongs, _ in made) if self.frame.segments else ()
            found.append(
                Example(row.index, read, label=label, segments=segments,
                        decoded=self.frame.decoded(read, roles), truncated=sum(cut for _, _, cut in made))
            )  # fmt: skip
        return found

    def _label(self, row: LabelledRow) -> int | float | np.ndarray | None:
        if self.answers is None or self.format.label is None:
            return None
        if isinstance(self.format, MultipleChoice):
            return self.format.right(row)
        if isinstance(self.answers, LabelSets):
            return self.answers.marks(row, self.format.label)
        assert isinstance(self.answers, Labels | Numbers), "rows with answers have formats of their own"
        return self.answers.of_row(row, self.format.label)

    def _sequence(
        self, row: LabelledRow, parts: Sequence, tokens: dict[str, np.ndarray], roles: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """The ids of one sequence, which text each belongs to, and how many of its tokens were cut."""
        special = self.frame.size(1 + sum(part.delimited for part in parts))
        room = self.context - special
        if room < 1:
            problem = f"a context of {self.context} tokens holds nothing but the {special} special tokens"
            raise UserError(problem, field="model.context")
        lengths = [len(tokens[part.text]) for part in parts]
        half = getattr(self.format, "cut", "priority") == "half"
        kept = halves(parts, lengths, self.context) if half else shortened(lengths, room)
        cut = sum(lengths) - sum(kept)
        if cut and self.long == "error":
            problem = f"the row has {sum(lengths) + special} tokens, the context holds {self.context}"
            hint = "`long: truncate` cuts such rows and counts them"
            raise UserError(problem, file=row.file, line=row.line, field=", ".join(self.format.fields),
                            text=parts[0].text, hint=hint)  # fmt: skip
        texts: list[list[np.ndarray]] = [[]]
        for part, length in zip(parts, kept):
            ids = tokens[part.text]
            if part.delimited:
                texts.append([])
            texts[-1].append(ids[len(ids) - length :] if part.keeps == "tail" and not half else ids[:length])
        return *self.frame.laid([np.concatenate(text) for text in texts], roles), cut


def shortened(lengths: Several[int], room: int) -> list[int]:
    """How many tokens each part keeps: the first gives way first, to its last token, then the next.

    Only where not even one token a part fits do parts vanish, in the same order.
    """
    kept, excess = list(lengths), sum(lengths) - room
    for least in (1, 0):
        for place, length in enumerate(kept):
            gone = min(max(excess, 0), max(length - least, 0))
            kept[place], excess = length - gone, excess - gone
    return kept


def halves(parts: Several[Part], lengths: Several[int], context: int) -> list[int]:
    """Each side of the delimiter cut to half the context less two tokens, its head kept, as
    `max_len = n_ctx // 2 - 2` in the code released with GPT-1."""
    room, left, kept = max(context // 2 - 2, 0), 0, []
    for place, (part, length) in enumerate(zip(parts, lengths)):
        left = room if part.delimited or not place else left
        kept.append(min(length, left))
        left -= kept[-1]
    return kept


def require_text(row: LabelledRow, sequences: list[Sequence]) -> None:
    """Raises UserError where a text of the row is empty."""
    for part in sequences[0]:
        if not part.text.strip():
            hint = f"`drop: {{{part.column}: {json.dumps(part.text)}}}` leaves such rows out"
            raise UserError("the text is empty", file=row.file, line=row.line, field=part.column, hint=hint)
