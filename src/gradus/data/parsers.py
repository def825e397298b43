"""The shapes a file of rows may have: lines, TSV, CSV, JSON, CoNLL or Parquet are (line, named text fields).

A row that cannot be read is yielded as its error. Empty lines are no rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator

from gradus.core.errors import UserError, counted
from gradus.data.conll import read_conll
from gradus.data.hub import read_parquet
from gradus.data.input import Input, Parsed
from gradus.data.nested import read_json, read_json_lines
from gradus.data.reader_options import Reader, first_double

LINE_FIELD = "text"
"""What a line is called when neither `columns` nor `pattern` names it."""
_LONGEST_FIELD = 2**31 - 1


def _read_lines(source: Input) -> Parsed:
    pattern = re.compile(source.options.pattern) if source.options.pattern is not None else None
    name = (source.options.columns or [LINE_FIELD])[0]
    for number, line in source.lines():
        if not line:
            continue
        bad = source.undecoded(number)
        match = pattern.fullmatch(line) if pattern else None
        if bad:
            yield number, bad
        elif pattern is None:
            yield number, {name: line}
        elif match is None:
            hint = f"wanted: {pattern.pattern}"
            yield (
                number,
                source.error("the line does not match", number, field="pattern", text=line, hint=hint),
            )
        else:
            yield number, {field: value for field, value in match.groupdict().items() if value is not None}


def _read_table(source: Input) -> Parsed:
    options = source.options
    header = options.header if options.header is not None else options.columns is None
    names: list[str] | None = None
    first: list[str] = []
    for number, cells in _cells(source):
        bad = cells if isinstance(cells, UserError) else source.undecoded(number)
        if bad:
            if names is None and header:
                raise bad
            yield number, bad
        elif not isinstance(cells, UserError):
            if names is None:
                names, first = _names(source, cells, number, header), cells
                if header:
                    continue
            fields = _named(source, names, cells, number)
            misfit = _misfit(source, first, cells, number, header)
            yield number, fields if isinstance(fields, UserError) else misfit or fields


def _cells(source: Input) -> Iterator[tuple[int, list[str] | UserError]]:
    """(line where it starts, fields) of every row of a TSV or CSV file."""
    separator = "\t" if source.reader == "tsv" else ","
    quotes = source.options.quotes if source.options.quotes is not None else source.reader == "csv"
    if not quotes:
        yield from ((number, line.split(separator)) for number, line in source.lines() if line)
        return
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader((line + "\n" for _, line in source.lines()), delimiter=separator, strict=True)
    while True:
        start = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "if quotes are text in this file, write quotes: false"
            if "unexpected end" in str(
                error
            ):  # all the rest of the file went into this field: that is never one row
                raise source.error("a quoted field that begins here never ends", start, hint=hint) from None
            yield start, source.error(f"not {source.reader.upper()}: {error}", start, hint=hint)
        else:
            if cells:
                yield start, cells


def _names(source: Input, first: list[str], line: int, header: bool) -> list[str]:
    """The names of the columns, from the first line or from `columns`."""
    columns = source.options.columns
    if columns is None:
        names = [cell.strip() or f"column {number}" for number, cell in enumerate(first, start=1)]
        twice = first_double(names)
        if twice is not None:
            hint = "rename with `columns` and header: true"
            raise source.error("two columns of the header have the same name", line, text=twice, hint=hint)
        return names
    fewer = [name for name in columns if name not in source.absent]
    if len(first) < len(columns) and len(first) == len(fewer):
        columns = fewer
    if header and len(first) < len(columns):
        problem = f"the header has {counted(len(first), 'column')} where `columns` names {len(columns)}"
        raise source.error(problem, line, field="columns", text=", ".join(first))
    if not header and [cell.strip() for cell in first[: len(columns)]] == columns:
        hint = "write header: true"
        raise source.error("the first line repeats the names of `columns`: it is a header", line, hint=hint)
    return columns


def _misfit(source: Input, first: list[str], cells: list[str], line: int, header: bool) -> UserError | None:
    """The error for a row with other cells than the first, as a separator within a text makes them: the text
    would be cut there. TSV without header may differ: some files have columns that only some rows fill."""
    wider, narrower = any(cells[len(first) :]), any(first[len(cells) :]) and not header
    if not (wider or narrower) or (source.reader == "tsv" and not header):
        return None
    place = f"below a header of {len(first)}" if header else f"where the first row has {len(first)}"
    text = cells[len(first)] if wider else "\t".join(cells)
    hint = "a separator inside a field needs quotes"
    return source.error(f"{counted(len(cells), 'field')} {place}", line, text=text, hint=hint)


def _named(source: Input, names: list[str], cells: list[str], line: int) -> dict[str, str] | UserError:
    """The fields of one row; cells beyond those that `columns` names are ignored."""
    if len(cells) < len(names):
        wanted = f"{len(names)} {'is' if len(names) == 1 else 'are'} wanted"
        problem = f"{counted(len(cells), 'field')} where {wanted}"
        return source.error(problem, line, text="\t".join(cells), hint=f"the columns are {', '.join(names)}")
    return dict(zip(names, cells))


PARSERS: dict[Reader, Callable[[Input], Parsed]] = {
    "lines": _read_lines,
    "tsv": _read_table,
    "csv": _read_table,
    "jsonl": read_json_lines,
    "json": read_json,
    "conll": read_conll,
    "parquet": read_parquet,
}
