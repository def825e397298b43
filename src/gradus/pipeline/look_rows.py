"""Looking at a user's labelled rows before there is a recipe: how they are read, which column is what, how long."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError, quote
from gradus.data.builtin import builtin_name, builtin_rows
from gradus.data.paths import BOM
from gradus.data.reader_options import SUFFIXES, Reader, ReaderOptions
from gradus.data.readers import read_rows
from gradus.data.split import SPLITS, TRAIN
from gradus.pipeline.look import CHINESE_SHARE, Lengths, encoding_of, han_share

Fields = dict[str, str]
FEWEST_ROWS = 10
MOST_LABELS = 200
LONGEST_LABEL = 40
"""Characters of a label on average, at most."""
SIBLINGS = {"dev": ("dev", "valid", "validation", "val"), "test": ("test",)}
"""Names that the files of the other splits have beside a file called train."""
_NO_LABEL = ("", "-")
"""Values that stand for a missing label (an annotators' tie is `-` in SNLI and OCNLI)."""
_LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "polarity", "intent", "topic",
                "标签", "类别", "分类", "情感", "情感倾向")  # fmt: skip
_TEXT_NAMES = ("text", "sentence", "content", "review", "comment", "document", "body", "文本", "内容", "评论", "句子")
_PAIRS = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("text1", "text2"), ("text_a", "text_b"),
          ("question", "sentence"), ("question1", "question2"), ("question", "answer"), ("query", "document"))  # fmt: skip
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_LABEL_FIRST = r"(?P<label>\S+)\s+(?P<text>.+)"
_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?")


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


