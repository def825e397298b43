"""Any number of labels a row, none included: which of K labels it has.

A field holds them as a JSON list, or as one text with something between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from gradus.core.config import Config
from gradus.core.errors import UserError, counted
from gradus.core.example import Example
from gradus.data.labels import LabelledRow, Labels, field_text, listed, named
from gradus.data.reader_options import first_double


class Separated(Config):
    """The labels of a row stand in one text."""

    separator: Annotated[str, Field(min_length=1)]
    """What stands between two of them, such as a comma; white space around a label does not count."""


def _how(given: Any) -> Any:
    if not isinstance(given, bool | dict | Separated | None):
        raise ValueError('true is wanted here, for JSON lists of labels, or {separator: ","}')
    return given


MultiLabel = Annotated[
    Literal[True, False] | Separated | None,
    BeforeValidator(_how),
    AfterValidator(lambda given: given or None),
]
"""Whether a row has any number of labels, and how they are written: true is a JSON list."""


@dataclass(frozen=True)
class LabelSets(Labels):
    """K labels in the order of the logits, of which a row has some, all or none."""

    separator: str | None = None
    """What stands between two labels of a row; None where they are a JSON list."""

    @classmethod
    def written(cls, names: Sequence[str], how: bool | Separated | None) -> LabelSets:
        """The labels `names`, which rows hold as `multi_label` says."""
        return cls(tuple(names), how.separator if isinstance(how, Separated) else None)

    def texts(self, row: LabelledRow, field: str) -> list[str]:
        """The labels of a row. Raises UserError where there is no list of them, for one that is empty, and
        for one that stands there twice."""
        if self.separator is None:
            hint = 'such as ["a", "b"]; one text of several wants `multi_label: {separator: ","}`'
            parts = listed(row, field, "labels", hint)
        else:
            text = field_text(row, field)
            parts = text.split(self.separator) if text.strip() else []
        found = [part.strip() for part in parts]
        where: dict[str, Any] = {"file": row.file, "line": row.line, "field": field}
        if not all(found):
            raise UserError("a label is empty", **where, text=row.fields[field])
        if twice := first_double(found):
            raise UserError("the row has this label twice", **where, text=twice, hint="once is enough")
        return found

    def marks(self, row: LabelledRow, field: str) -> np.ndarray:
        """1 for each label that the row has, else 0 [K]. Raises UserError as `texts`, and for a label that is
        unknown."""
        has = np.zeros(len(self.names))
        has[[self.place(text, row, field) for text in self.texts(row, field)]] = 1
        return has

    def of_train(self, rows: Iterable[LabelledRow], field: str, given: Sequence[str] | None) -> LabelSets:
        """With the names of the training rows: as `given`, else sorted, as numbers if all are integers.

        Raises UserError for a label that `given` lacks, and for fewer than two."""
        seen: dict[str, LabelledRow] = {}
        file = None
        for row in rows:
            file = file or row.file
            for text in self.texts(row, field):
                seen.setdefault(text, row)
        if given is None and len(seen) < 2:
            hint = "at least two are wanted; a class that a row has or has not is one of two classes"
            problem = f"the training rows have {counted(len(seen), 'label')} in all"
            raise UserError(problem, file=file, field=field, text=", ".join(seen) or None, hint=hint)
        return LabelSets(named(seen, field, given), self.separator)

    def counts(self, examples: Sequence[Example]) -> dict[str, Any]:
        """How many rows have each label, and how many have none."""
        has = np.array([example.label for example in examples])
        found = dict(zip(self.names, has.sum(0).astype(int).tolist()))
        return {"labels": found, "rows_without_label": int((has.sum(1) == 0).sum())}
