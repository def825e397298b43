"""Rows of JSON: one object a line, the elements of one array, or whatever a path of rows names in them.

A value becomes text: strings as they are, numbers and truth values as JSON writes them, lists and objects as
JSON; null is no field. A JSON Lines file is the list of its lines, so the same paths serve both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gradus.core.errors import UserError
from gradus.data.input import Input, Parsed
from gradus.data.json_paths import EVERY, Path, PathError, pick, places, skip_space, steps, walk
from gradus.data.paths import is_sound

_ONE_ARRAY = "for one JSON array write reader: json"
_NAME_THEM = "every element is a row unless `rows` names their path; what is no object needs `fields`"


@dataclass(frozen=True)
class Document:
    """A value that holds rows: an element of the file's list (`element`), or the whole file.

    Where it spans lines, `text` and `start` say where it stands, so that its rows know their own.
    """

    value: Any
    line: int
    element: bool = True
    text: str = ""
    start: int = 0
    hint: str = _NAME_THEM


class Shape:
    """Where the rows are, and where the fields of each: `rows` and `fields` of the reader."""

    def __init__(self, source: Input):
        options = source.options
        self.source = source
        self.by_row = options.rows is None
        self.rows = steps(options.rows) if options.rows is not None else (EVERY,)
        self.fields: dict[str, tuple[Path, str | None]] = {}
        for name, picked in options.fields.items():
            self.fields[name] = ((EVERY,) if self.by_row else ()) + steps(picked.path), picked.join

    @property
    def by_element(self) -> bool:
        """Whether every element of the file's list can be read on its own."""
        return all(path[0] == EVERY for path in (self.rows, *(path for path, _ in self.fields.values())))

    def read(self, document: Document) -> Parsed:
        """The rows of a document, each with its line; where `rows` does not fit, the document is a bad
        row."""
        taken = int(document.element)
        try:
            found = list(walk(document.value, self.rows, taken))
        except PathError as error:
            yield document.line, self._misfit(error, document.line, "rows", self.rows)
            return
        for (bound, row), line in zip(found, self._lines(document, taken, len(found)), strict=True):
            yield line, self._fields(document, row, line, bound)

    def _lines(self, document: Document, taken: int, rows: int) -> Iterator[int]:
        line, counted = document.line, document.start
        if not document.text or len(self.rows) == taken:
            yield from [line] * rows
            return
        for place in places(document.text, document.start, self.rows, taken):
            line, counted = line + document.text.count("\n", counted, place), place
            yield line

    def _fields(
        self, document: Document, row: Any, line: int, bound: tuple[int, ...]
    ) -> dict[str, str] | UserError:
        """The row's own keys, and over them the fields that paths name."""
        if not isinstance(row, dict) and not self.fields:
            text = json.dumps(row, ensure_ascii=False)
            return self.source.error("a row must be a JSON object", line, text=text, hint=document.hint)
        found = {name: as_text(value) for name, value in row.items()} if isinstance(row, dict) else {}
        for name, (path, join) in self.fields.items():
            try:
                value = pick(document.value, path, int(document.element), bound)
                found[name] = as_text(value) if join is None else _joined(value, join, len(path))
            except PathError as error:
                if name not in self.source.absent:
                    return self._misfit(error, line, f"fields.{name}", path)
                found.pop(name, None)
        fields = {name: text for name, text in found.items() if text is not None}
        for name, text in fields.items():
            if not is_sound(name + text):
                return self.source.half_pair(line, text, name)
        return fields

    def _misfit(self, error: PathError, line: int, field: str, path: Path) -> UserError:
        shown = path[int(self.by_row) : error.taken + 1]
        return self.source.error(error.problem, line, field=field, text="/".join(shown), hint=error.hint)


