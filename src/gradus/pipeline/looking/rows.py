"""A look at a user's labelled rows before there is a recipe: how they are read, what they hold, how long."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from gradus.core.errors import UserError, counted, nearest, quote
from gradus.core.storage import from_home
from gradus.data.builtin import builtin_name, builtin_rows
from gradus.data.formats import MultipleChoice
from gradus.data.labels import in_order
from gradus.data.paths import BOM
from gradus.data.reader_options import SUFFIXES, Reader, ReaderOptions
from gradus.data.readers import Row, Skipped, read_rows
from gradus.data.split import SPLITS, TRAIN
from gradus.pipeline.looking.choices import choice_format
from gradus.pipeline.looking.columns import MOST_LABELS, Column, chosen_columns, has_header, invented_names
from gradus.pipeline.looking.text import CHINESE_SHARE, Lengths, encoding_of, han_share

FEWEST_ROWS = 10
MOST_BAD = 0.1
"""The share of rows that may be unreadable; a file with more was misunderstood."""
SIBLINGS = {"dev": ("dev", "valid", "validation", "val"), "test": ("test",)}
"""Names that the files of the other splits have beside a file called train."""
TIE = "-"
"""A label that is none: what SNLI and OCNLI write where the annotators did not agree."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_LABEL_FIRST = r"(?P<label>\S+)\s+(?P<text>.+)"


@dataclass(frozen=True)
class SeenRows:
    """What there is of labelled rows, and how a recipe reads them."""

    file: str
    options: dict[str, Any]
    """The reader's keys that differ from their defaults."""
    rows: int
    task: str
    """The objective: classification, regression or multiple_choice."""
    format: dict[str, Any]
    counts: dict[str, int]
    """Classes: label -> rows, in the order of the classes; else the label's values."""
    texts: tuple[str, ...]
    """The column with the text, or the two of a pair."""
    others: tuple[str, ...]
    lengths: Lengths
    bytes: int
    han: float
    splits: dict[str, str] = field(default_factory=dict)
    """dev, test -> the file (or builtin:NAME) that is it."""
    notes: tuple[str, ...] = ()
    dropped: int = 0
    """Rows that `drop` leaves out."""

    @property
    def label(self) -> str:
        return str(self.format["label"])

    @property
    def chinese(self) -> bool:
        return self.han >= CHINESE_SHARE


def look_at_rows(path: str, label: str | None = None) -> SeenRows:
    """What a file of rows, or builtin:NAME, holds; `label` is the label's column where the user names it.

    Rows that cannot be read are left out and told where they are few. Raises UserError for a file that cannot
    be read, one with fewer than FEWEST_ROWS rows, and where no column looks like a label or a text; it names
    the columns.
    """
    name = builtin_name(path)
    if name is not None:
        rows = [Row(index, *row) for index, row in enumerate(builtin_rows(name, TRAIN))]
        splits = {split: path for split in SPLITS if split != TRAIN}
        return replace(_seen(path, {}, rows, label), splits=splits)
    file = from_home(path)
    if not file.is_file():
        what = "this is a folder, a file is wanted" if file.is_dir() else "no such file"
        raise UserError(what, field="--rows", text=path)
    options, notes = _options(file, label)
    rows, bad = _read(file, options)
    if bad:
        options["bad_rows"] = f"skip up to {len(bad)}"
        first = " ".join(bad[0].problem.split())
        notes.append(f"{counted(len(bad), 'row')} cannot be read and will be skipped; the first: {first}")
    seen = _seen(path, options, rows, label)
    splits, more = _siblings(file, seen)
    return replace(seen, splits=splits, notes=(*notes, *seen.notes, *more))


def _read(file: Path, options: dict[str, Any]) -> tuple[list[Row], list[Skipped]]:
    """The rows, and the few that cannot be read. Raises UserError for the first of these where they are more
    than a few."""
    bad: list[Skipped] = []
    try:
        return list(read_rows(file, ReaderOptions(**options))), bad
    except UserError as first:
        try:
            rows = list(read_rows(file, ReaderOptions(**options, bad_rows=f"skip up to {10**9}"), bad))
        except UserError:
            raise first from None
        if len(bad) > MOST_BAD * (len(rows) + len(bad)):
            raise
        return rows, bad


