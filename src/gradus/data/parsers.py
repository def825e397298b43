"""The shapes a file of rows may have: lines, TSV, CSV, JSON Lines or a JSON array become (line, named text
fields).

A row that cannot be read is yielded as its error, so that the caller decides whether it may be skipped. Lines
end at LF or CRLF and at nothing else: a Unicode line separator inside a text is text. Empty lines are no
rows.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from gradus.core.errors import UserError
from gradus.data.paths import BOM, is_sound, undecodable
from gradus.data.reader_options import Reader, ReaderOptions, first_double

LINE_FIELD = "text"
"""What a line is called when neither `columns` nor `pattern` names it."""
_LONGEST_FIELD = 2**31 - 1
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPED = re.compile("[\udc80-\udcff]+")
Parsed = Iterator[tuple[int, dict[str, str] | UserError]]


@dataclass(frozen=True)
class Input:
    """A stream on its way to rows, and how its errors begin."""

    stream: IO[Any]
    name: str
    options: ReaderOptions
    reader: Reader
    absent: frozenset[str]

    def error(self, problem: str, line: int | None, **where: Any) -> UserError:
        return UserError(problem, file=self.name, line=line, **where)

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number, line without its end). Bytes that cannot be decoded become surrogates, found by
        `undecoded`."""
        is_text = isinstance(self.stream.read(0), str)
        wrapped: IO[str] = (
            self.stream
            if is_text
            else io.TextIOWrapper(
                cast(IO[bytes], self.stream), self.options.encoding, errors="surrogateescape", newline="\n"
            )
        )
        number = 0
        try:
            for number, line in enumerate(wrapped, start=1):
                if number == 1:
                    line = line.removeprefix(BOM)
                yield number, line.removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            bad = error.object[error.start : error.end]
            raise undecodable(self.name, number + 1, self.options.encoding, bad, error.object) from None
        finally:
            if not is_text:
                cast(io.TextIOWrapper, wrapped).detach()

    def undecoded(self, text: str, line: int) -> UserError | None:
        """The error for text with bytes that are not of the encoding, None where all is well."""
        if is_sound(text):
            return None
        around = text.encode(self.options.encoding, "surrogateescape")
        run = _ESCAPED.search(text)
        bad = run[0].encode("ascii", "surrogateescape") if run else b""
        return undecodable(self.name, line, self.options.encoding, bad, around)


def _read_lines(source: Input) -> Parsed:
    pattern = re.compile(source.options.pattern) if source.options.pattern is not None else None
    name = (source.options.columns or [LINE_FIELD])[0]
    for number, line in source.lines():
        if not line:
            continue
        bad = source.undecoded(line, number)
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
    for number, cells in _cells(source):
        bad = cells if isinstance(cells, UserError) else source.undecoded("".join(cells), number)
        if bad:
            if names is None and header:
                raise bad
            yield number, bad
        elif not isinstance(cells, UserError):
            if names is None:
                names = _names(source, cells, number, header)
                if header:
                    continue
            yield number, _named(source, names, cells, number)


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
        problem = f"the header has {len(first)} columns where `columns` names {len(columns)}"
        raise source.error(problem, line, field="columns", text=", ".join(first))
    if not header and [cell.strip() for cell in first[: len(columns)]] == columns:
        hint = "write header: true"
        raise source.error("the first line repeats the names of `columns`: it is a header", line, hint=hint)
    return columns


def _named(source: Input, names: list[str], cells: list[str], line: int) -> dict[str, str] | UserError:
    """The fields of one row. More cells than names are fine where `columns` chose them, not below a
    header."""
    wanted = f"{len(names)} {'is' if len(names) == 1 else 'are'} wanted"
    if len(cells) < len(names):
        problem = f"{len(cells)} field{'' if len(cells) == 1 else 's'} where {wanted}"
        return source.error(problem, line, text="\t".join(cells), hint=f"the columns are {', '.join(names)}")
    if source.options.columns is None and any(cells[len(names) :]):
        hint = (
            "a separator inside a field needs quotes; columns beyond those that `columns` names are ignored"
        )
        problem = f"{len(cells)} fields below a header of {len(names)}"
        return source.error(problem, line, text=cells[len(names)], hint=hint)
    return dict(zip(names, cells))


def _read_json_lines(source: Input) -> Parsed:
    for number, line in source.lines():
        if not line.strip():
            continue
        bad = source.undecoded(line, number)
        if bad:
            yield number, bad
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            hint = f"column {error.colno}" + (
                "; for one JSON array write reader: json" if number == 1 else ""
            )
            yield (
                number,
                source.error(f"not JSON: {error.msg}", number, text=line[error.pos :][:40], hint=hint),
            )
        except (ValueError, RecursionError) as error:
            yield number, source.error(f"not JSON that can be read: {error}", number)
        else:
            yield number, _object_fields(source, value, number, "for one JSON array write reader: json")


def _read_json_array(source: Input) -> Parsed:
    """The objects of one array. What is not JSON ends the file: nobody can tell where the next row would
    begin."""
    lines = [line for _, line in source.lines()]
    text = "\n".join(lines)
    if not is_sound(text):
        raise next(
            bad for number, line in enumerate(lines, start=1) if (bad := source.undecoded(line, number))
        )
    place = _skip_space(text, 0)
    if text[place : place + 1] != "[":
        raise source.error(
            "a JSON array of objects is wanted", 1, text=text[:40], hint="one object a line: reader: jsonl"
        )
    decoder, line, counted = json.JSONDecoder(), 1, 0
    place = _skip_space(text, place + 1)
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
            place = _skip_space(text, place)
            if text[place : place + 1] == ",":
                place = _skip_space(text, place + 1)
            elif text[place : place + 1] != "]":
                raise json.JSONDecodeError("expecting , or ] after a row", text, place)
        except json.JSONDecodeError as error:
            problem, hint = f"not JSON: {error.msg}", f"column {error.colno}"
            raise source.error(problem, error.lineno, text=text[error.pos :][:40], hint=hint) from None
        except (ValueError, RecursionError) as error:
            raise source.error(f"not JSON that can be read: {error}", line) from None
        yield line, _object_fields(source, value, line, "every element of the array is a row")


def _skip_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _object_fields(source: Input, value: Any, line: int, hint: str) -> dict[str, str] | UserError:
    if not isinstance(value, dict):
        return source.error(
            "a row must be a JSON object", line, text=json.dumps(value, ensure_ascii=False), hint=hint
        )
    fields = {name: _json_text(item) for name, item in value.items() if item is not None}
    for name, text in fields.items():
        if not is_sound(name + text):
            return source.error(
                r"half of a \ud800 pair: no such letter", line, field=quotable(name), text=quotable(text)
            )
    return fields


def quotable(text: str) -> str:
    """`text` with half pairs written as escapes, so that it can be printed."""
    return text.encode("utf-8", "backslashreplace").decode()


def _json_text(value: Any) -> str:
    """A JSON value as text: strings as they are, true, false and numbers as JSON writes them, the rest as
    JSON."""
    if isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


PARSERS: dict[Reader, Callable[[Input], Parsed]] = {
    "lines": _read_lines,
    "tsv": _read_table,
    "csv": _read_table,
    "jsonl": _read_json_lines,
    "json": _read_json_array,
}
