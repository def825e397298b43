"""What every kind of row is made of: texts in order, and the columns they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from gradus.core.config import Config, wrong
from gradus.data.labels import LabelledRow

Long = Literal["truncate", "error", "window"]
"""What happens to a row that is longer than the context: it is cut, refused, or read in several windows."""


@dataclass(frozen=True, slots=True)
class Part:
    """One text of a sequence and the column it comes from; where `keeps` is "tail", its head is cut first.

    `delimited`: a delimiter stands before it; else it follows the part before it directly.
    """

    text: str
    column: str
    delimited: bool = False
    keeps: Literal["head", "tail"] = "head"


Sequence = tuple[Part, ...]
"""Texts in order; the first gives way first. `start` stands before them and `extract` behind."""
Cut = Literal["priority", "half"]


class RowFormat(Config):
    """What every kind of row can do."""

    ordered: ClassVar[bool] = True
    """Whether the texts in another order are another row."""
    label_key: ClassVar[str] = "label"
    """The key of the format that names the column with what is to be learnt."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns with the texts."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _label_apart(self) -> Self:
        label = getattr(self, "label", None)
        if label in self.fields:
            hint = "the model would read the answer; name the column that holds the label alone"
            raise wrong("label", "this column is one of the texts", label, hint)
        return self

    @property
    def changeable(self) -> tuple[str, ...]:
        """The columns whose texts may be changed while what is wanted stays true; none where it stands in
        them."""
        return self.fields

    def sequences(self, row: LabelledRow) -> list[Sequence]:
        """The row as the model reads it, before tokens. Raises UserError for a column that is not there."""
        raise NotImplementedError

    def shown(self, row: LabelledRow) -> str:
        """The row's texts for a person to read, each once."""
        return "\n".join(dict.fromkeys(part.text for one in self.sequences(row) for part in one))

    def corpus(self, row: LabelledRow) -> list[str]:
        """The texts from which a tokenizer learns."""
        return [row.fields[name] for name in self.fields if name in row.fields]