def _options(file: Path, label: str | None) -> tuple[dict[str, Any], list[str]]:
    """How to read the file: its natural way, unless the content says otherwise; and what to tell of it."""
    data = file.read_bytes()
    if not data.strip():
        raise UserError("the file is empty", file=file, field="--rows")
    natural = SUFFIXES.get(file.suffix.lower())
    if natural == "parquet":
        return {}, []
    encoding = encoding_of(data, file)
    options: dict[str, Any] = {} if encoding == "utf-8" else {"encoding": encoding}
    text = data.decode(encoding).removeprefix(BOM)
    if natural not in ("csv", "tsv") and text.lstrip()[:1] in ("{", "["):
        reader: Reader = "json" if text.lstrip()[0] == "[" else "jsonl"
        return ({} if reader == natural else {"reader": reader}) | options, []
    found, notes = _table(text, natural, label)
    if found is None and natural not in ("csv", "tsv"):
        found = _lines(text)
    if found is None:
        _refuse(file, text, natural, options)
    if natural is not None and found.get("reader") == natural:
        found.pop("reader")
    return found | options, notes


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


def _table(text: str, natural: Reader | None, label: str | None) -> tuple[dict[str, Any] | None, list[str]]:
    """The options of the first way to cut the text into rows of two columns or more, nearly all equal."""
    text = text.replace("\r\n", "\n")
    ways = [("csv", True), ("csv", False), ("tsv", False), ("tsv", True)]
    for reader, quotes in ways if natural == "csv" else [ways[2], ways[3], ways[0], ways[1]]:
        cells = list(_cells(text, reader, quotes))
        width = Counter(map(len, cells)).most_common(1)[0][0] if cells else 0
        whole = [row for row in cells if len(row) == width]
        ragged = len(cells) - len(whole)
        if len(cells) < 2 or width < 2 or len(cells[0]) != width or ragged > MOST_BAD * len(cells):
            continue
        if natural not in ("csv", "tsv") and any(len(row) < width for row in cells):
            continue
        if reader == "tsv" and not quotes and _really_quoted(whole, width):
            continue
        names = _names(whole, width, label)
        bare = reader == "tsv" and "columns" in names and "header" not in names
        wide = sum(any(row[width:]) for row in cells) if bare else 0
        told = f"{counted(wide, 'row')} with more than {width} fields: what is beyond them is ignored"
        unusual = {} if quotes == (reader == "csv") else {"quotes": quotes}
        return {"reader": reader} | unusual | names, [told] if wide else []
    return None, []


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


def _names(cells: Sequence[Sequence[str]], width: int, label: str | None) -> dict[str, Any]:
    """`columns` where the file has no header, or one that names two columns alike."""
    if not has_header(cells, width):
        return {"columns": invented_names(cells, label)}
    names = [cell.strip() or f"column {place}" for place, cell in enumerate(cells[0], start=1)]
    if len(set(names)) == width:
        return {}
    for place, name in enumerate(names):
        names[place] = name if name not in names[:place] else f"{name} {place + 1}"
    return {"columns": names, "header": True}


