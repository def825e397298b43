"""Rows out of one file or stream, one at a time: parsed, renamed by `map`, without those of `drop`.

Every value is text. Rows are streamed (only `reader: json` holds its file in memory). What cannot be read is
told with file, line and field, or collected in `skipped` where the recipe allows some bad rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from gradus.core.errors import UserError, nearest
from gradus.data.input import Input, Parsed
from gradus.data.parsers import PARSERS
from gradus.data.reader_options import ReaderOptions


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number among the rows of its split, its fields as text, and the (1-based) line where it
    starts."""

    index: int
    fields: dict[str, str]
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A bad row that the recipe allowed to leave out."""

    file: str
    line: int
    problem: str


def missing_column(row: Row, field: str) -> NoReturn:
    """Raises UserError: the row has no such field; it names those that the row has."""
    hint = nearest(field, row.fields) + ("" if len(row.fields) > 1 else "; has the file a header?")
    raise UserError("there is no such column", file=row.file, line=row.line, field=field, hint=hint)


def read_rows(
    file: Path,
    options: ReaderOptions,
    skipped: list[Skipped] | None = None,
    absent: frozenset[str] = frozenset(),
) -> Iterator[Row]:
    """The rows of one file, renamed by `map` and without those of `drop`.

    `skipped` collects bad rows where the options allow them; `absent` names columns that a file may lack (the
    label, when predicting). Raises UserError for the first bad row beyond those, and for a file without rows.
    """
    if not file.is_file():
        raise UserError("no such file", text=str(file))
    with open(file, "rb") as stream:
        yield from read_stream(stream, str(file), options, skipped, absent)


def read_stream(
    stream: IO[Any],
    name: str,
    options: ReaderOptions,
    skipped: list[Skipped] | None = None,
    absent: frozenset[str] = frozenset(),
) -> Iterator[Row]:
    """`read_rows` for an open stream of bytes (decoded here) or of text; `name` stands for the file."""
    index = 0
    for line, fields in raw_rows(stream, name, options, [] if skipped is None else skipped, absent):
        fields = renamed(fields, options)
        if not is_dropped(fields, options):
            yield Row(index, fields, name, line)
            index += 1


def raw_rows(
    stream: IO[Any],
    name: str,
    options: ReaderOptions,
    skipped: list[Skipped],
    absent: frozenset[str] = frozenset(),
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, fields) of every row, as the file has them: before `map` and `drop`."""
    reader = options.reader_for(name)
    yield from good_rows(
        PARSERS[reader](Input(stream, name, options, reader, absent)), name, options, skipped
    )


def good_rows(
    parsed: Parsed, name: str, options: ReaderOptions, skipped: list[Skipped]
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows that could be read. Raises UserError for the first bad one beyond those allowed, and where
    there is none."""
    found = False
    for line, fields in parsed:
        if isinstance(fields, UserError):
            if len(skipped) >= options.skippable:
                if skipped:
                    fields.problem += f", and {len(skipped)} bad rows were skipped before it"
                raise fields
            skipped.append(Skipped(name, line, str(fields)))
        else:
            found = True
            yield line, fields
    if not found:
        path = options.rows
        raise UserError("the file holds no rows", file=name, field=path and "rows", text=path)


def renamed(fields: dict[str, str], options: ReaderOptions) -> dict[str, str]:
    """The fields with their values as `map` wants them."""
    if not options.map:
        return fields
    return {field: options.map.get(field, {}).get(value, value) for field, value in fields.items()}


def is_dropped(fields: Mapping[str, str], options: ReaderOptions) -> bool:
    """Whether `drop` leaves out a row with these (renamed) fields; one that is missing counts as empty."""
    return any(fields.get(field, "") in values for field, values in options.drop.items())
