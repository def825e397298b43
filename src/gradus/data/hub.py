"""Rows of Parquet files and of data sets of the Hugging Face hub, by libraries that are imported only here.

A row's number (from 1) stands for its line. Values become text as those of JSON do; classes that are stored
as numbers get their names, dates are written as ISO 8601, columns of bytes (pictures, sound) are left out.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradus.core.errors import UserError
from gradus.data.input import Input, Parsed
from gradus.data.nested import Document, Shape
from gradus.data.paths import HUB
from gradus.data.split import DEV, TEST, TRAIN

PARTS = {TRAIN: "train", DEV: "validation", TEST: "test"}
"""What our splits are called on the hub, unless the recipe names one."""
_ROWS_AT_ONCE = 1000
Names = dict[str, list[str]]
"""Column -> the names of its classes, in the order of their numbers."""


class HubName(NamedTuple):
    """A data set's name, configuration and split."""

    name: str
    config: str | None
    part: str

    def __str__(self) -> str:
        return f"{HUB}{'/'.join(filter(None, (self.name, self.config)))}:{self.part}"

    @classmethod
    def of(cls, choice: str, split: str) -> HubName:
        """`hub:OWNER/NAME[/CONFIG][:PART]`; a name without owner has no configuration either."""
        whole, _, part = choice.removeprefix(HUB).partition(":")
        words = whole.split("/")
        if not all(words) or len(words) > 3:
            hint = "hub:OWNER/NAME, hub:OWNER/NAME/CONFIG, and :SPLIT after it where it has another name"
            raise UserError("this is no name of a data set", field=split, text=choice, hint=hint)
        return cls("/".join(words[:2]), words[2] if len(words) == 3 else None, part or PARTS[split])


def read_hub(source: Input, wanted: HubName, split: str) -> Parsed:
    """The rows of a data set of the hub, from its cache or downloaded now.

    Raises UserError where the library is missing, the data set or its split is not there, or nothing can be
    reached and nothing was kept.
    """
    found = _load(wanted, split)
    names = _class_names(found.features.arrow_schema)
    tables = found.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE)
    yield from _rows(source, tables, names)


def _load(wanted: HubName, split: str) -> Any:
    datasets = _library("datasets", str(wanted), split)
    if Path(wanted.name).exists():  # the library would read that instead
        hint = "a file or folder of this name is here: run the command elsewhere"
        raise UserError("this may not be the hub's data set", field=split, text=str(wanted), hint=hint)
    try:
        return datasets.load_dataset(wanted.name, wanted.config, split=wanted.part)
    except (
        Exception
    ) as error:  # the library and those below it raise a dozen kinds for what the user can mend
        hint = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError):
            hint += "; offline only what was loaded before can be read: or save the rows as Parquet"
        raise UserError("it cannot be loaded", field=split, text=str(wanted), hint=hint) from None


def _library(name: str, text: str, field: str | None = None) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        hint = "pip install 'gradus-lm[hub]'"
        problem = f"the library {name.split('.')[0]}, which reads this, is not installed"
        raise UserError(problem, field=field, text=text, hint=hint) from None


def read_parquet(source: Input) -> Parsed:
    """The rows of a Parquet file, few of them in memory at a time."""
    parquet = _library("pyarrow.parquet", source.name)
    wrong = importlib.import_module("pyarrow").ArrowException
    stream = source.stream if source.stream.seekable() else io.BytesIO(source.stream.read())
    try:
        file = parquet.ParquetFile(stream)
        yield from _rows(source, file.iter_batches(_ROWS_AT_ONCE), _class_names(file.schema_arrow))
    except (wrong, OSError, TypeError) as error:
        raise source.error("not Parquet that can be read", None, hint=" ".join(str(error).split())) from None


def _rows(source: Input, tables: Iterable[Any], names: Names) -> Parsed:
    shape, number = Shape(source), 0
    if not shape.by_element:
        raise source.error("in a table a path begins with *, the rows", None, field="rows",
                           text=source.options.rows, hint="and so do those of `fields`")  # fmt: skip
    for table in tables:
        columns = {field.name: column for field in table.schema
                   if (column := _plain(table.column(field.name), field.type, names.get(field.name)))
                   is not None}  # fmt: skip
        for values in zip(*columns.values(), strict=True):
            number += 1
            yield from shape.read(Document(dict(zip(columns, values)), number))


def _plain(column: Any, kind: Any, names: list[str] | None) -> list[Any] | None:
    """The values of a column as JSON has them; None for bytes, which are no text."""
    types = importlib.import_module("pyarrow").types
    if any("binary" in str(inner) for inner in _leaves(kind)):
        return None
    values = column.to_pylist()
    if names is not None:
        return [_named(value, names) for value in values]
    if types.is_float32(kind) or types.is_float16(kind):  # 3.8, not 3.799999952316284
        number = np.float32 if types.is_float32(kind) else np.float16
        return [None if value is None else float(str(number(value))) for value in values]
    usual = (types.is_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    if all(any(is_one(leaf) for is_one in usual) for leaf in _leaves(kind)):
        return values
    return [json.loads(json.dumps(value, default=_iso)) for value in values]


def _leaves(kind: Any) -> Iterator[Any]:
    """The types of the values at the bottom of lists and structs."""
    if not kind.num_fields:
        yield kind
    for place in range(kind.num_fields):
        yield from _leaves(kind.field(place).type)


def _iso(value: Any) -> str:
    """Dates and times as ISO 8601, decimal numbers as they are written."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _named(value: Any, names: list[str]) -> Any:
    """The name of a class, or of each in a list; a number without a name (-1 in test sets) is no class."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if value is not None and 0 <= value < len(names) else None


def _class_names(schema: Any) -> Names:
    """What the library `datasets` noted in the schema of a table it wrote."""
    try:
        noted = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    found: Names = {}
    for column, feature in noted.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and inner.get("names"):
            found[column] = inner["names"]
    return found