def _lines(text: str) -> dict[str, Any] | None:
    """Lines that begin with their label, as in TREC, or with fastText's `__label__`."""
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line]
    pattern = ("__label__" if all(line.startswith("__label__") for line in lines) else "") + _LABEL_FIRST
    matches = [re.fullmatch(pattern, line) for line in lines]
    labels = {match["label"] for match in matches if match}
    if None in matches or not 2 <= len(labels) <= max(2, min(MOST_LABELS, len(lines) // 10)):
        return None
    return {"pattern": pattern}


def _seen(path: str, options: dict[str, Any], rows: Sequence[Row], label: str | None) -> SeenRows:
    names = list(dict.fromkeys(name for row in rows for name in row.fields))
    task, form = _chosen(
        path, rows, [Column(name, [row.fields.get(name, "") for row in rows]) for name in names], label
    )
    texts = tuple(form[key] for key in ("text", "first", "second", "context", "question") if key in form)
    drop, notes, kept = {}, [], list(rows)
    for name in (form["label"], *texts):
        found = [row.fields.get(name, "") for row in kept]
        none = ("", TIE) if name == form["label"] else ("",)
        nothing = {text for text in found if text.strip() in none}
        if nothing:
            values = sorted(nothing)
            drop[name] = values if len(values) > 1 else values[0]
            kept = [row for row, text in zip(kept, found) if text not in nothing]
            notes.append(f"{counted(len(found) - len(kept), 'row')} with nothing in {quote(name)} dropped")
    if len(kept) < FEWEST_ROWS:
        problem = f"{counted(len(kept), 'row')} with text and label: too few to learn from"
        raise UserError(problem, file=path, hint=f"at least {FEWEST_ROWS} are wanted")
    counts = Counter(row.fields[form["label"]].strip() for row in kept)
    joined = [_joined(row, form, texts) for row in kept]
    han = han_share(joined)
    answers = form.get("answers", [])
    used = (form["label"], *texts, *([answers] if isinstance(answers, str) else answers))
    return SeenRows(
        file=path,
        options=options | ({"drop": drop} if drop else {}),
        rows=len(kept),
        dropped=len(rows) - len(kept),
        task=task,
        format=form,
        counts={name: counts[name] for name in in_order(counts)},
        texts=texts,
        others=tuple(name for name in names if name not in used),
        lengths=Lengths.of(joined, han >= CHINESE_SHARE),
        bytes=sum(len(text.encode()) for text in joined),
        han=han,
        notes=tuple(notes),
    )


def _joined(row: Row, form: dict[str, Any], texts: Sequence[str]) -> str:
    """What stands in one sequence of the model; of answers the longest."""
    answers = MultipleChoice(**form).choices(row) if "answers" in form else [""]
    return " ".join([*(row.fields[name] for name in texts), max(answers, key=len)]).strip()


def _chosen(
    path: str, rows: Sequence[Row], columns: Sequence[Column], wanted: str | None
) -> tuple[str, dict[str, Any]]:
    """The objective and the format. Raises UserError that tells what the columns hold."""
    names = [column.name for column in columns]
    if wanted is not None and wanted not in names:
        hint = nearest(wanted, names)
        raise UserError("there is no such column", file=path, field="--label", text=wanted, hint=hint)
    if choice := choice_format(columns, rows, wanted):
        return "multiple_choice", choice
    label, texts = chosen_columns(columns, wanted)
    if label is not None and texts and len(label.kinds) > 1:
        kind, keys = ("single", ["text"]) if len(texts) == 1 else ("pair", ["first", "second"])
        kind = "similarity" if label.is_score and kind == "pair" else kind
        form = {"kind": kind, **dict(zip(keys, texts)), "label": label.name}
        return "regression" if label.is_score else "classification", form
    lacking = "label: few values, each in several rows"
    if label is not None:
        lacking = (
            f"text beside the label {quote(label.name)}" if len(label.kinds) > 1 else "label: several values"
        )
    found = ", ".join(f"{column.name} ({counted(len(column.kinds), 'value')})" for column in columns)
    hint = f"columns: {found}; --label COLUMN names the label"
    raise UserError(f"none of the columns looks like a {lacking}", file=path, field="--rows", hint=hint)


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
            rows = list(read_rows(other, ReaderOptions(**seen.options)))
            fits = bool(rows) and all(_alike(row, seen) for row in rows)
        except UserError:
            fits = False
        if fits:
            splits[split] = str(other)
        else:
            notes.append(f"{other.name} lies beside it but has other columns or labels, and is not used")
    return splits, notes


def _alike(row: Row, seen: SeenRows) -> bool:
    known = seen.task != "classification" or row.fields.get(seen.label, "").strip() in seen.counts
    return known and {seen.label, *seen.texts} <= set(row.fields)
