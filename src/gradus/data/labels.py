"""What the label of a row means: a class, a number, one of its own answers, or a place in its context.

It is part of the model, so it is decided once, from train alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gradus.core.errors import UserError, nearest
from gradus.data.nested import as_text


class LabelledRow(Protocol):
    """What is needed of a row: its named fields and where it stands."""

    @property
    def index(self) -> int: ...

    @property
    def fields(self) -> dict[str, str]: ...

    @property
    def file(self) -> str: ...

    @property
    def line(self) -> int: ...


ALL_NAMED = "`labels` in the data names all, where train lacks some"
"""What is right where a label of dev or test is no mistake of writing."""


@dataclass(frozen=True)
class Labels:
    """K class names in the order of the logits."""

    names: tuple[str, ...]

    def of_row(self, row: LabelledRow, field: str) -> int:
        """The class index of a row. Raises UserError for a missing, empty or unknown label."""
        return self.place(label_text(row, field), row, field)

    def texts(self, row: LabelledRow, field: str) -> list[str]:
        """The labels of a row as they stand there: one. Raises UserError where it is missing or empty."""
        return [label_text(row, field)]

    def place(self, text: str, row: LabelledRow, field: str) -> int:
        """The index of a label of `row`. Raises UserError for one that is unknown."""
        try:
            return self.names.index(text)
        except ValueError:
            raise UserError(
                "this label is not among those of the training rows",
                file=row.file,
                line=row.line,
                field=field,
                text=text,
                hint=f"{nearest(text, self.names)}; {ALL_NAMED}",
            ) from None

    @classmethod
    def of(cls, rows: Iterable[LabelledRow], field: str, given: list[str] | None) -> Labels:
        """The labels of the training rows: as `given`, else sorted, as numbers if all are integers.

        Raises UserError for an empty label, one that `given` lacks, or a single class.
        """
        seen: dict[str, LabelledRow] = {}
        for row in rows:
            seen.setdefault(label_text(row, field), row)
        labels = cls(named(seen, field, given))
        if len(labels.names) < 2:
            row = next(iter(seen.values()))
            raise UserError(
                "every training row has the same label",
                file=row.file,
                field=field,
                text=labels.names[0],
                hint="a classifier needs at least two classes",
            )
        return labels


@dataclass(frozen=True)
class Numbers:
    """Numbers between the least and the largest that train has seen."""

    low: float
    high: float

    def of_row(self, row: LabelledRow, field: str) -> float:
        """The number of a row. Raises UserError for a label that is none."""
        return number_of(row, field)

    @classmethod
    def of(cls, rows: Iterable[LabelledRow], field: str) -> Numbers:
        """The range of the training rows. Raises UserError for a label that is no number, or only one
        number."""
        found = [(number_of(row, field), row) for row in rows]
        low, high = (function(number for number, _ in found) for function in (min, max))
        if low == high:
            hint = "there is nothing to learn"
            raise UserError("every training row has the same number", file=found[0][1].file, field=field,
                            text=found[0][1].fields[field], hint=hint)  # fmt: skip
        return cls(low, high)


@dataclass(frozen=True)
class Choices:
    """Which of its own answers is right: the format knows."""


@dataclass(frozen=True)
class Spans:
    """Where in its context the answer stands: the format knows."""


def number_of(row: LabelledRow, field: str) -> float:
    """The label as a number. Raises UserError where it is none, or is not finite."""
    text = label_text(row, field)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        hint = "regression wants numbers such as 3.5; classes want `classification`"
        raise UserError("the label is not a number", file=row.file, line=row.line, field=field, text=text,
                        hint=hint)  # fmt: skip
    return number


def named(seen: Mapping[str, LabelledRow], field: str, given: Sequence[str] | None) -> tuple[str, ...]:
    """The labels in the order of the logits: as `given`, else those that were `seen` (and where), in order.

    Raises UserError for one that `given` lacks."""
    if given is None:
        return tuple(in_order(seen))
    for text, row in seen.items():
        if text not in given:
            raise UserError("`labels` does not name this label", file=row.file, line=row.line,
                            field=field, text=text, hint=nearest(text, given))  # fmt: skip
    return tuple(given)


def label_text(row: LabelledRow, field: str) -> str:
    """The label as it stands in the row. Raises UserError where there is none."""
    text = field_text(row, field).strip()
    if not text:
        hint = f"`drop: {{{field}: {json.dumps(row.fields[field])}}}` leaves such rows out"
        raise UserError("the label is empty", file=row.file, line=row.line, field=field, hint=hint)
    return text


def field_text(row: LabelledRow, field: str) -> str:
    """The text of a field. Raises UserError that names the columns there are."""
    try:
        return row.fields[field]
    except KeyError:
        raise UserError(
            "there is no such column",
            file=row.file,
            line=row.line,
            text=field,
            hint=nearest(field, row.fields),
        ) from None


def listed(row: LabelledRow, field: str, what: str, hint: str) -> list[str]:
    """The texts of a JSON list, numbers among them. Raises UserError, with `hint`, for anything else."""
    text = field_text(row, field)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str | int | float) for item in found):
        raise UserError(f"a JSON list of {what} is wanted", file=row.file, line=row.line, field=field,
                        text=text, hint=hint)  # fmt: skip
    return [as_text(item) or "" for item in found]


def in_order(names: Iterable[str]) -> list[str]:
    """Classes as they are numbered: as numbers where all are integers, else sorted as texts."""
    ordered = sorted(names)
    numbers = {name: integer(name) for name in ordered}
    return ordered if None in numbers.values() else sorted(ordered, key=lambda name: numbers[name] or 0)


def integer(text: str) -> int | None:
    """The integer that the text writes; None where it writes none, or one of more than 18 digits, which is a
    name and no number to count by."""
    return int(text) if re.fullmatch("-?[0-9]{1,18}", text) else None