@dataclass(frozen=True)
class Column:
    """One column that every row has."""

    name: str
    values: list[str]

    @cached_property
    def kinds(self) -> Counter[str]:
        """How often each value stands there, the empty one left out."""
        return Counter(value.strip() for value in self.values if value.strip())

    @cached_property
    def empty(self) -> float:
        return 1 - sum(self.kinds.values()) / len(self.values)

    @cached_property
    def mean(self) -> float:
        """Characters of a value."""
        return sum(map(len, self.values)) / len(self.values)

    @property
    def could_be_label(self) -> bool:
        """Few values, short, each seen twice on average, and no measurements."""
        numbers = [kind for kind in self.kinds if _NUMBER.fullmatch(kind)]
        real = len(numbers) == len(self.kinds) and any("." in kind for kind in numbers)
        most = max(2, min(MOST_LABELS, len(self.values) // 2))
        return 2 <= len(self.kinds) <= most and self.mean <= LONGEST_LABEL and not real

    @property
    def could_be_text(self) -> bool:
        """Mostly filled, and mostly of several words or in Chinese."""
        some = self.values[:: max(1, len(self.values) // 1000)]
        several = sum(" " in value.strip() or han_share([value]) > CHINESE_SHARE for value in some)
        return self.mean >= 4 and self.empty < 0.05 and several > len(some) / 2


def look_at_rows(path: str) -> SeenRows:
    """What a file of rows, or builtin:NAME, holds.

    Raises UserError for a file that cannot be read, one with fewer than FEWEST_ROWS rows, and where no column looks
    like a label or a text; it names the columns.
    """
    name = builtin_name(path)
    if name is not None:
        rows = [row.fields for row in builtin_rows(name, TRAIN)]
        return _seen(path, {}, rows, {split: path for split in SPLITS if split != TRAIN}, [])
    file = Path(path).expanduser()
    if not file.is_file():
        what = "this is a folder, a file is wanted" if file.is_dir() else "no such file"
        raise UserError(what, field="--rows", text=path)
    options = _options(file)
    rows = [row.fields for row in read_rows(file, ReaderOptions(**options))]
    seen = _seen(path, options, rows, {}, [])
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


def _refuse(file: Path, text: str, natural: Reader | None, options: dict[str, Any]) -> None:
    """Raises UserError: the first thing that the file's natural reader meets, or that there is one column only."""
    line = text.splitlines()[0]
    other = next((sign for sign in ";|" if sign in line and "\t" not in line), None)
    hint = f"fields parted by {other!r}? save it with commas" if other else "a column with labels and one with texts are wanted"
    try:
        for _ in read_rows(file, ReaderOptions(reader=natural or "tsv", **options)):
            pass
    except UserError as error:
        error.hint = f"{error.hint}; `bad_rows: skip up to 10` in a recipe leaves such rows out" if error.hint else hint
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
        options: dict[str, Any] = {"reader": reader} | ({} if quotes == (reader == "csv") else {"quotes": quotes})
        return options | _names(cells, width, bool(ragged))
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
    """Whether double quotes enclose fields of a TSV file: a whole column is quoted, or quotes are doubled inside,
    and no field begins with a quote that does not end it."""
    opened = [cell for row in cells for cell in row if cell.startswith('"')]
    if not opened or not all(_QUOTED.fullmatch(cell) for cell in opened):
        return False
    column = any(all(_QUOTED.fullmatch(row[place]) for row in cells[1:]) for place in range(width))
    return column or any('""' in cell[1:-1] for cell in opened)


def _names(cells: Sequence[Sequence[str]], width: int, ragged: bool) -> dict[str, Any]:
    """`columns` where the file has no header, or one that cannot serve as it stands."""
    if not _has_header(cells, width):
        return {"columns": _invented([row[:width] for row in cells])}
    names = [cell.strip() or f"column {place}" for place, cell in enumerate(cells[0][:width], start=1)]
    if ragged or len(set(names)) < width:
        twice = [name if names.index(name) == place else f"{name} {place + 1}" for place, name in enumerate(names)]
        return {"columns": twice, "header": True}
    return {}


def _has_header(cells: Sequence[Sequence[str]], width: int) -> bool:
    """Whether the first row names the columns: it is no number, and where values are few it is none of them."""
    first = [cell.strip() for cell in cells[0][:width]]
    if any(_NUMBER.fullmatch(cell) or len(cell) > 2 * LONGEST_LABEL for cell in first):
        return False
    columns = [Column(str(place), [row[place] for row in cells[1:]]) for place in range(width)]
    few = [(name, column) for name, column in zip(first, columns) if name and column.could_be_label]
    if any(name in column.kinds for name, column in few):
        return False
    return bool(few) or any(name.lower() in (*_LABEL_NAMES, *_TEXT_NAMES) for name in first)


def _invented(cells: Sequence[Sequence[str]]) -> list[str]:
    """Names for the columns of a file without header, after what they hold."""
    names = [f"column {place}" for place in range(1, len(cells[0]) + 1)]
    columns = [Column(name, list(values)) for name, values in zip(names, zip(*cells))]
    label = _label(columns)
    texts = _texts([column for column in columns if column is not label]) if label else ()
    called = dict(zip(texts, ("text",) if len(texts) == 1 else ("first", "second")))
    if label:
        called[label.name] = "label"
    return [called.get(name, name) for name in names]


def _lines(text: str) -> dict[str, Any] | None:
    """Lines that begin with their label, as in TREC, or with fastText's `__label__`."""
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line]
    pattern = ("__label__" if all(line.startswith("__label__") for line in lines) else "") + _LABEL_FIRST
    matches = [re.fullmatch(pattern, line) for line in lines]
    labels = {match["label"] for match in matches if match}
    if None in matches or not 2 <= len(labels) <= max(2, min(MOST_LABELS, len(lines) // 10)):
        return None
    return {"pattern": pattern}


def _seen(
    path: str, options: dict[str, Any], rows: Sequence[Fields], splits: dict[str, str], notes: list[str]
) -> SeenRows:
    if len(rows) < FEWEST_ROWS:
        raise UserError(f"{len(rows)} rows are too few to learn from", file=path, hint=f"at least {FEWEST_ROWS} are wanted")
    columns = [Column(name, [row[name] for row in rows]) for name in rows[0] if all(name in row for row in rows)]
    label = _label(columns)
    texts = _texts([column for column in columns if column is not label])
    if label is None or not texts:
        what = "label: few values, each in several rows" if label is None else f"text beside the label {quote(label.name)}"
        found = "; ".join(f"{column.name}: {len(column.kinds)} values" for column in columns) or "no column is in every row"
        hint = f"{found}; write the recipe by hand and name the columns in `format`"
        raise UserError(f"none of the columns looks like a {what}", file=path, field="--rows", hint=hint)
    missing = sorted({value for value in label.values if value.strip() in _NO_LABEL})
    options = options | ({"drop": {label.name: missing}} if missing else {})
    kept = [row for row in rows if row[label.name] not in missing]
    counts = Counter(row[label.name].strip() for row in kept)
    joined = [" ".join(row[name] for name in texts) for row in kept]
    han = han_share(joined)
    if missing:
        notes = [*notes, f"{len(rows) - len(kept):,} rows without a label ({', '.join(map(repr, missing))}) are dropped"]
    others = tuple(name for name in rows[0] if name not in (label.name, *texts))
    return SeenRows(path, options, len(kept), label.name, {name: counts[name] for name in _ordered(counts)}, texts, others,
                    Lengths.of(joined, han >= CHINESE_SHARE), sum(len(text.encode()) for text in joined), han,
                    splits, tuple(notes))  # fmt: skip


def _ordered(labels: Counter[str]) -> list[str]:
    """As the classes will be: as numbers where all are integers, else sorted."""
    integers = all(re.fullmatch("-*[0-9]+", label) for label in labels)
    return sorted(labels, key=int) if integers else sorted(labels)


def _label(columns: Sequence[Column]) -> Column | None:
    """The column that most looks like the label: by name, then filled, then the fewest values, then the first."""

    def rank(column: Column) -> tuple[int, bool, int]:
        name = column.name.lower()
        named = 0 if name in _LABEL_NAMES else 1 if any(word in name for word in _LABEL_NAMES) else 2
        return named, column.empty > 0, len(column.kinds)

    return min((column for column in columns if column.could_be_label), key=rank, default=None)


def _texts(columns: Sequence[Column]) -> tuple[str, ...]:
    """The two columns of a pair, or the one with the text; none where nothing is long enough."""
    names = {column.name.lower(): column.name for column in columns}
    for first, second in _PAIRS:
        if first in names and second in names:
            return names[first], names[second]
    long = [column for column in columns if column.could_be_text]
    if len(long) == 2 and min(column.mean for column in long) >= 0.1 * max(column.mean for column in long):
        return long[0].name, long[1].name
    if named := next((column.name for name in _TEXT_NAMES for column in long if column.name.lower() == name), None):
        return (named,)
    most = max(long or [column for column in columns if column.mean >= 2], key=lambda column: column.mean, default=None)
    return (most.name,) if most else ()


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
                all(name in row.fields for name in fields) and row.fields[seen.label].strip() in seen.counts for row in rows
            )
        except UserError:
            fits = False
        if fits:
            splits[split] = str(other)
        else:
            notes.append(f"{other.name} lies beside it but has other columns or labels, and is not used")
    return splits, notes
