"""The classes of a task: their order is part of the model, so it is decided once, from train alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from gradus.core.errors import UserError, nearest


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


@dataclass(frozen=True)
class Labels:
    """K class names in the order of the logits."""

    names: tuple[str, ...]

    def index(self, row: LabelledRow, field: str) -> int:
        """The class index of a row. Raises UserError for a missing, empty or unknown label."""
        text = label_text(row, field)
        try:
            return self.names.index(text)
        except ValueError:
            raise UserError(
                "this label is not among those of the training rows",
                file=row.file,
                line=row.line,
                field=field,
                text=text,
                hint=nearest(text, self.names),
            ) from None

    @classmethod
    def of(cls, rows: Iterable[LabelledRow], field: str, given: list[str] | None) -> Labels:
        """The labels of the training rows: as `given`, else sorted, as numbers if all are integers.

        Raises UserError for an empty label, one that `given` lacks, or a single class.
        """
        seen: dict[str, LabelledRow] = {}
        for row in rows:
            seen.setdefault(label_text(row, field), row)
        if given is not None:
            labels = cls(tuple(given))
            for text, row in seen.items():
                if text not in given:
                    raise UserError("`labels` does not name this label", file=row.file, line=row.line,
                                    field=field, text=text, hint=nearest(text, given))  # fmt: skip
        else:
            labels = cls(tuple(sorted(seen, key=int if all(map(_is_integer, seen)) else str)))
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


def label_text(row: LabelledRow, field: str) -> str:
    """The label as it stands in the row. Raises UserError where there is none."""
    text = field_text(row, field).strip()
    if not text:
        raise UserError(
            "the label is empty", file=row.file, line=row.line, field=field, hint="every row needs one"
        )
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


def _is_integer(text: str) -> bool:
    return text.lstrip("-").isdigit() and text.lstrip("-").isascii()