def as_text(value: Any) -> str | None:
    """A JSON value as text; None for null."""
    if value is None or isinstance(value, str):
        return value
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _joined(value: Any, join: str, taken: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        found = json.dumps(value, ensure_ascii=False)
        raise PathError(
            "`join` wants a list of texts", taken, found if len(found) < 80 else found[:77] + "..."
        )
    return join.join(value)


def read_json_lines(source: Input) -> Parsed:
    """The rows of JSON Lines. Raises UserError for a path that does not begin at the lines."""
    shape = Shape(source)
    if not shape.by_element:
        raise source.error("in JSON Lines a path begins with *, the lines", None, field="rows",
                           text=source.options.rows, hint="and so do those of `fields`")  # fmt: skip
    for number, line in source.lines():
        if bad := source.undecoded(number):
            yield number, bad
        elif line.strip():
            value = _parsed(source, line, number)
            if isinstance(value, UserError):
                yield number, value
            else:
                yield from shape.read(Document(value, number, hint=_ONE_ARRAY))


def _parsed(source: Input, line: str, number: int) -> Any:
    """The value of a line, or what is wrong with it."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        hint = f"column {error.colno}" + (f"; {_ONE_ARRAY}" if number == 1 else "")
        return source.error(f"not JSON: {error.msg}", number, text=line[error.pos :][:40], hint=hint)
    except (ValueError, RecursionError) as error:
        return source.error(f"not JSON that can be read: {error}", number)


def read_json(source: Input) -> Parsed:
    """The rows of one JSON text, an array unless `rows` says where they are.

    What is not JSON ends the file: nobody can tell where the next row would begin.
    """
    text = "\n".join(line for _, line in source.lines())
    if bad := source.undecoded(1):
        raise bad
    shape, start = Shape(source), skip_space(text, 0)
    is_array = text[start : start + 1] == "["
    if not is_array and source.options.rows is None:
        hint = "one object a line: reader: jsonl; in a larger object `rows` names the path of the rows"
        raise source.error("a JSON array of objects is wanted", 1, text=text[:40], hint=hint)
    if is_array and shape.by_element:
        documents = _elements(source, text, start)
    else:
        documents = _whole(source, text, start)
    for document in documents:
        yield from shape.read(document)


def _elements(source: Input, text: str, place: int) -> Iterator[Document]:
    line, counted = 1, 0
    place = skip_space(text, place + 1)
    more = text[place : place + 1] != "]"
    while more:
        line, counted, start = line + text.count("\n", counted, place), place, place
        value, place = _decoded(source, text, place, line, ",]")
        yield Document(value, line, True, text if "\n" in text[start:place] else "", start)
        more = text[place] == ","
        place = skip_space(text, place + 1) if more else place
    after = skip_space(text, place + 1)
    if after < len(text):
        raise _no_json(source, json.JSONDecodeError("expecting the end of the file", text, after))


def _whole(source: Input, text: str, place: int) -> Iterator[Document]:
    line = 1 + text.count("\n", 0, place)
    yield Document(_decoded(source, text, place, line, "")[0], line, False, text, place)


def _decoded(source: Input, text: str, place: int, line: int, ends: str) -> tuple[Any, int]:
    """The value at `place`, and where one of `ends` (or, without any, the end of the text) follows."""
    try:
        value, place = json.JSONDecoder().raw_decode(text, place)
        place = skip_space(text, place)
        if (text[place : place + 1] or None) not in (tuple(ends) or (None,)):
            wanted = "expecting , or ] after a row" if ends else "expecting the end of the file"
            raise json.JSONDecodeError(wanted, text, place)
    except json.JSONDecodeError as error:
        raise _no_json(source, error) from None
    except (ValueError, RecursionError) as error:
        raise source.error(f"not JSON that can be read: {error}", line) from None
    return value, place


def _no_json(source: Input, error: json.JSONDecodeError) -> UserError:
    text, hint = error.doc[error.pos :][:40], f"column {error.colno}"
    return source.error(f"not JSON: {error.msg}", error.lineno, text=text, hint=hint)
