"""What a row is for the model: named text fields become sequences of token ids (Radford et al. 2018, section
3.3).

A format knows which fields it needs, which roles stand between them and what is cut when the context is too
short. A new kind of row is one class here and its name in `Format`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field

from gradus.core.config import Config
from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.data.labels import LabelledRow, Labels, field_text


class Encoder(Protocol):
    """What a format asks of a tokenizer."""

    def encode(self, texts: list[str]) -> list[np.ndarray]: ...

    def role(self, name: str) -> int: ...


class Single(Config):
    """One text: start text extract."""

    kind: Literal["single"] = "single"
    text: str
    """The column with the text."""
    label: str | None = None
    """The column with the class."""

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.text,)

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "extract")

    def shorten(self, lengths: list[int], room: int) -> list[int]:
        """The head of the text is kept."""
        return [min(lengths[0], room)]


class Pair(Config):
    """Two texts in an order that means something: start first delimiter second extract."""

    kind: Literal["pair"] = "pair"
    first: str
    """The column with the first text, a premise say; it is cut before the second."""
    second: str
    """The column with the second text, a hypothesis say."""
    label: str | None = None
    """The column with the class."""

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.first, self.second)

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "delimiter", "extract")

    def shorten(self, lengths: list[int], room: int) -> list[int]:
        """The first text gives way; where the second alone is too long, it is cut to all but one token."""
        second = min(lengths[1], max(room - 1, 0))
        return [min(lengths[0], room - second), second]


Format = Annotated[Single | Pair, Field(discriminator="kind")]


@dataclass(frozen=True)
class RowEncoder:
    """Rows to examples, for one format, tokenizer, context and label list.

    `long` is what happens to a row that does not fit: "truncate" (counted in `Example.truncated`) or "error".
    """

    format: Single | Pair
    tokenizer: Encoder
    context: int
    labels: Labels | None
    long: Literal["truncate", "error"] = "truncate"

    def encode(self, rows: Sequence[LabelledRow], labelled: bool = True) -> list[Example]:
        """Examples in the order of the rows. Raises UserError for a missing field, a wrong label, a row too
        long."""
        columns = [[field_text(row, field) for row in rows] for field in self.format.fields]
        encoded = [self.tokenizer.encode(column) for column in columns]
        between = [self.tokenizer.role(name) for name in self.format.roles]
        return [
            self._example(row, [column[at] for column in encoded], between, labelled)
            for at, row in enumerate(rows)
        ]

    def _example(
        self, row: LabelledRow, parts: list[np.ndarray], between: list[int], labelled: bool
    ) -> Example:
        lengths = [len(part) for part in parts]
        room = self.context - len(between)
        if room < 1:
            raise UserError(
                f"a context of {self.context} tokens holds nothing but the {len(between)} special tokens",
                field="model.context",
            )
        truncated = max(0, sum(lengths) - room)
        if truncated and self.long == "error":
            raise UserError(
                f"the row has {sum(lengths) + len(between)} tokens, the context holds {self.context}",
                file=row.file,
                line=row.line,
                field=", ".join(self.format.fields),
                text=field_text(row, self.format.fields[0]),
                hint="`long: truncate` cuts such rows and counts them",
            )
        kept = self.format.shorten(lengths, room)
        pieces = [np.array([between[0]])]
        for part, length, role in zip(parts, kept, between[1:]):
            pieces += [part[:length], np.array([role])]
        label = None
        if labelled and self.labels is not None and self.format.label is not None:
            label = self.labels.index(row, self.format.label)
        return Example(
            row.index, (np.concatenate(pieces).astype(np.int64),), label=label, truncated=truncated
        )
