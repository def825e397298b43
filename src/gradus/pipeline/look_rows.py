"""A look at a user's labelled rows before there is a recipe: how they are read, what they hold, how long."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from gradus.core.errors import UserError, quote
from gradus.data.builtin import builtin_name, builtin_rows
from gradus.data.paths import BOM
from gradus.data.reader_options import SUFFIXES, Reader, ReaderOptions
from gradus.data.readers import read_rows
from gradus.data.split import SPLITS, TRAIN
from gradus.pipeline.look import CHINESE_SHARE, Lengths, encoding_of, han_share
from gradus.pipeline.look_columns import (
    MOST_LABELS,
    Column,
    has_header,
    invented_names,
    label_column,
    text_columns,
)

Fields = dict[str, str]
FEWEST_ROWS = 10
SIBLINGS = {"dev": ("dev", "valid", "validation", "val"), "test": ("test",)}
"""Names that the files of the other splits have beside a file called train."""
_NO_LABEL = ("", "-")
"""Values that stand for a missing label (an annotators' tie is `-` in SNLI and OCNLI)."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_LABEL_FIRST = r"(?P<label>\S+)\s+(?P<text>.+)"


@dataclass(frozen=True)
class SeenRows:
    """What there is of labelled rows, and how a recipe reads them."""

    file: str
    options: dict[str, Any]
    """The reader's keys that differ from their defaults."""
    rows: int
    label: str
    counts: dict[str, int]
    """Label -> rows, in the order of the classes."""
    texts: tuple[str, ...]
    """The column with the text, or the two of a pair."""
    others: tuple[str, ...]
    lengths: Lengths
    bytes: int
    han: float
    splits: dict[str, str] = field(default_factory=dict)
    """dev, test -> the file (or builtin:NAME) that is it."""
    notes: tuple[str, ...] = ()

    @property
    def chinese(self) -> bool:
        return self.han >= CHINESE_SHARE


def look_at_rows(path: str) -> SeenRows:
    """What a file of rows, or builtin:NAME, holds.

    Raises UserError for a file that cannot be read, one with fewer than FEWEST_ROWS rows, and where no column
    looks like a label or a text; it names the columns.
    """
    name = builtin_name(path)
    if name is not None:
        rows = [row.fields for row in builtin_rows(name, TRAIN)]
        return _seen(path, {}, rows, {split: path for split in SPLITS if split != TRAIN})
    file = Path(path).expanduser()
    if not file.is_file():
        what = "this is a folder, a file is wanted" if file.is_dir() else "no such file"
        raise UserError(what, field="--rows", text=path)
    options = _options(file)
    rows = [row.fields for row in read_rows(file, ReaderOptions(**options))]
    seen = _seen(path, options, rows, {})
    splits, notes = _siblings(file, seen)
    return replace(seen, splits=splits, notes=(*seen.notes, *notes))


def _options(file: Path) -> dict[str, Any]:
    """How to read the file: its natural way, unless the content says otherwise."""
    data = file.read_bytes()
    if not data.strip():
        raise UserError("the file is empty", file=file, field="--rows")
    encoding = encoding_of(data, file)
    options: dict[str, Any] = {} if encoding == "utf-8" else {"encoding": encoding}
    text = data.decode(encoding).removeprefix(BOM)
    natural = SUFFIXES.get(file.suffix.lower())
    if natural not in ("csv", "tsv") and text.lstrip()[:1] in ("{", "["):
        reader: Reader = "json" if text.lstrip()[0] == "[" else "jsonl"
        return ({} if reader == natural else {"reader": reader}) | options
    found = _table(text, natural) or (_lines(text) if natural not in ("csv", "tsv") else None)
    if found is None:
        _refuse(file, text, natural, options)
    if natural is not None and found.get("reader") == natural:
        found.pop("reader")
    return found | options


def _refuse(file: Path, text: str, natural: Reader | None, options: dict[str, Any]) -> NoReturn:
    """Raises UserError: the first thing that the natural reader meets, or that there is one column only."""
    line = text.splitlines()[0]
    other = next((sign for sign in ";|" if sign in line and "\t" not in line), None)
    hint = "a column with labels and one with texts are wanted"
    if other:
        hint = f"fields parted by {other!r}? save it with commas"
    try:
        for _ in read_rows(file, ReaderOptions(reader=natural or "tsv", **options)):
            pass
    except UserError as error:
        skip = "`bad_rows: skip up to 10` in a recipe leaves such rows out"
        error.hint = f"{error.hint}; {skip}" if error.hint else skip
        raise
    raise UserError("no columns can be told apart", file=file, line=1, text=line, hint=hint)


def _table(text: str, natural: Reader | None) -> dict[str, Any] | None:
    """The options of the first way to cut the text into equal rows of two columns or more."""
    text = text.replace("\r\n", "\n")
    ways = [("csv", True), ("csv", False), ("tsv", False), ("tsv", True)]
    for reader, quotes in ways if natural == "csv" else [ways[2], ways[3], ways[0], ways[1]]:
        cells = list(_cells(text, reader, quotes))
        width = Counter(map(len, cells)).most_common(1)[0][0] if cells else 0
        ragged = sum(len(row) != width for row in cells)
        if len(cells) < 2 or width < 2 or any(len(row) < width for row in cells) or ragged > 0.1 * len(cells):
            continue
        if reader == "tsv" and not quotes and _really_quoted(cells, width):
            continue
        unusual = {} if quotes == (reader == "csv") else {"quotes": quotes}
        return {"reader": reader} | unusual | _names(cells, width, bool(ragged))
    return None


def _cells(text: str, reader: str, quotes: bool) -> Iterator[list[str]]:
    """The rows of a table; none where quotes do not close."""
    separator = "\t" if reader == "tsv" else ","
    if not quotes:
        yield from (line.split(separator) for line in text.split("\n") if line)
        return
    try:
        lines = (line + "\n" for line in text.split("\n"))
        yield from [row for row in csv.reader(lines, delimiter=separator, strict=True) if row]
    except csv.Error:
        return


def _really_quoted(cells: Sequence[Sequence[str]], width: int) -> bool:
    """Whether double quotes enclose fields of a TSV file: a whole column is quoted, or quotes are doubled
    inside, and no field begins with a quote that does not end it."""
    opened = [cell for row in cells for cell in row if cell.startswith('"')]
    if not opened or not all(_QUOTED.fullmatch(cell) for cell in opened):
        return False
    column = any(all(_QUOTED.fullmatch(row[place]) for row in cells[1:]) for place in range(width))
    return column or any('""' in cell[1:-1] for cell in opened)


def _names(cells: Sequence[Sequence[str]], width: int, ragged: bool) -> dict[str, Any]:
    """`columns` where the file has no header, or one that cannot serve as it stands."""
    if not has_header(cells, width):
        return {"columns": invented_names([row[:width] for row in cells])}
    names = [cell.strip() or f"column {place}" for place, cell in enumerate(cells[0][:width], start=1)]
    if ragged or len(set(names)) < width:
        for place, name in enumerate(names):
            names[place] = name if name not in names[:place] else f"{name} {place + 1}"
        return {"columns": names, "header": True}
    return {}


def _lines(text: str) -> dict[str, Any] | None:
    """Lines that begin with their label, as in TREC, or with fastText's `__label__`."""
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line]
    pattern = ("__label__" if all(line.startswith("__label__") for line in lines) else "") + _LABEL_FIRST
    matches = [re.fullmatch(pattern, line) for line in lines]
    labels = {match["label"] for match in matches if match}
    if None in matches or not 2 <= len(labels) <= max(2, min(MOST_LABELS, len(lines) // 10)):
        return None
    return {"pattern": pattern}


def _seen(path: str, options: dict[str, Any], rows: Sequence[Fields], splits: dict[str, str]) -> SeenRows:
    if len(rows) < FEWEST_ROWS:
        hint = f"at least {FEWEST_ROWS} are wanted"
        raise UserError(f"{len(rows)} rows are too few to learn from", file=path, hint=hint)
    label, texts = _chosen(path, rows)
    missing = sorted({row[label] for row in rows if row[label].strip() in _NO_LABEL})
    kept = [row for row in rows if row[label] not in missing]
    counts = Counter(row[label].strip() for row in kept)
    joined = [" ".join(row[name] for name in texts) for row in kept]
    han = han_share(joined)
    notes = []
    if missing:
        options = options | {"drop": {label: missing}}
        shown = ", ".join(map(repr, missing))
        notes.append(f"{len(rows) - len(kept):,} rows without a label ({shown}) are dropped")
    return SeenRows(
        file=path,
        options=options,
        rows=len(kept),
        label=label,
        counts={name: counts[name] for name in _ordered(counts)},
        texts=texts,
        others=tuple(name for name in rows[0] if name not in (label, *texts)),
        lengths=Lengths.of(joined, han >= CHINESE_SHARE),
        bytes=sum(len(text.encode()) for text in joined),
        han=han,
        splits=splits,
        notes=tuple(notes),
    )


def _chosen(path: str, rows: Sequence[Fields]) -> tuple[str, tuple[str, ...]]:
    """The columns of label and text. Raises UserError that tells what the columns hold."""
    names = [name for name in rows[0] if all(name in row for row in rows)]
    columns = [Column(name, [row[name] for row in rows]) for name in names]
    label = label_column(columns)
    texts = text_columns([column for column in columns if column is not label])
    if label is not None and texts:
        return label.name, texts
    wanted = (
        f"text beside the label {quote(label.name)}" if label else "label: few values, each in several rows"
    )
    found = (
        ", ".join(f"{column.name} ({len(column.kinds):,} values)" for column in columns)
        or "none in every row"
    )
    hint = f"columns: {found}; write the recipe by hand and name the columns in `format`"
    raise UserError(f"none of the columns looks like a {wanted}", file=path, field="--rows", hint=hint)


def _ordered(labels: Counter[str]) -> list[str]:
    """As the classes will be: as numbers where all are integers, else sorted."""
    integers = all(re.fullmatch("-*[0-9]+", label) for label in labels)
    return sorted(labels, key=int) if integers else sorted(labels)


def _siblings(file: Path, seen: SeenRows) -> tuple[dict[str, str], list[str]]:
    """dev and test files that lie beside a file called train, where they have the same columns and labels."""
    splits: dict[str, str] = {}
    notes = []
    for split, words in SIBLINGS.items() if "train" in file.name else ():
        others = [file.with_name(file.name.replace("train", word)) for word in words]
        other = next((other for other in others if other.is_file()), None)
        if other is None:
            continue
        try:
            rows = read_rows(other, ReaderOptions(**seen.options))
            fields = (seen.label, *seen.texts)
            fits = all(
                set(fields) <= set(row.fields) and row.fields[seen.label].strip() in seen.counts
                for row in rows
            )
        except UserError:
            fits = False
        if fits:
            splits[split] = str(other)
        else:
            notes.append(f"{other.name} lies beside it but has other columns or labels, and is not used")
    return splits, notes
