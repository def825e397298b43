"""How files of labelled rows are read: the keys a recipe may write beside `train`, and a model folder
keeps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gradus.core.config import Config
from gradus.core.errors import UserError
from gradus.data.json_paths import steps
from gradus.data.paths import HUB, Encoding

Reader = Literal["lines", "tsv", "csv", "jsonl", "json", "conll", "parquet"]
SUFFIXES: dict[str, Reader] = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".conll": "conll",
    ".parquet": "parquet",
}


def as_text(value: Any) -> Any:
    """A YAML scalar as the text it would be in a file. Raises ValueError for truth values and null, which
    have none."""
    if isinstance(value, bool) or value is None:
        raise ValueError("write it in quotes: YAML reads yes, no, on, off, true, false and null as no text")
    return repr(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(as_text)]
"""Text in a recipe; 1 is taken as "1"."""


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _named_groups(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if not groups:
        raise ValueError("it names no field; write (?P<label>...) around the part that is the label")
    return pattern


def _a_path(path: str) -> str:
    steps(path)
    return path


JsonPath = Annotated[str, AfterValidator(_a_path)]
"""Keys, indices (from 0) and stars (every element) with / between them."""


class Picked(Config):
    """A value of nested data; written as its path alone where there is nothing to join."""

    path: JsonPath
    join: str | None = None
    """What stands between the texts of a list that becomes one text, such as a line's end."""


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class ReaderOptions(Config):
    """How files of rows are read; the same for all splits, and kept with the model to read the rows of
    `predict`."""

    reader: Reader | None = None
    """Default: `lines` where there is a pattern, else by suffix."""
    columns: Annotated[list[Text], Field(min_length=1)] | None = None
    """TSV and CSV: names for the columns of a file without header (with `header: true` they rename); further
    columns are ignored, but a row wider than the first is an error (in TSV only below a header). CoNLL: names
    for the columns. Lines: one name for the line, which is else called "text"."""
    header: bool | None = None
    """TSV and CSV: whether the first line names the columns. Default: yes, unless `columns` does."""
    quotes: bool | None = None
    """Whether a double quote encloses a field (which may then span lines) or is text. Default: yes for CSV
    (RFC 4180), no for TSV."""
    encoding: Encoding = "utf-8"
    pattern: Annotated[str, AfterValidator(_named_groups)] | None = None
    """Lines: a regular expression that matches whole lines; its named groups are the fields."""
    rows: JsonPath | None = None
    """JSON, JSON Lines, Parquet: where the rows are, as `data/*/paragraphs/*/qas/*`. Default: every element
    of the array, every line. The keys of a row's object are its fields."""
    fields: dict[str, Annotated[Picked, BeforeValidator(_path_alone)]] = {}
    """Further fields by path: below the row, or, with `rows`, from the top, with the row's own indices for
    stars; further stars gather a list. `{path: ..., join: TEXT}` makes one text of a list."""
    map: dict[str, dict[Text, Text]] = {}
    """Field -> old value -> new value; other values stay. Done before `drop`."""
    drop: dict[str, Annotated[list[Text], BeforeValidator(_one_or_more)]] = {}
    """Field -> a value or several whose rows are left out (and counted)."""
    bad_rows: Annotated[str, Field(pattern=r"^(stop|skip up to [0-9]{1,18})$")] = "stop"
    """Either "stop" at the first row that cannot be read, or "skip up to 10" (of a split; counted and
    told)."""

    @model_validator(mode="after")
    def _agree(self) -> ReaderOptions:
        if self.pattern is not None and self.reader not in (None, "lines"):
            raise ValueError(f"`pattern` belongs to `reader: lines`, not to {self.reader}")
        if self.pattern is not None and self.columns is not None:
            raise ValueError("`pattern` and `columns` both name the fields; leave one out")
        if self.columns is None and self.header is False:
            raise ValueError("without a header the fields need names: write `columns`")
        twice = first_double(self.columns or [])
        if twice is not None:
            raise ValueError(f"`columns` names {twice!r} twice")
        return self

    @property
    def skippable(self) -> int:
        """How many bad rows a split may have."""
        return 0 if self.bad_rows == "stop" else int(self.bad_rows.rsplit(" ", 1)[1])

    def reader_for(self, name: str | Path) -> Reader:
        """The reader for a file. Raises UserError where its suffix tells nothing or an option is not for this
        reader."""
        from_hub = str(name).startswith(HUB)
        natural = "lines" if self.pattern is not None else SUFFIXES.get(Path(name).suffix.lower())
        reader = "parquet" if from_hub else self.reader or natural
        if reader is None:
            hint = f"write reader: {', '.join(get_args(Reader))}, or a `pattern` for its lines"
            raise UserError(
                "the name does not tell how to read these rows", file=name, field="reader", hint=hint
            )
        table, nested = reader in ("tsv", "csv"), reader in ("json", "jsonl", "parquet")
        one_name = reader == "lines" and self.columns is not None and len(self.columns) == 1
        wrong = {
            "reader": from_hub and self.reader not in (None, "parquet"),
            "pattern": from_hub and self.pattern is not None,
            "columns": self.columns is not None and not (table or one_name or reader == "conll"),
            "header": self.header is not None and not table,
            "quotes": self.quotes is not None and not table,
            "encoding": self.encoding != "utf-8" and reader == "parquet",
            "rows": self.rows is not None and not nested,
            "fields": bool(self.fields) and not nested,
        }
        for option in (option for option, is_wrong in wrong.items() if is_wrong):
            kind = "the hub's data sets" if from_hub else f"{reader} files"
            raise UserError(f"this option is not for {kind}", file=name, field=option, hint="leave it out")
        return reader


def distinct(names: list[str]) -> list[str]:
    """What a validator does that refuses a name written twice. Raises ValueError."""
    twice = first_double(names)
    if twice is not None:
        raise ValueError(f"{twice!r} stands there twice")
    return names


def first_double(names: Sequence[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)
